"""Objects as arrays of numbers or labels, and the label that users have left out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dsoftmax.errors import DataError, DtypeError, quoted
from dsoftmax.objective.labels import LABEL_TYPES, label_array
from dsoftmax.typing import Array

_NO_VALUE = ("NAType", "NaTType")  # of pandas, which workers do without


def is_missing(value: Any) -> bool:
    """Return whether an object stands for a value that is not there: None, NaN or pandas' NA."""
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    return value is None or type(value).__name__ in _NO_VALUE


def from_objects(role: str, array: Array) -> Array:
    """Return an object array as numbers (X, weights) or as labels of one type (y, cv).

    Missing values are NaN among numbers, and masked among labels.
    """
    if role in ("y", "cv") and all(isinstance(label, str) for label in array.flat):
        return array.astype(str)
    masked, array = np.ma.getmaskarray(array), np.ma.getdata(array)
    gaps = np.fromiter(map(is_missing, array.flat), bool, array.size).reshape(array.shape) | masked
    if role not in ("y", "cv"):
        numbers = np.where(gaps, np.nan, array) if gaps.any() else array
        try:
            return numbers.astype(np.float64)
        except (TypeError, ValueError) as error:
            kind = DtypeError if isinstance(error, TypeError) else DataError
            raise kind(f"{role} holds objects that are not numbers: {error}") from error
    labels = label_array(role, array[~gaps].tolist())
    if not gaps.any():
        return labels.reshape(array.shape)
    filled = np.zeros(array.shape, labels.dtype)
    filled[~gaps] = labels
    return np.ma.masked_array(filled, gaps)


def comparable_label(label: Any, name: str, dtype: np.dtype[Any]) -> Any:
    """Return a label as labels of a dtype are compared with it: NaN for missing ones.

    Raises
    ------
    DataError
        If it is of another type than the labels, or a number that their dtype cannot hold.
    """
    if is_missing(label):
        return math.nan
    if isinstance(label, np.generic):
        label = label.item()
    if dtype.kind not in LABEL_TYPES:  # objects, whose type is known when they are read
        return label
    kind = LABEL_TYPES[dtype.kind]
    if kind not in ("str", "bytes"):
        kind = "number"
    if kind != ("number" if isinstance(label, bool | int | float) else type(label).__name__):
        raise DataError(
            f"ignore_label is {quoted(label)}, but {name} has labels of the type "
            f"{LABEL_TYPES[dtype.kind]} (dtype {dtype}); expected a label of that kind"
        )
    if kind != "number":
        return label
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            held = np.array([label]).astype(dtype)[0]
    except OverflowError:
        held = None
    rounded = dtype.kind == "f" and isinstance(label, float)  # 0.1 is another number in float32
    # As Python compares them, which is exact.
    if held is None or not (rounded or held.item() == label):
        raise DataError(
            f"ignore_label is {quoted(label)}, which {name} cannot hold, of dtype {dtype}: no "
            "label would be equal to it. Name the label as it is stored"
        )
    return held
