"""Labels as arrays: of one type, compared exactly, and their codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dsoftmax.errors import DataError, DtypeError
from dsoftmax.typing import Array

LABEL_KINDS = "biufSU"
UNKNOWN = -1  # the code of a label that is not one of the classes
_NO_VALUE = ("NAType", "NaTType")  # of pandas, which workers do without
_TYPES = {"U": "str", "T": "str", "S": "bytes", "b": "bool", "i": "int", "u": "int", "f": "float"}


def preview(labels: Array, most: int = 10) -> str:
    """Return the first labels as text."""
    shown = ", ".join(repr(label.item()) for label in labels[:most])
    return shown + (", ..." if len(labels) > most else "")


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


def label_array(role: str, labels: Sequence[Any]) -> Array:
    """Return labels as an array of numbers, strings or bytes that holds them as they are.

    Raises
    ------
    DataError
        If they are of several of these types or of another, or no dtype holds all the numbers.
    """
    labels = [label.item() if isinstance(label, np.generic) else label for label in labels]
    names = {"str" if isinstance(each, str) else type(each).__name__ for each in labels}
    if len(names) > 1:
        raise DataError(
            f"{role} mixes labels of the types {', '.join(sorted(names))}; expected one type"
        )
    array = np.array(labels, dtype=str if names == {"str"} else None)
    if array.dtype.kind not in LABEL_KINDS:
        raise DataError(
            f"{role} holds objects of the type {', '.join(sorted(names))}; expected integers, "
            "booleans or strings"
        )
    if names == {"int"} and array.dtype.kind == "f" and min(labels) >= 0:
        array = np.array(labels, dtype=np.uint64)  # NumPy takes 1 and 2**63 for floats
    if array.dtype.kind == "f" and (names == {"int"} or array.tolist() != labels):
        raise DataError(
            f"{role} holds the numbers {min(labels)!r} to {max(labels)!r}, which no dtype of NumPy "
            "holds exactly together; use smaller integers as labels, or strings"
        )
    return array


def joined_labels(first: Array, second: Array) -> Array:
    """Return labels of two parts of the data as one array.

    Raises
    ------
    DataError
        As `label_array`.
    """
    if not (len(first) and len(second)):
        return first if len(first) else second
    if first.dtype.kind == second.dtype.kind:
        return np.concatenate([first, second])
    return label_array("y", [*first.tolist(), *second.tolist()])


def codes_of(name: str, labels: Array, classes: Array, *, were_objects: bool = False) -> Array:
    """Return the indices of labels among sorted classes, UNKNOWN for those that are none.

    Numbers of different dtypes are compared exactly.

    Parameters
    ----------
    name : of the array of the labels
    labels, classes : arrays of numbers, strings or bytes
    were_objects : whether the labels were objects, which other parts may hold of other types

    Raises
    ------
    DataError
        If labels and classes are of different types; numbers are one, unless they were objects.
    """
    _require_comparable(name, labels.dtype, classes, were_objects)
    values, fits = labels, None
    # NumPy takes a cast of int64 to float64 for a safe one.
    if labels.dtype.kind != classes.dtype.kind or not np.can_cast(labels.dtype, classes.dtype):
        values, fits = _cast(labels, classes.dtype)
    index = np.minimum(np.searchsorted(classes, values), len(classes) - 1)
    known = classes[index] == values
    return np.where(known if fits is None else known & fits, index, UNKNOWN)


def _cast(labels: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return labels in another dtype, and which of them it holds exactly."""
    with np.errstate(invalid="ignore", over="ignore"):
        values = labels.astype(dtype)
        # There and back, since NumPy compares integers with floats as float64.
        fits = (values == labels) & (values.astype(labels.dtype) == labels)
    for floats, integers in ((labels, values), (values, labels)):
        if floats.dtype.kind == "f" and integers.dtype.kind in "iu":
            # What a float out of range is cast to depends on the processor.
            fits &= floats < float(np.iinfo(integers.dtype).max) + 1
    return values, fits


def _require_comparable(
    name: str, dtype: np.dtype[Any], classes: Array, were_objects: bool
) -> None:
    got, expected = _TYPES[dtype.kind], _TYPES[classes.dtype.kind]
    numbers = {"bool", "int", "float"}
    if got != expected and (were_objects or not {got, expected} <= numbers):
        raise DataError(
            f"{name} has labels of the type {got}, and the classes ({preview(classes)}) are of the "
            f"type {expected}; convert the labels to that type"
        )


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
    if dtype.kind not in _TYPES:  # objects, whose type is known when they are read
        return label
    kind = _TYPES[dtype.kind]
    if kind not in ("str", "bytes"):
        kind = "number"
    if kind != ("number" if isinstance(label, bool | int | float) else type(label).__name__):
        raise DataError(
            f"ignore_label is {label!r}, but {name} has labels of the type {_TYPES[dtype.kind]} "
            f"(dtype {dtype}); expected a label of that kind"
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
            f"ignore_label is {label!r}, which {name} cannot hold, of dtype {dtype}: no label "
            "would be equal to it. Name the label as it is stored"
        )
    return held
