"""Packed data, as the CF conventions call stored numbers that stand for others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsoftmax.typing import Array

_MODEST = 2.0**60  # magnitudes within it and its inverse, whose squares float32 can hold


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
