"""The label of rows with missing values: whether it fits the classes, and what if there is none."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsoftmax.errors import DataError, quoted
from dsoftmax.objective.reduction import Chunk
from dsoftmax.typing import Array

_EXACT = 2**53  # up to which float64 holds all integers


def label_dtype(classes: Array, missing_label: Any) -> np.dtype[Any]:
    """Return the dtype that holds the classes and the label of rows with missing values.

    Parameters
    ----------
    classes : array of shape (n_classes,), numbers or strings
    missing_label : a label, or None

    Raises
    ------
    DataError
        If it is not one label, or no dtype holds both as they are: strings and numbers, or
        integers above 2**53 and a NaN.

    Examples
    --------
    >>> label_dtype(np.array([0, 200], "u1"), -1), label_dtype(np.array(["a", "b"]), "none")
    (dtype('int16'), dtype('<U4'))
    """
    if missing_label is None:
        return classes.dtype
    label, known = np.asarray(missing_label), classes.dtype
    kinds = known.kind if known.kind in "US" else "biuf"
    if label.ndim > 0 or label.dtype.kind not in kinds or np.ma.isMaskedArray(missing_label):
        raise DataError(
            f"missing_label is {quoted(missing_label)}, and the classes are {known} "
            f"({quoted(classes[0].item())}, ...); expected one label of that kind, such as "
            f"{quoted(example(classes))}"
        )
    if label.dtype.kind in "iu":
        label_kind = np.min_scalar_type(label.item())
    elif known.kind == "f" and np.array_equal(label.astype(known), label, equal_nan=True):
        label_kind = known
    else:
        label_kind = label.dtype
    dtype = np.result_type(known, label_kind)
    integers = [v for v in (*classes[[0, -1]].tolist(), label.item()) if isinstance(v, int)]
    if dtype.kind == "f" and any(abs(value) > _EXACT for value in integers):
        raise DataError(
            f"missing_label is {quoted(missing_label)}, and the classes are {known}, up to "
            f"{classes[-1]}: no dtype holds both without loss. Choose an integer that {known} holds"
        )
    return dtype


def example(classes: Array) -> Any:
    """Return a label that is none of the classes, and of their kind."""
    if classes.dtype.kind not in "US":
        return min(-1, int(classes[0]) - 1)
    return "missing" if classes.dtype.kind == "U" else b"missing"


def missing_label_error(block: Chunk, missing: Array, classes: Array) -> DataError:
    """Return the error of a prediction that has no label for some rows of a block."""
    row = int(np.argmax(missing))
    values = block.X[row]
    found = f"a missing value at {block.where(row)} (masked, or marked so by its attributes)"
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        column = int(np.argmin(np.isfinite(values)))
        at = f"{block.where(row)}, column {column}{block.chunk_at(block.number(row), column)}"
        found = f"the value {values[column]} at {at}, which is not finite (NaN or infinity)"
    return DataError(
        f"X has {found}, so that no class is predicted for that row ({int(missing.sum())} such "
        f"rows among {len(missing)}). Pass the label that such rows are to get, as missing_label="
        f"{quoted(example(classes))}, or call predict_proba, which gives them NaN"
    )
