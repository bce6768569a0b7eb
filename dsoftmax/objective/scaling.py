"""Moments of the features, and the coordinates in which a solver works.

A solver sees features that are centred and divided by a scale, since softmax regression
does not care: theta . x + b = (theta * scale) . ((x - centre) / scale) + (b + theta . centre).
Moments of two sets of rows are combined as in Chan, Golub and LeVeque, Algorithms for
computing the sample variance, 1983.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dsoftmax.objective.kernel import block_length, narrow
from dsoftmax.objective.matmul import by_column, panel_length
from dsoftmax.objective.reduction import Chunk
from dsoftmax.objective.units import exponent_of, in_units, shift_and_factor
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array

_FEW_CLASSES = 32  # up to which a product with indicators adds up rows by class; beyond, a sort
_SQUARED_ROWS = 64  # that float32 adds up without losing digits
_LARGE = 2.0**450
_LOSES_DIGITS = {np.dtype(np.float32): 2.0**-100, np.dtype(np.float64): 2.0**-450}
_STEEP = 8.0  # |mean| / sd from which float32 folding would cost a digit of the gradient


@storable
@dataclass(frozen=True)
class Moments:
    """Weighted moments of rows and classes, in float64.

    Attributes
    ----------
    weight : total weight
    mean : (n_features,)
    m2 : (n_features,), weighted sum of squared deviations from the mean
    class_weight : (n_classes,), total weight a class
    class_offset : (n_classes, n_features), weighted sum of x - mean over the rows of a class
    exponent : (n_features,), of two, of the unit of each feature; None if all are one
    """

    weight: float
    mean: Array
    m2: Array
    class_weight: Array
    class_offset: Array
    exponent: Array | None = None

    def __add__(self, other: Moments) -> Moments:
        exponent = self._common_exponent(other)
        return self.in_units_of(exponent)._plus(other.in_units_of(exponent))

    def _plus(self, other: Moments) -> Moments:
        weight = self.weight + other.weight
        share = other.weight / weight if weight > 0 else 0.0
        delta = other.mean - self.mean
        mean = self.mean + share * delta
        m2 = self.m2 + other.m2 + self.weight * share * delta**2
        return Moments(
            weight,
            mean,
            m2,
            self.class_weight + other.class_weight,
            self._offset_from(mean) + other._offset_from(mean),
            self.exponent,
        )

    def in_units_of(self, exponent: Array | None) -> Moments:
        """Return the same moments in units of two to the power of other exponents."""
        if self.exponent is None and exponent is None:
            return self
        by = (0 if exponent is None else exponent) - self._exponents
        return replace(
            self,
            mean=in_units(self.mean, by),
            m2=in_units(self.m2, 2 * by),
            class_offset=in_units(self.class_offset, by),
            exponent=exponent,
        )

    @property
    def size(self) -> Array:
        """Exponent of two (n_features,) of the root of the mean square, zero where that is zero."""
        size = np.frexp(np.hypot(np.sqrt(self.variance), self.mean))[1]
        return np.asarray(np.where(self._is_zero, 0, size + self._exponents))

    def lost_digits(self, dtype: np.dtype[np.floating]) -> bool:
        """Return whether sums in this dtype left its range, or lost digits at its lower end."""
        if not (np.isfinite(self.mean).all() and np.isfinite(self.m2).all()):
            return True
        if np.abs(self.mean).max(initial=0.0) > _LARGE:  # its square may leave the range later
            return True
        least = _LOSES_DIGITS[np.dtype(dtype)]
        size = np.abs(self.mean) + np.abs(self.class_offset).max(axis=0, initial=0.0)
        return bool(np.any((self.m2 < least**2) & (size < least) & (size > 0)))

    def _common_exponent(self, other: Moments) -> Array | None:
        """Return the exponents of the larger of two units; a feature of zeros has no size."""
        if self.exponent is None and other.exponent is None:
            return None
        larger = np.maximum(self._exponents, other._exponents)
        known = np.where(other._is_zero, self._exponents, larger)
        return np.asarray(np.where(self._is_zero, other._exponents, known))

    @property
    def _exponents(self) -> Array:
        return np.zeros(len(self.mean), int) if self.exponent is None else self.exponent

    @property
    def _is_zero(self) -> Array:
        return np.asarray((self.mean == 0) & (self.m2 == 0))

    def _offset_from(self, mean: Array) -> Array:
        return self.class_offset + np.outer(self.class_weight, self.mean - mean)

    @property
    def variance(self) -> Array:
        """Population variance (n_features,), exactly zero where it is rounding error."""
        if self.weight <= 0:
            return np.zeros_like(self.mean)
        variance = self.m2 / self.weight
        noise = (np.finfo(np.float64).eps * self.mean) ** 2 * 1e4
        return np.where(variance <= noise, 0.0, variance)


def moments(chunk: Chunk, n_classes: int, dtype: np.dtype[np.floating]) -> Moments:
    """Return the moments of a chunk whose `y` holds class codes.

    The rows are read once: deviations are taken from the mean of the first block, and
    corrected to the mean of all at the end.
    """
    n_rows, n_features = chunk.X.shape
    length = min(block_length(n_features, 0, dtype.itemsize), n_rows)
    first_mean = _first_rows(chunk, length).mean(axis=0)
    shift = first_mean if not np.can_cast(chunk.X.dtype, dtype) else first_mean.astype(dtype)
    wide = chunk.X.dtype.itemsize > 2 or chunk.packing is not None
    total, square = np.zeros((n_classes, n_features)), np.zeros(n_features)
    block = np.empty((length, n_features), dtype)
    for start in range(0, n_rows, length):
        rows = slice(start, start + length)
        deviation = narrow(chunk.X[rows], shift, block[: len(chunk.X[rows])], chunk.packing)
        weighted = deviation
        if chunk.sample_weight is not None:
            weighted = deviation * chunk.sample_weight[rows].astype(dtype)[:, None]
        square += _products(weighted, deviation, wide=wide)
        _add_by_class(total, weighted, chunk.codes[rows])
    class_weight = np.bincount(chunk.codes, chunk.sample_weight, n_classes).astype(np.float64)
    return _about_the_mean(shift.astype(np.float64), class_weight, total, square)


def _first_rows(chunk: Chunk, length: int) -> Array:
    """Return the first rows that have a weight, in float64.

    Those of weight zero may be far from the others.
    """
    first = chunk.rows(0, length)
    if chunk.sample_weight is not None and chunk.sample_weight.any():
        first = chunk.take(np.flatnonzero(chunk.sample_weight)[:length])
    return first.decoded(np.dtype(np.float64))


def _products(weighted: Array, deviation: Array, *, wide: bool) -> Array:
    """Return the sum of the products of each feature.

    With `wide`, products are taken in float64, since they may be beyond the range of float32. The
    squares of what is stored in two bytes are not, with weights of one on average.
    """
    if wide:
        return np.asarray(np.einsum("ij,ij->j", weighted, deviation, dtype=np.float64))
    total = np.zeros(deviation.shape[1])
    for start in range(0, len(deviation), _SQUARED_ROWS):
        rows = slice(start, start + _SQUARED_ROWS)
        total += np.einsum("ij,ij->j", weighted[rows], deviation[rows])
    return total


def _add_by_class(total: Array, rows: Array, codes: Array) -> None:
    """Add each row to the total of its class."""
    if len(total) <= _FEW_CLASSES:
        member = np.equal.outer(np.arange(len(total)), codes).astype(rows.dtype)
        panel = panel_length(rows.shape[1], *member.shape)
        out = np.empty((len(rows) // panel, *total.shape), rows.dtype)
        with np.errstate(invalid="ignore"):  # 0 * inf
            total += by_column(member, rows, panel, out)
        return
    order = np.argsort(codes, kind="stable")
    present, first = np.unique(codes[order], return_index=True)
    total[present] += np.add.reduceat(rows.take(order, axis=0), first, axis=0)


def _about_the_mean(shift: Array, class_weight: Array, total: Array, square: Array) -> Moments:
    weight = float(class_weight.sum())
    offset = total.sum(axis=0) / weight if weight > 0 else np.zeros_like(shift)
    m2 = np.maximum(square - weight * offset**2, 0.0)
    return Moments(weight, shift + offset, m2, class_weight, total - np.outer(class_weight, offset))


@storable
@dataclass(frozen=True)
class Coordinates:
    """The change of variables between a solver's point and the coefficients.

    Attributes
    ----------
    centre : (n_features,), zero without an intercept
    scale : (n_features,), positive: a solver's coordinate is coefficient * scale
    shift : (n_features,) or None, what the kernel subtracts from the rows; where it is
        None the centre is folded into the intercept, which costs nothing and is as
        exact for features whose mean is of the order of their standard deviation. Of shape
        (2, n_features) where features have units, see `dsoftmax.objective.units`; those of
        `centre` and `scale` are the same
    """

    centre: Array
    scale: Array
    shift: Array | None

    def to_kernel(self, point: Array) -> Array:
        """Return the kernel's point for a solver's point (n_features + 1, n_columns)."""
        kernel = point.copy()
        kernel[:-1] /= self.scale[:, None]
        kernel[-1] -= self._folded @ kernel[:-1]
        return kernel

    def gradient(self, kernel_gradient: Array) -> Array:
        """Return the solver's gradient for the kernel's, both (n_features + 1, n_columns)."""
        gradient = kernel_gradient.copy()
        gradient[:-1] -= np.outer(self._folded, gradient[-1])
        gradient[:-1] /= self.scale[:, None]
        return gradient

    def gram(self, kernel_gram: Array) -> Array:
        """Return the mean of [x, 1] [x, 1]' in the solver's features for that in the kernel's."""
        mean, centre = kernel_gram[-1, :-1], self._folded
        gram = kernel_gram.copy()
        gram[:-1, :-1] -= np.outer(mean, centre) + np.outer(centre, mean - centre)
        gram[:-1, -1] = gram[-1, :-1] = mean - centre
        gram[:-1] /= self.scale[:, None]
        gram[:, :-1] /= self.scale
        return gram

    def to_coefficients(self, point: Array) -> tuple[Array, Array]:
        """Return coef (n_features, n_columns) and intercept (n_columns,) in units of the data."""
        coef = point[:-1] / self.scale[:, None]
        return in_units(coef.T, self.exponent).T, point[-1] - self.centre @ coef

    def from_coefficients(self, coef: Array, intercept: Array) -> Array:
        """Return the solver's point for coefficients in units of the data."""
        if self.exponent is not None:
            coef = in_units(coef.T, -self.exponent).T
        return np.vstack([coef * self.scale[:, None], intercept + self.centre @ coef])

    @property
    def exponent(self) -> Array | None:
        """Exponents of two (n_features,) of the units; None if there are none."""
        return exponent_of(self.shift)

    def on_rows_of(self, shift: Array | None) -> Coordinates:
        """Return the same coordinates where the kernel does something else to the rows."""
        own, wanted = self.exponent, exponent_of(shift)
        if own is None and wanted is None:
            return replace(self, shift=shift)
        none = np.zeros(len(self.scale), int)
        by = (none if wanted is None else wanted) - (none if own is None else own)
        return Coordinates(in_units(self.centre, by), in_units(self.scale, by), shift)

    @property
    def _folded(self) -> Array:
        shift, _ = shift_and_factor(self.shift)
        return self.centre if shift is None else self.centre - in_units(shift, self.exponent)


def kernel_shift(mean: Array, variance: Array, dtype: np.dtype[np.floating]) -> Array | None:
    """Return what the kernel has to subtract from the rows to keep its digits, or None.

    A row is shifted when some feature has |mean| > 8 sd.
    """
    if not np.any(np.abs(mean) > _STEEP * np.sqrt(variance)):
        return None
    return mean.astype(dtype) if np.isfinite(mean.astype(dtype)).all() else mean
