"""Estimators to model files and back."""

from __future__ import annotations

import os
from importlib.metadata import version

from dsoftmax.errors import CheckpointError
from dsoftmax.estimators.classifier import SoftmaxRegression
from dsoftmax.storage.credentials import public_url
from dsoftmax.storage.model_file import _ARRAYS, _FACTS, _OPTIONAL, read_record


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
            f"{public_url(path)} was written by dsoftmax {record.versions.get('dsoftmax')}, with "
            f"parameters that version {version('dsoftmax')} does not know: "
            f"{', '.join(sorted(unknown))}; load it with the version that wrote it, or a later one"
        )
    try:
        model = SoftmaxRegression(**record.params)
        found = record.facts | record.arrays
        for name in (*_FACTS, *_ARRAYS):
            if name in found or name not in _OPTIONAL:
                setattr(model, name, found[name])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{public_url(path)} is not a readable model: {error!r}") from error
    model.n_features_in_ = model.coef_.shape[1]
    return model
