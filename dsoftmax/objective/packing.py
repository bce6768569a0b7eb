"""Packed data, as the CF conventions call stored numbers that stand for others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dsoftmax.typing import Array

_MODEST = 2.0**60  # magnitudes within it and its inverse, whose squares float32 can hold


class StoredUnits(NamedTuple):
    """Points of a kernel for rows as they are stored.

    Attributes
    ----------
    points : (n_models, n_features + 1, n_columns)
    shift : (n_features,) or (), what to subtract from the stored rows, or None
    scale : factor by which what is left is to be multiplied
    rest : (n_features,) or (), what is then to be added: what rounding `shift` has left over
    """

    points: Array
    shift: Array | None
    scale: float
    rest: Array

    def gradient(self, gradient: Array, intercept: Array) -> Array:
        """Return the gradient (width, n_features) of points of unpacked rows.

        It is taken from that of the stored rows, and from that of the intercepts (width,).
        """
        return np.asarray(gradient * self.scale + intercept[:, None] * self.rest)


@dataclass(frozen=True)
class Packing:
    """Says what stored numbers stand for: stored * scale_factor + add_offset.

    Source: NetCDF Climate and Forecast (CF) Metadata Conventions, section 8.1, "Packed data".
    """

    scale_factor: float = 1.0
    add_offset: float = 0.0

    @property
    def is_modest(self) -> bool:
        """Whether float32 holds what small stored integers stand for."""
        sizes = [size for size in (abs(self.scale_factor), abs(self.add_offset)) if size > 0]
        return all(1 / _MODEST < size < _MODEST for size in sizes)

    def unpack(self, stored: Array, shift: Array | None, out: Array) -> Array:
        """Write what stored numbers stand for into `out`, less `shift` (n_features,) if given.

        The arithmetic is in the wider of the two dtypes.
        """
        offset = self.add_offset if shift is None else self.add_offset - shift.astype(np.float64)
        if np.can_cast(stored.dtype, out.dtype):
            np.multiply(stored, out.dtype.type(self.scale_factor), out=out)
            np.add(out, np.asarray(offset, out.dtype), out=out)
        else:
            scaled = stored * np.float64(self.scale_factor)
            np.add(scaled, offset, out=out, casting="same_kind")
        return out

    def in_stored_units(
        self, points: Array, shift: Array | None, stored: np.dtype[np.generic]
    ) -> StoredUnits:
        """Return points that predict from stored rows what others do from unpacked ones.

        So rows need not be unpacked: the scale costs nothing, and the offset what a shift costs.

        Parameters
        ----------
        points : array of shape (n_models, n_features + 1, n_columns)
            For unpacked rows less `shift`.
        shift : array of shape (n_features,), or None
        stored : dtype of the stored rows
        """
        wide = np.zeros(()) if shift is None else shift.astype(np.float64)
        subtracted, rest = None, np.zeros(())
        if shift is not None or self.add_offset != 0:
            kind = points.dtype if np.can_cast(stored, points.dtype) else np.dtype(np.float64)
            # A scalar is subtracted in half the time of a row.
            subtracted = np.asarray((wide - self.add_offset) / self.scale_factor, kind)
            rest = self.scale_factor * subtracted.astype(np.float64) + self.add_offset - wide
        coef = points[:, :-1].astype(np.float64)
        intercept = points[:, -1:] + np.sum(
            coef * np.atleast_1d(rest)[:, None], axis=1, keepdims=True
        )
        inner = np.concatenate([coef * self.scale_factor, intercept], axis=1)
        return StoredUnits(inner.astype(points.dtype), subtracted, self.scale_factor, rest)
