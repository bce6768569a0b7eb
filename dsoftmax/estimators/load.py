"""Estimators to model files and back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np

from dsoftmax.errors import CheckpointError, quoted, shortened
from dsoftmax.estimators.classifier import SoftmaxRegression
from dsoftmax.objective.labels import LABEL_KINDS
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
        writer, names = record.versions.get("dsoftmax"), ", ".join(sorted(unknown))
        raise CheckpointError(
            f"{public_url(path)} was written by dsoftmax {shortened(writer)}, with parameters that "
            f"version {version('dsoftmax')} does not know: {shortened(names)}; load it with the "
            "version that wrote it, or a later one"
        )
    try:
        model = SoftmaxRegression(**record.params)
        found = record.facts | record.arrays
        for name in (*_FACTS, *_ARRAYS):
            if name in found or name not in _OPTIONAL:
                setattr(model, name, found[name])
    except (KeyError, TypeError) as error:
        raise _unreadable(path, quoted(error)) from error
    for fault in _faults(model):
        raise _unreadable(path, f"{fault}; restore or refit it")
    model.n_features_in_ = model.coef_.shape[1]
    return model


def _unreadable(path: str | os.PathLike[str], why: str) -> CheckpointError:
    return CheckpointError(f"{public_url(path)} is not a readable model: {why}")


def _faults(model: Any) -> Iterator[str]:
    """Yield what cannot be of a fitted model; whoever changes a file can make its digest, too."""
    classes, coef = model.classes_, model.coef_
    if classes.ndim != 1 or len(classes) < 1 or classes.dtype.kind not in LABEL_KINDS:
        yield f"classes_ has shape {classes.shape} and dtype {classes.dtype}"
        return
    if not np.array_equal(np.unique(classes), classes):
        yield "classes_ is not sorted, or holds a label twice"
    rows = 1 if len(classes) == 2 else len(classes)
    if coef.ndim != 2 or len(coef) != rows or coef.shape[1] < 1:
        yield f"coef_ has shape {coef.shape}; expected ({rows}, n_features)"
        return
    expected = {"coef_": coef.shape, "intercept_": (rows,)}
    for name, shape in expected.items():
        array = getattr(model, name)
        if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            yield f"{name} is no array of finite floats of shape {shape}"
    for name, kinds in {"feature_names_in_": "OTU", "_shift": "f"}.items():
        array = getattr(model, name, None)
        if array is not None and (
            array.shape[-1:] != coef.shape[1:] or array.ndim > 2 or array.dtype.kind not in kinds
        ):
            yield f"{name} has shape {array.shape} and dtype {array.dtype}, coef_ {coef.shape}"
    for name, types in _TYPES.items():
        if not isinstance(getattr(model, name, None), types):
            yield f"{name} is {quoted(getattr(model, name))}"


_TYPES: dict[str, tuple[type, ...]] = {
    "n_iter_": (int,),
    "n_steps_": (int,),
    "loss_": (int, float, type(None)),
    "gap_": (int, float, type(None)),
    "stop_reason_": (str,),
    "history_": (list,),
    "data_": (dict, type(None)),
    "quarantined_": (list, type(None)),
    "_decode": (bool, type(None)),
    "_feature_axis": (str, type(None)),
}
