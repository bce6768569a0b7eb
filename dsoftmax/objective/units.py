"""Units of features whose numbers are at the edge of what a dtype can hold.

The squares of numbers beyond 1e19 or 1e154, or their sums, leave the range of float32 or float64,
and so do coefficients that have to be as small as the features are large. So the kernel and the
solver see such a feature in units of a power of two, which changes no digit. All others are seen as
they are: what is ordinary is computed as if there were no units.

What the kernel does to the rows is an array: None for nothing; (n_features,) for what it subtracts;
or (2, n_features), where what is left is then multiplied by the second row.
"""

from __future__ import annotations

import numpy as np

from dsoftmax.errors import DataError
from dsoftmax.typing import Array

# Exponents of two: between minus and plus these, numbers are ordinary: squares can be added up,
# even where a single row is 1e5 times as large as the others are on average.
_ORDINARY = {np.dtype(np.float32): 40, np.dtype(np.float64): 300}
# Of a unit: the square of its inverse is finite in float64, and itself in the dtype of the kernel.
_LEAST = {np.dtype(np.float32): -126, np.dtype(np.float64): -500}
_LARGEST = {np.dtype(np.float32): 126, np.dtype(np.float64): 1000}
_AFAR = 600  # exponent of two, by which numbers are divided whose products are not finite


def shift_and_factor(shift: Array | None) -> tuple[Array | None, Array | None]:
    """Return what is subtracted from the rows, and by what the difference is multiplied."""
    if shift is None or shift.ndim < 2:
        return shift, None
    return shift[0], shift[1]


def exponent_of(shift: Array | None) -> Array | None:
    """Return the exponents of two (n_features,) of the units that the kernel has, or None."""
    _, factor = shift_and_factor(shift)
    return None if factor is None else 1 - np.frexp(factor)[1]


def with_units(
    shift: Array | None, exponent: Array | None, dtype: np.dtype[np.floating]
) -> Array | None:
    """Return what the kernel does to the rows, for a shift that is in units of these exponents."""
    if exponent is None:
        return shift
    factor = np.ldexp(np.ones(len(exponent), dtype), -exponent)
    shift = np.zeros_like(factor) if shift is None else np.ldexp(shift, exponent)
    return np.stack([shift, factor])


def unusual_exponent(exponent: Array, dtype: np.dtype[np.floating]) -> Array | None:
    """Return the exponents of the units of features of that size, zero for the ordinary ones.

    None if all are ordinary.
    """
    dtype = np.dtype(dtype)
    unusual = np.where(np.abs(exponent) > _ORDINARY[dtype], exponent, 0)
    return np.clip(unusual, _LEAST[dtype], _LARGEST[dtype]) if unusual.any() else None


def require_normal(exponent: Array) -> None:
    """Raise DataError for features of that size if no coefficient is large enough for them."""
    small = np.flatnonzero(exponent < -_LARGEST[np.dtype(np.float64)])
    if len(small):
        raise DataError(
            f"column {small[0]} of X has numbers of about 2**{exponent[small[0]]}, which float64 "
            f"holds with few digits, if at all ({len(small)} such columns); expected 0 or at least "
            "1e-300: multiply them"
        )


def in_units(array: Array, exponent: Array | None) -> Array:
    """Return numbers (..., n_features) in units of two to the power of the exponents."""
    return array if exponent is None else np.asarray(np.ldexp(array, -exponent))


def raw_from_afar(X: Array, point: Array, shift: Array | None) -> Array:
    """Return raw predictions (n_columns, rows) of rows for which they leave the range of a dtype.

    Parameters
    ----------
    X : array of shape (rows, n_features)
        Of finite numbers.
    point : array of shape (n_features + 1, n_columns)
        Of the kernel.
    shift : what the kernel does to the rows

    Returns
    -------
    array of the dtype of `point`
        Those of a row are made smaller together, until a quarter of its range holds them: their
        order is kept, and differences are finite.
    """
    shift, factor = shift_and_factor(shift)
    small = np.ldexp(X.astype(np.float64), -_AFAR)
    if shift is not None:
        small -= np.ldexp(shift.astype(np.float64), -_AFAR)
    if factor is not None:
        small *= factor
    wide = point.astype(np.float64)
    raw = wide[:-1].T @ small.T + np.ldexp(wide[-1:].T, -_AFAR)
    most = np.ldexp(0.25 * float(np.finfo(point.dtype).max), -_AFAR)
    raw *= most / np.maximum(np.abs(raw).max(axis=0), most)
    return np.ldexp(raw, _AFAR).astype(point.dtype)
