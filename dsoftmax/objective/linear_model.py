"""A fitted linear model as arrays, and what it predicts for a block of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dsoftmax.errors import DataError
from dsoftmax.objective.kernel import raw_blocks
from dsoftmax.objective.missing_label import label_dtype, missing_label_error
from dsoftmax.objective.reduction import Chunk
from dsoftmax.objective.softmax import log_probabilities, probabilities
from dsoftmax.objective.units import exponent_of, in_units, raw_from_afar, shift_and_factor
from dsoftmax.typing import Array

_WIDE = ("predict_proba", "predict_log_proba")
METHODS = ("predict", "decision_function", *_WIDE)


@dataclass(frozen=True)
class LinearModel:
    """All that a prediction needs: it travels with the tasks.

    Attributes
    ----------
    classes : (K,)
    coef : (n_features, n_columns); one column is the log odds of the second of two classes
    intercept : (n_columns,)
    shift : (n_features,), what the kernel subtracts from the rows to keep its digits, or None; of
        shape (2, n_features) with units, see `dsoftmax.objective.units`
    missing_label : what `predict` gives rows with missing values, or None to refuse them
    """

    classes: Array
    coef: Array
    intercept: Array
    shift: Array | None = None
    missing_label: Any = None

    def point(self, dtype: npt.DTypeLike) -> Array:
        """Return the kernel's point (n_features + 1, n_columns), for rows that it shifts."""
        shift, _ = shift_and_factor(self.shift)
        shifted = 0.0 if shift is None else shift.astype(np.float64) @ self.coef
        exponent = exponent_of(self.shift)
        coef = self.coef if exponent is None else in_units(self.coef.T, -exponent).T
        return np.vstack([coef, self.intercept + shifted]).astype(dtype)

    def apply(self, chunk: Chunk, method: str, dtype: np.dtype[np.floating]) -> Array:
        """Return what `method` predicts for the rows of a chunk, block by block.

        Rows with missing values, those that are left out and those with a NaN or an infinity in
        X, get NaN, or `missing_label`.

        Raises
        ------
        DataError
            At the first row with a missing value, if it is to get a label and there is none; and
            at a value of X that is too large for `dtype`.
        """
        link = _LINKS[method]
        out = np.empty(self.shape(len(chunk.X), method), self.dtype(method, dtype))
        with np.errstate(over="ignore", invalid="ignore"):
            for rows, _, raw in raw_blocks(
                chunk.X, self.point(dtype)[None], self.shift, packing=chunk.packing
            ):
                out[rows] = link(raw[0], self.classes)
                # A value that is not finite makes raw predictions so: only then is it searched for.
                if chunk.left_out is not None or not np.isfinite(raw).all():
                    self._correct(chunk.rows(rows.start, rows.stop), raw[0], method, out[rows])
        return out

    def _correct(self, block: Chunk, raw: Array, method: str, out: Array) -> None:
        """Correct what is predicted for rows with missing values, and where `raw` has overflown."""
        missing = np.zeros(len(block.X), bool) if block.left_out is None else block.left_out > 0
        (overflown,) = np.nonzero(~np.isfinite(raw).all(axis=0) & ~missing)
        if block.X.dtype.kind == "f":
            missing[overflown] = ~np.isfinite(block.X[overflown]).all(axis=1)
            overflown = overflown[~missing[overflown]]
        if missing.any():
            if method != "predict":
                out[missing] = np.nan
            elif self.missing_label is None:
                raise missing_label_error(block, missing, self.classes)
            else:
                out[missing] = self.missing_label
        if len(overflown):
            rows = block.take(overflown)
            rows.require_finite(raw.dtype)
            wide = rows.decoded(np.dtype(np.float64))
            afar = raw_from_afar(wide, self._finite_point(raw.dtype), self.shift)
            out[overflown] = _LINKS[method](afar, self.classes)

    def _finite_point(self, dtype: np.dtype[Any]) -> Array:
        """Return the kernel's point; raise DataError if it is not finite."""
        point = self.point(dtype)
        if not np.isfinite(point).all():
            raise DataError(
                f"the model is not finite: its coefficients are up to {np.abs(self.coef).max():g}, "
                f"and it is computed in {dtype}. Scale the features, and fit it again"
            )
        return point

    def shape(self, n_rows: int, method: str) -> tuple[int, ...]:
        """Return the shape of a prediction for so many rows."""
        narrow = method == "predict" or (method == "decision_function" and len(self.classes) == 2)
        return (n_rows,) if narrow else (n_rows, len(self.classes))

    def dtype(self, method: str, computed: npt.DTypeLike) -> np.dtype[Any]:
        """Return the dtype of a prediction that is computed in the given one.

        Raises
        ------
        DataError
            If no dtype holds the classes and `missing_label` as they are.
        """
        if method == "predict":
            return label_dtype(self.classes, self.missing_label)
        return np.dtype(computed)


def _labels(raw: Array, classes: Array) -> Array:
    codes = (raw[0] > 0).astype(np.intp) if len(raw) == 1 else raw.argmax(axis=0)
    return np.asarray(classes[codes])


def _decision(raw: Array, _: Array) -> Array:
    return raw[0] if len(raw) == 1 else raw.T


_LINKS: dict[str, Callable[[Array, Array], Array]] = {
    "predict": _labels,
    "decision_function": _decision,
    "predict_proba": lambda raw, _: probabilities(raw).T,
    "predict_log_proba": lambda raw, _: log_probabilities(raw).T,
}


def require_features(shape: tuple[int, ...], model: LinearModel, name: str) -> None:
    """Raise DataError unless an array of this shape has the model's number of features."""
    expected = len(model.coef)
    if len(shape) < 2 or shape[-1] != expected:
        got = shape[-1] if len(shape) > 1 else f"shape {shape}"
        raise DataError(
            f"{name} has {got} features, but SoftmaxRegression is expecting {expected} features "
            "as input: pass the columns that it was fitted on"
        )
