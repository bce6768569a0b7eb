"""Estimators to model files and back."""

from __future__ import annotations

import os

from dsoftmax import __version__
from dsoftmax.errors import CheckpointError
from dsoftmax.estimator import SoftmaxRegression
from dsoftmax.persistence import ModelRecord, read_record, write_record

_ARRAYS = ("coef_", "intercept_", "classes_", "feature_names_in_", "_shift")
_FACTS = (
    "n_iter_", "n_steps_", "loss_", "stop_reason_", "seed_", "history_", "data_", "numerics_",
    "quarantined_", "gap_", "best_iter_",
)  # fmt: skip
# What an earlier version did not write, or not every model has.
_OPTIONAL = (
    "feature_names_in_",
    "_shift",
    "data_",
    "numerics_",
    "quarantined_",
    "gap_",
    "best_iter_",
)


def save_model(
    model: SoftmaxRegression, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a fitted model; see `SoftmaxRegression.save`."""
    params = model.get_params(deep=False)
    del params["callbacks"], params["checkpoint"]
    if params["random_state"] is not None:  # a generator is kept as the seed that it gave
        params["random_state"] = model.seed_
    found = ((name, getattr(model, name, None)) for name in _ARRAYS)
    arrays = {name: array for name, array in found if array is not None}
    facts = {name: getattr(model, name) for name in _FACTS if hasattr(model, name)}
    write_record(path, ModelRecord(params, facts, arrays), overwrite=overwrite)


def load_model(path: str | os.PathLike[str]) -> SoftmaxRegression:
    """Return the model that `SoftmaxRegression.save` wrote.

    Parameters
    ----------
    path : path or URL
        Of what was saved.

    Returns
    -------
    SoftmaxRegression
        Fitted; callbacks and the place of its checkpoint are not saved. Parameters that the
        version which wrote it did not have are at their defaults.

    Raises
    ------
    CheckpointError
        If there is no model, or it is damaged, or of a format that this version cannot read.
    """
    record = read_record(path)
    if unknown := record.params.keys() - SoftmaxRegression().get_params().keys():
        raise CheckpointError(
            f"{path} was written by dsoftmax {record.versions.get('dsoftmax')}, with parameters "
            f"that version {__version__} does not know: {', '.join(sorted(unknown))}; load it with "
            "the version that wrote it, or a later one"
        )
    try:
        model = SoftmaxRegression(**record.params)
        found = record.facts | record.arrays
        for name in (*_FACTS, *_ARRAYS):
            if name in found or name not in _OPTIONAL:
                setattr(model, name, found[name])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a readable model: {error!r}") from error
    model.n_features_in_ = model.coef_.shape[1]
    return model
