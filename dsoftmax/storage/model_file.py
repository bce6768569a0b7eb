"""Models as small Zarr groups: arrays and JSON, nothing pickled.

Without dsoftmax a model is read with zarr alone: the arrays `coef_` (n_classes, n_features),
`intercept_` and `classes_`, and the attribute "dsoftmax" of the group.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import zarr

from dsoftmax.errors import CheckpointError, DataError, quoted, shortened
from dsoftmax.storage.codecs import arrays_of_model
from dsoftmax.storage.credentials import public_errors, public_url
from dsoftmax.storage.digests import sha256
from dsoftmax.storage.records import strict_json
from dsoftmax.storage.urls import absolute_url, error_text, locate, open_raw
from dsoftmax.storage.zarr_nodes import create_array, new_group
from dsoftmax.typing import Array

_FORMAT = 1
# What the group says until the model is complete: at a URL, a process may be killed meanwhile.
_UNFINISHED = {"unfinished": True}


@dataclass(frozen=True)
class ModelRecord:
    """A fitted model as data.

    Attributes
    ----------
    params : the estimator's parameters
    facts : fitted attributes that are numbers, strings or lists of records
    arrays : fitted attributes that are arrays
    versions : of the libraries that wrote it, once it is written
    """

    params: dict[str, Any]
    facts: dict[str, Any]
    arrays: dict[str, Array]
    versions: dict[str, str] = field(default_factory=dict)


@public_errors()
def write_record(
    path: str | os.PathLike[str], record: ModelRecord, *, overwrite: bool = False
) -> None:
    """Write a model; a local one appears only when it is complete."""
    arrays = {name: _storable(array) for name, array in record.arrays.items()}
    params = {name: _parameter_json(value) for name, value in record.params.items()}
    facts = strict_json(record.facts)
    content: dict[str, Any] = {"format": _FORMAT, "params": params, "facts": facts}
    content["versions"] = _versions()
    begun = _attribute(path)
    if overwrite and begun is not None and "sha256" not in str(begun) and begun != _UNFINISHED:
        # Of all Zarr stores only models may be replaced: never a user's data.
        raise DataError(
            f"{path} holds a Zarr store that is no model, and is not replaced by one; choose "
            "another destination"
        )
    with new_group(
        locate(path), overwrite or begun == _UNFINISHED, {"dsoftmax": _UNFINISHED}
    ) as group:
        for name, array in arrays.items():
            _write_array(group, name, array)
        group.attrs["dsoftmax"] = content | {"sha256": _content_digest(content, arrays)}


def _versions() -> dict[str, str]:
    libraries = {name: version(name) for name in ("dsoftmax", "numpy", "scikit-learn", "zarr")}
    return {**libraries, "python": platform.python_version()}


def _attribute(path: str | os.PathLike[str]) -> Any:
    """Return what a store says of the model in it; "" if nothing, None if there is no store."""
    try:
        return open_raw(absolute_url(path)).attrs.get("dsoftmax", "")
    except Exception:  # whatever damaged metadata make Zarr raise: then it is no store
        return None


@public_errors()
def read_record(path: str | os.PathLike[str]) -> ModelRecord:
    """Return the model at a path or URL, verified.

    Raises
    ------
    CheckpointError
        If there is none, or it is damaged, or of another format.
    """
    content, arrays = _read(path)
    expected = content.pop("sha256", None)
    if _content_digest(content, arrays) != expected:
        raise CheckpointError(
            f"{public_url(path)} is damaged: its content does not match its SHA-256; restore or "
            "refit it"
        )
    try:
        params = dict(content["params"])
        if isinstance(params["class_weight"], list):
            params["class_weight"] = dict(params["class_weight"])
        return ModelRecord(
            params, dict(content["facts"]), arrays, dict(content.get("versions", {}))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{public_url(path)} is not a readable model: {quoted(error)}"
        ) from error


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    url = absolute_url(path)
    try:
        node = open_raw(url)
        content: dict[str, Any] = dict(node.attrs["dsoftmax"])  # type: ignore[arg-type]
        format_ = content["format"]
        if format_ != _FORMAT:
            raise CheckpointError(
                f"{public_url(path)} has format {quoted(format_)}, and this version of dsoftmax "
                f"reads {_FORMAT}; load it with the version that wrote it{_writer(content)}"
            )
        arrays = arrays_of_model(node) if isinstance(node, zarr.Group) else {}
        return content, {name: _storable(np.asarray(array[...])) for name, array in arrays.items()}
    except CheckpointError:
        raise
    except Exception as error:  # whatever damage makes zarr, a codec or JSON raise
        raise CheckpointError(
            f"{public_url(path)} is not a readable model: {error_text(error)}"
        ) from error


def _writer(content: Mapping[str, Any]) -> str:
    written = content.get("versions")
    return f" ({shortened(written.get('dsoftmax'))})" if isinstance(written, Mapping) else ""


def _storable(array: Array) -> Array:
    """Return an array as it is read again; its digest is then the same.

    Numbers are in the machine's byte order, and text is as wide as its longest string: Zarr keeps
    neither the order nor the width that they had.
    """
    if array.dtype.kind in "biuf":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.array((array.astype(str) if array.dtype.kind == "O" else array).tolist())


def _parameter_json(value: Any) -> Any:
    """Return a parameter as JSON holds it; a dict as pairs, since JSON's keys are strings."""
    return strict_json(list(value.items()) if isinstance(value, Mapping) else value)


def _write_array(group: zarr.Group, name: str, array: Array) -> None:
    target = create_array(group, name, array.shape, array.dtype, array.shape)
    target[...] = array


def _content_digest(content: dict[str, Any], arrays: dict[str, Array]) -> str:
    """Return the SHA-256 of canonical JSON and of the arrays in the order of their names."""
    parts: list[str | Array] = [json.dumps(content, sort_keys=True, separators=(",", ":"))]
    for name in sorted(arrays):
        parts += [f"{name} ", arrays[name]]
    return sha256(*parts)


_ARRAYS = ("coef_", "intercept_", "classes_", "feature_names_in_", "_shift")
_FACTS = (
    "n_iter_",
    "n_steps_",
    "loss_",
    "stop_reason_",
    "seed_",
    "history_",
    "data_",
    "numerics_",
    "quarantined_",
    "gap_",
    "best_iter_",
    "loss_evaluated_",
    "_decode",
    "_feature_axis",
)
# What an earlier version did not write, or not every model has.
_OPTIONAL = (
    "feature_names_in_",
    "_shift",
    "data_",
    "numerics_",
    "quarantined_",
    "gap_",
    "best_iter_",
    "loss_evaluated_",
    "_decode",
    "_feature_axis",
)


def save_model(model: Any, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a fitted model; see `SoftmaxRegression.save`."""
    params = model.get_params(deep=False)
    del params["callbacks"], params["checkpoint"]
    if params["random_state"] is not None:  # a generator is stored as the seed that it gave
        params["random_state"] = model.seed_
    values = ((name, getattr(model, name, None)) for name in _ARRAYS)
    arrays = {name: array for name, array in values if array is not None}
    facts = {name: getattr(model, name) for name in _FACTS if hasattr(model, name)}
    write_record(path, ModelRecord(params, facts, arrays), overwrite=overwrite)
