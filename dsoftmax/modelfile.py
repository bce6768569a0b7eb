"""Estimators to model files and back."""

from __future__ import annotations

import os

from dsoftmax.estimator import SoftmaxRegression
from dsoftmax.persistence import ModelRecord, read_record, write_record

_ARRAYS = ("coef_", "intercept_", "classes_", "feature_names_in_")
_FACTS = ("n_iter_", "n_steps_", "loss_", "stop_reason_", "seed_", "history_")


def save_model(
    model: SoftmaxRegression, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a fitted model; see `SoftmaxRegression.save`."""
    params = model.get_params(deep=False)
    del params["callbacks"]
    if params["random_state"] is not None:  # a generator is kept as the seed that it gave
        params["random_state"] = model.seed_
    arrays = {name: getattr(model, name) for name in _ARRAYS if hasattr(model, name)}
    facts = {name: getattr(model, name) for name in _FACTS}
    write_record(path, ModelRecord(params, facts, arrays), overwrite=overwrite)


def load_model(path: str | os.PathLike[str]) -> SoftmaxRegression:
    """Return the model that `SoftmaxRegression.save` wrote.

    Parameters
    ----------
    path : path or URL

    Returns
    -------
    SoftmaxRegression
        Fitted; callbacks are not saved.

    Raises
    ------
    CheckpointError
        If there is no model, or it is damaged, or of a format that this version cannot read.
    """
    record = read_record(path)
    model = SoftmaxRegression(**record.params)
    for attribute, value in (record.facts | record.arrays).items():
        setattr(model, attribute, value)
    model.n_features_in_ = model.coef_.shape[1]
    return model
