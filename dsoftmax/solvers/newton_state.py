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
    """A point to evaluate on all rows.

    Attributes
    ----------
    point : (n_features + 1, n_columns)
    gain : predicted change of the objective from the centre (not positive)
    secant : the displacement from the centre, and the change of the sample's gradient, in the
        coordinates of the search; None for a point that no search found
    """

    point: Array
    gain: float
    secant: Secant | None


@storable
@dataclass(frozen=True)
class NewtonState(FullBatchState):
    """State of Newton's method; `point` is the centre of the surrogate.

    Attributes
    ----------
    gradient : (n_features + 1, n_columns), of the smooth part on all rows, at `point`
    damping : of the next surrogate
    surrogate : Surrogate, or None until the sample is evaluated at `point`
    root, knows_metric : of the sample's metric, and whether it was asked for
    secants : what passes found about the error of the sample's curvature
    pairs : what the searches have learned about the sample's curvature
    search : state of the search in memory, or None
    search_evaluations : of that search so far
    use_float64 : whether searches compute in float64, since one ended at rounding error
    early_point : its point after a quarter of the search, which is the shorter step
    trials : what to evaluate on all rows next
    n_passes : how many passes evaluated trials
    failed : whether a surrogate has ever promised far too much
    underdetermined : whether the sample has fewer rows than there are coefficients
    optimism : what the sample's minimum on all rows is expected to be above that on the sample
    gain_ratio : gain of the last trial over the gain that the surrogate predicted; NaN where the
        surrogates of this objective have not been tried
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
    search_evaluations: int = 0
    use_float64: bool = False
    early_point: Trial | None = None
    trials: tuple[Trial, ...] = ()
    n_passes: int = 0
    failed: bool = False
    underdetermined: bool = False
    optimism: float = 0.0
    gain_ratio: float = 1.0
    distance: float = np.nan
    least_norm: float = np.inf
    n_no_progress: int = 0
