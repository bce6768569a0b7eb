"""Learning-rate schedules: the factor of the learning rate after so many rows.

They count rows, not steps, so that one schedule means the same at any batch size, and
for `partial_fit` on parts of any length.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from dsoftmax.storage.records import storable

Schedule = Callable[[int], float]


@storable
@dataclass(frozen=True)
class Constant:
    """The same always."""

    factor: float = 1.0

    def __call__(self, rows_seen: int) -> float:
        """Return the factor."""
        return self.factor


constant = Constant()


@storable
@dataclass(frozen=True)
class Inverse:
    """1 / (1 + rows / horizon): half at the horizon, small enough in sum to converge.

    Robbins and Monro, A stochastic approximation method, 1951.
    """

    horizon: int

    def __call__(self, rows_seen: int) -> float:
        """Return the factor."""
        return 1.0 / (1.0 + rows_seen / self.horizon)


@storable
@dataclass(frozen=True)
class Settling:
    """As `Inverse` for two horizons, then 1: from there on, the noise is taken out of gradients."""

    horizon: int

    def __call__(self, rows_seen: int) -> float:
        """Return the factor."""
        return Inverse(self.horizon)(rows_seen) if rows_seen < 2 * self.horizon else 1.0


@storable
@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 to 0 over `total` rows (Loshchilov and Hutter, SGDR, 2017)."""

    total: int

    def __call__(self, rows_seen: int) -> float:
        """Return the factor."""
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, rows_seen / self.total)))
