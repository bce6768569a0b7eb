"""Labels as arrays: of one type, compared exactly, and their codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsoftmax.errors import DataError, quoted
from dsoftmax.typing import Array

LABEL_KINDS = "biufSU"
UNKNOWN = -1  # the code of a label that is not one of the classes
_NUMBERS = {"b": "bool", "i": "int", "u": "int", "f": "float"}
LABEL_TYPES = {"U": "str", "T": "str", "S": "bytes", **_NUMBERS}  # by the kind of a dtype


def preview(labels: Array, most: int = 10) -> str:
    """Return the first labels as text."""
    shown = ", ".join(quoted(label.item()) for label in labels[:most])
    return shown + (", ..." if len(labels) > most else "")


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
            f"{role} holds the numbers {quoted(min(labels))} to {quoted(max(labels))}, which no "
            "dtype of NumPy holds exactly together; use smaller integers as labels, or strings"
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
    got, expected = LABEL_TYPES[dtype.kind], LABEL_TYPES[classes.dtype.kind]
    numbers = set(_NUMBERS.values())
    if got != expected and (were_objects or not {got, expected} <= numbers):
        raise DataError(
            f"{name} has labels of the type {got}, and the classes ({preview(classes)}) are of the "
            f"type {expected}; convert the labels to that type"
        )
