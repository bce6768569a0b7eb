"""Accelerated proximal gradient: FISTA with backtracking and restart, on all rows.

Beck and Teboulle, A fast iterative shrinkage-thresholding algorithm, 2009; restarts by the
gradient test of O'Donoghue and Candès, Adaptive restart for accelerated gradient schemes, 2015;
backtracking by gradients, where values differ too little to tell, after Becker, Candès and Grant,
Templates for convex cone problems with applications to sparse signal recovery, 2011, section 5.3.
Each request holds two points, the candidate and the extrapolation from it, so that one read
serves both the backtracking test and the next step, and a restart costs no read of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.penalty import ElasticNet, largest
from dsoftmax.solvers.base import FullBatchState, Request, Solver, SolverParams, Status
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array

_GROWTH = 1.2
_LEAST_STEP = 1e-12
_MOST_IDLE = 30
_TELLING = 32  # times the rounding error of a value: what differences have to be to be believed
_SLACK = 1e-6  # of the test by gradients, which is an equality if all curvatures are alike


@storable
@dataclass(frozen=True)
class FISTAState(FullBatchState):
    """State of FISTA.

    Attributes
    ----------
    smooth_value, gradient : smooth part of the objective at `point`, and its gradient
    base, base_smooth, base_gradient : the same where the step is taken from
    candidate, ahead : (n_features + 1, n_columns), the points of the next request
    step : step length
    inertia : t of the extrapolation
    least_norm : the smallest norm so far
    n_no_progress : evaluations in a row that lowered neither the value, beyond rounding, nor that
        norm
    """

    smooth_value: float
    gradient: Array
    base: Array
    base_smooth: float
    base_gradient: Array
    candidate: Array
    ahead: Array
    step: float
    inertia: float = 1.0
    least_norm: float = np.inf
    n_no_progress: int = 0


@dataclass(frozen=True)
class FISTA(Solver[FISTAState]):
    """Accelerated proximal gradient descent.

    Parameters
    ----------
    penalty : ElasticNet
    tol : stop at largest projected gradient entry <= tol * its value at the intercept-only model
    noise : relative rounding error of a value of the objective
    step : first step length to try
    """

    penalty: ElasticNet
    tol: float
    noise: float
    step: float = 1.0

    name: ClassVar[str] = "fista"

    @classmethod
    def from_params(cls, params: SolverParams) -> FISTA:
        """Return the solver for the parameters of a fit."""
        return cls(params.penalty, params.tol, params.noise)

    def start(
        self, point: Array, at_intercept_only: Evaluation, intercept_only: Array
    ) -> FISTAState:
        """Return the first state; the intercept-only point needs no evaluation."""
        smooth_value, gradient = float(at_intercept_only.value[0]), at_intercept_only.gradient[0]
        value = smooth_value + self.penalty.l1_value(intercept_only)
        norm = largest(self.penalty.min_norm_subgradient(intercept_only, gradient))
        status = Status.CONVERGED if norm == 0 else Status.RUNNING
        state = FISTAState(
            intercept_only,
            value,
            norm,
            status,
            self.tol * norm,
            smooth_value,
            gradient,
            intercept_only,
            smooth_value,
            gradient,
            intercept_only,
            intercept_only,
            self.step,
        )
        if np.array_equal(point, intercept_only):
            return self._propose(state)
        return replace(
            state,
            point=point,
            value=np.inf,
            gradient_norm=np.inf,
            base_smooth=np.inf,
            base=point,
            candidate=point,
            ahead=point,
        )

    def moved(self, state: FISTAState, point: Array, known: Evaluation) -> FISTAState:
        """Return the state at a point whose objective is known."""
        smooth_value, gradient = float(known.value[0]), known.gradient[0]
        after = replace(
            state,
            point=point,
            value=smooth_value + self.penalty.l1_value(point),
            gradient_norm=largest(self.penalty.min_norm_subgradient(point, gradient)),
            smooth_value=smooth_value,
            gradient=gradient,
            base=point,
            base_smooth=smooth_value,
            base_gradient=gradient,
            inertia=1.0,
        )
        return self._propose(after)

    def ask(self, state: FISTAState) -> Request:
        """Return the candidate and the point extrapolated from it."""
        return Request(np.stack([state.candidate, state.ahead]))

    def tell(self, state: FISTAState, result: Evaluation) -> FISTAState:
        """Accept the candidate, go back to the best point, or shorten the step."""
        smooth_value = float(result.value[0])
        if not self._is_below_the_model(state, smooth_value, result.gradient[0]):
            return self._shorten(state)
        value = smooth_value + self.penalty.l1_value(state.candidate)
        if value > state.value + self.noise * abs(state.value):
            return self._go_back(state)
        state = self._accept(state, result, value)
        if state.gradient_norm <= state.target:
            return replace(state, status=Status.CONVERGED)
        if state.n_no_progress >= _MOST_IDLE:
            return replace(state, status=state.at_rest(self.noise))
        return self._propose(replace(state, step=state.step * _GROWTH))

    def _is_below_the_model(self, state: FISTAState, smooth_value: float, gradient: Array) -> bool:
        """Whether the quadratic model of the step length bounds the value at the candidate."""
        if not np.isfinite(smooth_value) or not np.isfinite(state.base_smooth):
            return bool(np.isfinite(smooth_value))
        move = state.candidate - state.base
        bend = float(np.vdot(move, move)) / (2 * state.step)
        rise = smooth_value - state.base_smooth - float(np.vdot(state.base_gradient, move))
        if max(abs(rise), bend) > _TELLING * self.noise * abs(state.base_smooth):
            return rise <= bend
        return float(np.vdot(gradient - state.base_gradient, move)) <= 2 * bend * (1 + _SLACK)

    def _shorten(self, state: FISTAState) -> FISTAState:
        if state.step < _LEAST_STEP:
            return replace(state, status=state.at_rest(self.noise))
        return self._propose(replace(state, step=state.step / 2))

    def _go_back(self, state: FISTAState) -> FISTAState:
        """Restart from the best point, whose gradient is known; from there, with a shorter step."""
        if state.n_no_progress >= _MOST_IDLE:
            return replace(state, status=state.at_rest(self.noise))
        again = np.array_equal(state.base, state.point)
        return self._propose(
            replace(
                state,
                base=state.point,
                base_smooth=state.smooth_value,
                base_gradient=state.gradient,
                step=state.step / 2 if again else state.step,
                inertia=1.0,
                n_no_progress=state.n_no_progress + 1,
            )
        )

    def _accept(self, state: FISTAState, result: Evaluation, value: float) -> FISTAState:
        candidate, gradient = state.candidate, result.gradient[0]
        norm = largest(self.penalty.min_norm_subgradient(candidate, gradient))
        progress = state.value - value > self.noise * abs(value) or norm < state.least_norm
        overshot = np.vdot(state.base - candidate, candidate - state.point) > 0
        chosen = 0 if overshot else 1
        return replace(
            state,
            point=candidate,
            value=value,
            gradient_norm=norm,
            smooth_value=float(result.value[0]),
            gradient=gradient,
            base=(candidate, state.ahead)[chosen],
            base_smooth=float(result.value[chosen]),
            base_gradient=result.gradient[chosen],
            inertia=1.0 if overshot else _next(state.inertia),
            least_norm=min(norm, state.least_norm),
            n_no_progress=0 if progress else state.n_no_progress + 1,
        )

    def _propose(self, state: FISTAState) -> FISTAState:
        """Choose the candidate of a proximal step, and the extrapolation from it."""
        candidate = self.penalty.prox(state.base - state.step * state.base_gradient, state.step)
        weight = (state.inertia - 1) / _next(state.inertia)
        ahead = candidate + weight * (candidate - state.point)
        return replace(state, candidate=candidate, ahead=ahead)


def _next(inertia: float) -> float:
    return 0.5 * (1 + float(np.sqrt(1 + 4 * inertia**2)))
