"""L-BFGS: limited-memory quasi-Newton (Liu and Nocedal, Mathematical Programming 45, 1989).

Every trial point of the line search is one request. The two-loop recursion and the line
search work on points flattened to vectors; all of it is in the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.penalty import largest
from dsoftmax.solvers import line_search
from dsoftmax.solvers.base import FullBatchState, Request, Solver, SolverParams, Status
from dsoftmax.solvers.line_search import LineSearch, LineSearchStatus
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array

_MOST_IDLE = 10
_MEMORY_BYTES = 1 << 28  # for the pairs, of which there are 10 to 100


@storable
class Pair(NamedTuple):
    """A difference of points, that of their gradients, and 1 / their inner product."""

    step: Array
    change: Array
    rho: float


@storable
@dataclass(frozen=True)
class LBFGSState(FullBatchState):
    """State of L-BFGS.

    Attributes
    ----------
    gradient : (n_features + 1, n_columns), at `point`
    pairs : the last differences of points and of gradients, oldest first
    direction : (n_features + 1, n_columns), of the search under way
    search : LineSearch, or None before the first evaluation at `point`
    least_norm : the smallest gradient norm so far
    n_no_progress : steps in a row that lowered neither the value, beyond rounding, nor that norm
    """

    gradient: Array
    pairs: tuple[Pair, ...]
    direction: Array
    search: LineSearch | None
    least_norm: float = np.inf
    n_no_progress: int = 0


@dataclass(frozen=True)
class LBFGS(Solver[LBFGSState]):
    """L-BFGS with a strong Wolfe line search; full passes, smooth objectives only.

    Parameters
    ----------
    tol : stop at largest gradient entry <= tol * its value at the intercept-only model
    noise : relative rounding error of a value of the objective
    memory : how many updates are remembered; by default up to 100, in 256 MiB: a pass over
        data larger than memory costs more than what a long memory does
    """

    tol: float
    noise: float
    memory: int | None = None

    name: ClassVar[str] = "lbfgs"
    penalties: ClassVar[Sequence[str]] = ("l2",)

    @classmethod
    def from_params(cls, params: SolverParams) -> LBFGS:
        """Return the solver for the parameters of a fit."""
        return cls(params.tol, params.noise)

    def start(
        self,
        point: Array,
        at_intercept_only: Evaluation,
        intercept_only: Array,
        pairs: tuple[Pair, ...] = (),
    ) -> LBFGSState:
        """Return the first state; the intercept-only point needs no evaluation.

        `pairs` are differences that are known from elsewhere.
        """
        value, gradient = float(at_intercept_only.value[0]), at_intercept_only.gradient[0]
        target = self.tol * largest(gradient)
        state = LBFGSState(
            intercept_only,
            value,
            largest(gradient),
            Status.RUNNING,
            target,
            gradient,
            pairs,
            -gradient,
            None,
        )
        if np.array_equal(point, intercept_only):
            return self._aim(state)
        return replace(state, point=point, value=np.inf)

    def moved(self, state: LBFGSState, point: Array, known: Evaluation) -> LBFGSState:
        """Return the state at a point whose objective is known."""
        return self._aim(_moved(state, point, float(known.value[0]), known.gradient[0]))

    def ask(self, state: LBFGSState) -> Request:
        """Return the trial point of the line search."""
        if state.search is None:
            return Request(state.point[None])
        return Request((state.point + state.search.step * state.direction)[None])

    def tell(self, state: LBFGSState, result: Evaluation) -> LBFGSState:
        """Advance the line search; when it has found its step, choose the next direction."""
        value, gradient = float(result.value[0]), result.gradient[0]
        if state.search is None:
            return self._aim(_moved(state, state.point, value, gradient))
        slope = float(np.vdot(gradient, state.direction))
        search = line_search.advance(state.search, value, slope)
        if search.status is LineSearchStatus.RUNNING:
            return replace(state, search=search)
        if search.status is LineSearchStatus.FAILED:
            return self._forget(state)
        return self._aim(self._remember(state, search, value, gradient))

    def _remember(
        self, state: LBFGSState, search: LineSearch, value: float, gradient: Array
    ) -> LBFGSState:
        step = search.step * state.direction
        change = gradient - state.gradient
        moved = self._count_idle(state, _moved(state, state.point + step, value, gradient))
        product = float(np.vdot(step, change))
        if product <= 1e-10 * float(np.linalg.norm(step) * np.linalg.norm(change)):
            return moved  # no curvature to learn from, but rounding error
        pair = Pair(step.ravel(), change.ravel(), 1.0 / product)
        memory = self.memory or min(max(_MEMORY_BYTES // (16 * step.size), 10), 100)
        return replace(moved, pairs=(*state.pairs, pair)[-memory:])

    def _count_idle(self, before: LBFGSState, after: LBFGSState) -> LBFGSState:
        lowered = before.value - after.value > self.noise * abs(before.value)
        flatter = after.gradient_norm < before.least_norm
        return replace(
            after,
            n_no_progress=0 if lowered or flatter else before.n_no_progress + 1,
            least_norm=min(before.least_norm, after.gradient_norm),
        )

    def _aim(self, state: LBFGSState) -> LBFGSState:
        """Stop at the target, or begin the search along the next direction."""
        if state.gradient_norm <= state.target:
            return replace(state, status=Status.CONVERGED)
        if not (np.isfinite(state.value) and np.isfinite(state.gradient_norm)):
            return replace(state, status=Status.NOT_FINITE)
        if state.n_no_progress >= _MOST_IDLE:
            return replace(state, status=state.at_rest(self.noise))
        direction = -two_loop(state.gradient.ravel(), state.pairs)
        slope = float(direction @ state.gradient.ravel())
        # Of a gradient below 1e-162, the square is zero.
        first = 1.0 if state.pairs else 1.0 / max(1.0, float(np.linalg.norm(direction)))
        search = line_search.begin(state.value, slope, first, self.noise * abs(state.value))
        state = replace(state, direction=direction.reshape(state.point.shape), search=search)
        return state if search.status is LineSearchStatus.RUNNING else self._forget(state)

    def _forget(self, state: LBFGSState) -> LBFGSState:
        """Try the steepest descent once more before saying that rounding error is reached."""
        if not state.pairs:
            return replace(state, status=state.at_rest(self.noise))
        return self._aim(replace(state, pairs=()))


def _moved(state: LBFGSState, point: Array, value: float, gradient: Array) -> LBFGSState:
    return replace(
        state, point=point, value=value, gradient=gradient, gradient_norm=largest(gradient)
    )


def two_loop(gradient: Array, pairs: Sequence[Pair]) -> Array:
    """Return the inverse Hessian estimate times a vector (Nocedal and Wright, algorithm 7.4).

    Parameters
    ----------
    gradient : array of shape (size,)
    pairs : oldest first

    Returns
    -------
    array of shape (size,)
    """
    result = gradient.copy()
    weights = []
    for step, change, rho in reversed(pairs):
        weights.append(rho * float(step @ result))
        result -= weights[-1] * change
    if pairs:
        newest = pairs[-1]
        result /= newest.rho * float(newest.change @ newest.change)
    for (step, change, rho), weight in zip(pairs, reversed(weights), strict=True):
        result += (weight - rho * float(change @ result)) * step
    return result
