"""Learning-rate schedules: the factor of the learning rate after so many rows.

They count rows, not steps, so that one schedule means the same at any batch size, and
for `partial_fit` on parts of any length.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from dsoftmax.errors import DataError
from dsoftmax.solvers.base import SolverParams
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


def schedule_of(params: SolverParams, auto: Schedule | None = None) -> Schedule:
    """Return the schedule that was asked for.

    Parameters
    ----------
    params : SolverParams
    auto : what "auto" is with a budget and without a learning rate; by default a cosine

    Raises
    ------
    DataError
        If a cosine is asked for, and the budget has no end.
    """
    name, total = params.schedule, params.total_rows
    if name is None and params.learning_rate is not None:
        name = "constant"  # a learning rate that was given stays as it is
    elif name is None:
        if auto is not None and total is not None:
            return auto
        name = "inverse" if total is None else "cosine"
    if name == "cosine" and total is None:
        raise DataError("schedule='cosine' needs to know the end, which partial_fit does not")
    if name == "inverse":
        return Inverse(params.horizon)
    return constant if name == "constant" or total is None else Cosine(total)
