"""State of Newton's method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dsoftmax.solvers.base import FullBatchState
from dsoftmax.solvers.fista import FISTAState
from dsoftmax.solvers.lbfgs import LBFGSState, Pair
from dsoftmax.solvers.low_rank import Secant
from dsoftmax.solvers.surrogate import Surrogate
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array


@storable
class Trial(NamedTuple):
    """A point that is to be evaluated on all rows.

    Attributes
    ----------
    point : (n_features + 1, n_columns)
    gain : by how much the model says that it is below the centre (not positive)
    secant : the way from the centre, and the change of the sample's gradient, in the coordinates
        of the search; None for a point that comes from elsewhere
    """

    point: Array
    gain: float
    secant: Secant | None


@storable
@dataclass(frozen=True)
class NewtonState(FullBatchState):
    """State of Newton's method; `point` is the centre of the model.

    Attributes
    ----------
    gradient : (n_features + 1, n_columns), of the smooth part on all rows, at `point`
    damping : of the next model
    surrogate : Model, or None while the sample at `point` is unknown
    root, knows_metric : of the sample's metric, and whether it was asked for
    secants : what all rows told beyond the sample
    pairs : what the search has learned about the sample's curvature
    search : state of the search under way, or None
    evaluations : of the search so far
    use_float64 : whether a search has ended at rounding error, so that others compute in float64
    early : where it was after a quarter of its way
    trials : what to evaluate on all rows next
    rounds : how often that was done
    failed : whether the model has ever promised far too much
    thin : whether the sample has fewer rows than there are coefficients, and can fit anything;
        those of a fold that is left out count too
    ratio : of what the last trial gained to what the model had said
    distance : estimate of how far `value` is above its minimum
    least_norm, n_no_progress : as of L-BFGS
    """

    gradient: Array
    damping: float = 0.0
    surrogate: Surrogate | None = None
    root: Array | None = None
    knows_metric: bool = False
    secants: tuple[Secant, ...] = ()
    pairs: tuple[Pair, ...] = ()
    search: LBFGSState | FISTAState | None = None
    evaluations: int = 0
    use_float64: bool = False
    early: Trial | None = None
    trials: tuple[Trial, ...] = ()
    rounds: int = 0
    failed: bool = False
    thin: bool = False
    ratio: float = 1.0
    distance: float = np.nan
    least_norm: float = np.inf
    n_no_progress: int = 0
