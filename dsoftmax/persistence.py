"""Models as small Zarr groups: three arrays and JSON, nothing pickled.

Without dsoftmax a model is read with zarr alone: the arrays `coef` (n_classes, n_features),
`intercept` and `classes`, and the attribute "dsoftmax" of the group.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from dsoftmax.errors import CheckpointError, DsoftmaxError
from dsoftmax.reduction import Array
from dsoftmax.stores import checksummed, locate, new_group

if TYPE_CHECKING:
    from dsoftmax.estimator import SoftmaxRegression

_FORMAT = 1
_ARRAYS = {"coef": "coef_", "intercept": "intercept_", "classes": "classes_"}
_FACTS = ("n_iter_", "n_steps_", "loss_", "stop_reason_", "seed_", "history_")


def save_model(
    model: SoftmaxRegression, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a fitted model; see `SoftmaxRegression.save`."""
    arrays = {name: np.asarray(getattr(model, attribute)) for name, attribute in _ARRAYS.items()}
    if hasattr(model, "feature_names_in_"):
        arrays["feature_names"] = model.feature_names_in_.astype(str)
    content = {
        "format": _FORMAT,
        "params": _plain_params(model),
        "facts": {name: getattr(model, name) for name in _FACTS},
    }
    with new_group(locate(path), overwrite) as group:
        for name, array in arrays.items():
            _write_array(group, name, array)
        group.attrs["dsoftmax"] = content | {"sha256": _digest(content, arrays)}


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
    content, arrays = _read(path)
    expected = content.pop("sha256", None)
    if _digest(content, arrays) != expected:
        raise CheckpointError(
            f"{path} is damaged: its content does not match its SHA-256; restore or refit it"
        )
    return _restore(content, arrays)


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    try:
        group = zarr.open_group(locate(path), mode="r")
        content = dict(group.attrs["dsoftmax"])  # type: ignore[arg-type]
        version = content["format"]
        if version != _FORMAT:
            raise CheckpointError(
                f"{path} has format {version}, and this version of dsoftmax reads {_FORMAT}; "
                "load it with the version that wrote it"
            )
        return content, {name: _read_array(array) for name, array in group.arrays()}
    except DsoftmaxError:
        raise
    except Exception as error:  # whatever damage makes zarr, a codec or JSON raise
        raise CheckpointError(
            f"{path} is not a readable model: {type(error).__name__}: {error}"
        ) from error


def _restore(content: dict[str, Any], arrays: dict[str, Array]) -> SoftmaxRegression:
    from dsoftmax.estimator import SoftmaxRegression

    model = SoftmaxRegression(**content["params"])
    for name, attribute in _ARRAYS.items():
        setattr(model, attribute, arrays[name])
    for name in _FACTS:
        setattr(model, name, content["facts"][name])
    if "feature_names" in arrays:
        model.feature_names_in_ = arrays["feature_names"].astype(object)
    model.n_features_in_ = model.coef_.shape[1]
    return model


def _plain_params(model: SoftmaxRegression) -> dict[str, Any]:
    """Return the parameters that JSON can hold; a generator is represented by the seed it gave."""
    params = model.get_params(deep=False)
    params.pop("callbacks")
    if not isinstance(params["random_state"], int | None):
        params["random_state"] = model.seed_
    if params["classes"] is not None:
        params["classes"] = np.asarray(params["classes"]).tolist()
    if params["class_weight"] is not None and not isinstance(params["class_weight"], str):
        # JSON's keys are strings; after the fit the weights of the classes are not needed.
        params["class_weight"] = None
    return {
        name: value.item() if hasattr(value, "item") else value for name, value in params.items()
    }


def _write_array(group: zarr.Group, name: str, array: Array) -> None:
    target = group.create_array(
        name,
        shape=array.shape,
        dtype="string" if array.dtype.kind == "U" else array.dtype,
        chunks=array.shape,
        compressors=checksummed(),
        config={"write_empty_chunks": True},
    )
    target[...] = array


def _read_array(array: Any) -> Array:
    values = np.asarray(array[...])
    return values if values.dtype.kind in "biuf" else np.array(values.tolist())


def _digest(content: dict[str, Any], arrays: dict[str, Array]) -> str:
    """Return the SHA-256 of canonical JSON and of the arrays in the order of their names."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
