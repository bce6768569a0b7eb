"""What all mini-batch solvers share: the state, the epoch's bookkeeping, the proximal step.

Without a learning rate, it is taken from the curvature: the largest eigenvalue of the first
batch's Hessian at the intercept-only model, found by power iteration on differences of gradients.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from dsoftmax.penalty import ElasticNet
from dsoftmax.reduction import Array
from dsoftmax.solvers.base import Evaluation, Request, Rows, Solver, State, Status, largest
from dsoftmax.solvers.schedules import Schedule

_PROBES = 8
_PROBE_LENGTH = 0.01
_DIVERGED = 10.0  # times the loss of the intercept-only model

Memory = tuple[Array, ...]


@dataclass(frozen=True)
class MiniBatchState(State):
    """State of a mini-batch solver; `point` and `value` are of the best epoch so far.

    Attributes
    ----------
    current : (n_features + 1, n_columns)
    memory : what the rule of the solver remembers, each of that shape
    learning_rate : NaN while the curvature is being probed
    probe : direction of the power iteration, of that shape
    probes : how many were made
    step, rows : updates made, and rows they were made from
    total, share : sums over this epoch's batches of value * share, and of share
    start_value : objective of the intercept-only model
    stale_epochs : epochs in a row without enough progress
    """

    current: Array
    memory: Memory
    learning_rate: float
    probe: Array
    start_value: float
    probes: int = 0
    step: int = 0
    rows: int = 0
    total: float = 0.0
    share: float = 0.0
    stale_epochs: int = 0


@dataclass(frozen=True)
class MiniBatch(Solver[MiniBatchState]):
    """A first-order rule on mini-batches.

    Parameters
    ----------
    penalty : ElasticNet
    learning_rate : positive number, or None to measure the curvature
    schedule : factor of the learning rate after so many rows
    clip_norm : scale gradients down to this Euclidean norm, or None
    tol : an epoch has to lower the mean objective by tol * its value; 0 asks for nothing
    n_iter_no_change : how many epochs in a row may fail to
    """

    penalty: ElasticNet
    learning_rate: float | None
    schedule: Schedule
    clip_norm: float | None
    tol: float
    n_iter_no_change: int

    mini_batch: ClassVar[bool] = True
    slots: ClassVar[int]

    @abstractmethod
    def move(
        self, state: MiniBatchState, gradient: Array, rate: float
    ) -> tuple[Memory, Array, Array | float]:
        """Return the new memory, the step to subtract, and the step length of the prox.

        The length is that by which a gradient that stayed the same would be multiplied, so
        that a fixed point of step and prox is a minimiser of the whole objective.
        """

    @abstractmethod
    def rate_from(self, curvature: float) -> float:
        """Return the learning rate for the largest eigenvalue of the Hessian."""

    def start(self, point: Array, known: Evaluation, at: Array) -> MiniBatchState:
        """Return the first state."""
        value, gradient = float(known.value[0]), known.gradient[0]
        rate = np.nan if self.learning_rate is None else self.learning_rate
        norm = largest(self.penalty.projected(at, gradient))
        memory = tuple(np.zeros_like(point) for _ in range(self.slots))
        return MiniBatchState(
            at, value, norm, Status.RUNNING, point, memory, rate, _direction(gradient), value
        )

    def resume(self, state: MiniBatchState) -> MiniBatchState:
        """Return the state that goes on, with other rows, from where it is."""
        return replace(
            state, status=Status.RUNNING, value=np.inf, total=0.0, share=0.0, stale_epochs=0
        )

    def ask(self, state: MiniBatchState) -> Request:
        """Return the current point, or two points whose gradients tell the curvature.

        They are near the intercept-only model, which is the best so far: at a model that fits
        well, there is hardly any curvature, and the steps would lead far away from it.
        """
        if np.isnan(state.learning_rate):
            points = np.stack([state.point, state.point + _PROBE_LENGTH * state.probe])
            return Request(points, Rows.SAME_BATCH)
        return Request(state.current[None], Rows.BATCH)

    def tell(self, state: MiniBatchState, result: Evaluation) -> MiniBatchState:
        """Make an update, and at the end of an epoch look whether to go on."""
        if not (np.isfinite(result.value).all() and np.isfinite(result.gradient).all()):
            return replace(state, status=Status.DIVERGED)
        if np.isnan(state.learning_rate):
            return self._probe(state, result)
        value = float(result.value[0]) + self.penalty.absolute(state.current)
        state = self._update(state, result.gradient[0])
        state = replace(
            state,
            rows=state.rows + result.rows,
            total=state.total + value * result.share,
            share=state.share + result.share,
        )
        return self._end_epoch(state) if result.epoch_ended else state

    def _update(self, state: MiniBatchState, gradient: Array) -> MiniBatchState:
        rate = state.learning_rate * self.schedule(state.rows)
        memory, step, length = self.move(state, self._clipped(gradient), rate)
        current = self.penalty.prox(state.current - step, length)
        return replace(state, current=current, memory=memory, step=state.step + 1)

    def _clipped(self, gradient: Array) -> Array:
        norm = float(np.linalg.norm(gradient))
        if self.clip_norm is None or norm <= self.clip_norm:
            return gradient
        return gradient * (self.clip_norm / norm)

    def _end_epoch(self, state: MiniBatchState) -> MiniBatchState:
        mean = state.total / state.share
        improved = self.tol == 0 or state.value - mean > self.tol * abs(mean)
        stale = 0 if improved else state.stale_epochs + 1
        state = replace(state, total=0.0, share=0.0, stale_epochs=stale)
        if mean > _DIVERGED * state.start_value:
            return replace(state, status=Status.DIVERGED)
        if mean < state.value:
            state = replace(state, point=state.current, value=mean)
        if stale >= self.n_iter_no_change:
            learned = state.value < state.start_value or state.gradient_norm == 0
            return replace(state, status=Status.STALLED if learned else Status.STUCK)
        return state

    def _probe(self, state: MiniBatchState, result: Evaluation) -> MiniBatchState:
        change = result.gradient[1] - result.gradient[0]
        curvature = float(np.linalg.norm(change)) / _PROBE_LENGTH
        state = replace(state, probe=_unit(change), probes=state.probes + 1)
        if state.probes < _PROBES and curvature > 0:
            return state
        rate = self.rate_from(curvature if curvature > 0 else 1.0)
        return replace(state, learning_rate=rate)


def _direction(gradient: Array) -> Array:
    """Return where the power iteration starts: any direction will do where there is no gradient."""
    if not np.any(gradient):
        gradient = np.random.default_rng(0).normal(size=gradient.shape)
    return _unit(gradient)


def _unit(direction: Array) -> Array:
    norm = float(np.linalg.norm(direction))
    return direction / norm if norm > 0 else direction
