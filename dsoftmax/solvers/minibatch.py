"""What all mini-batch solvers share: the state, the epoch's bookkeeping, the proximal step."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np

from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.penalty import ElasticNet, largest
from dsoftmax.solvers.base import Request, RowSelection, Solver, SolverParams, State, Status
from dsoftmax.solvers.schedules import Cosine, Schedule
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array

_DIVERGED = 10.0  # times the loss of the intercept-only model

Memory = tuple[Array, ...]


@storable
@dataclass(frozen=True)
class MiniBatchState(State):
    """State of a mini-batch solver; `point` and `value` are of the best epoch so far.

    Attributes
    ----------
    current : (n_features + 1, n_columns)
    memory : what the rule of the solver remembers, each of that shape
    learning_rate : NaN while it is being measured
    step, rows : updates made, and rows they were made from
    total, share : sums over this epoch's batches of value * share, and of share
    start_value : objective of the intercept-only model
    n_no_improvement : epochs in a row without enough progress
    """

    current: Array
    memory: Memory
    learning_rate: float
    start_value: float
    step: int = 0
    rows: int = 0
    total: float = 0.0
    share: float = 0.0
    n_no_improvement: int = 0

    @property
    def model(self) -> Array:
        """The model that the steps have led to."""
        return self.current


S = TypeVar("S", bound=MiniBatchState)


@dataclass(frozen=True)
class MiniBatch(Solver[MiniBatchState]):
    """A first-order rule on mini-batches.

    Parameters
    ----------
    penalty : ElasticNet
    learning_rate : positive number
    schedule : factor of the learning rate after so many rows
    clip_norm : scale gradients down to this Euclidean norm, or None
    tol : an epoch has to lower the mean objective by tol * its value; 0 asks for nothing
    n_iter_no_change : how many epochs in a row may fail to
    """

    penalty: ElasticNet
    learning_rate: float
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

    def start(
        self, point: Array, at_intercept_only: Evaluation, intercept_only: Array
    ) -> MiniBatchState:
        """Return the first state."""
        value = float(at_intercept_only.value[0])
        norm = largest(
            self.penalty.min_norm_subgradient(intercept_only, at_intercept_only.gradient[0])
        )
        memory = tuple(np.zeros_like(point) for _ in range(self.slots))
        return MiniBatchState(
            intercept_only, value, norm, Status.RUNNING, point, memory, self.learning_rate, value
        )

    def resume(self, state: S) -> S:
        """Return the state that goes on, with other rows, from where it is."""
        return replace(
            state, status=Status.RUNNING, value=np.inf, total=0.0, share=0.0, n_no_improvement=0
        )

    def ask(self, state: MiniBatchState) -> Request:
        """Return the current point."""
        return Request(state.current[None], RowSelection.BATCH)

    def tell(self, state: MiniBatchState, result: Evaluation) -> MiniBatchState:
        """Make an update, and at the end of an epoch look whether to go on."""
        if not (np.isfinite(result.value).all() and np.isfinite(result.gradient).all()):
            return self.failed(state)
        value = float(result.value[0]) + self.penalty.l1_value(state.current)
        state = self.update(state, result)
        state = replace(
            state,
            rows=state.rows + result.rows,
            total=state.total + value * result.share,
            share=state.share + result.share,
        )
        return self.end_epoch(state) if result.epoch_ended else state

    def update(self, state: MiniBatchState, result: Evaluation) -> MiniBatchState:
        """Return the state after the step that a batch asks for."""
        return self.stepped(state, self.clipped(result.gradient[0]))

    def stepped(self, state: S, gradient: Array) -> S:
        """Return the state after a step against a gradient."""
        rate = state.learning_rate * self.schedule(state.rows)
        memory, step, length = self.move(state, gradient, rate)
        current = self.penalty.prox(state.current - step, length)
        return replace(state, current=current, memory=memory, step=state.step + 1)

    def clipped(self, gradient: Array) -> Array:
        """Return a gradient that is no longer than it may be."""
        norm = float(np.linalg.norm(gradient))
        if self.clip_norm is None or norm <= self.clip_norm:
            return gradient
        return gradient * (self.clip_norm / norm)

    def failed(self, state: MiniBatchState) -> MiniBatchState:
        """Return the state after an evaluation that is not finite."""
        return replace(state, status=Status.DIVERGED)

    def end_epoch(self, state: MiniBatchState) -> MiniBatchState:
        """Return the state after the last batch of an epoch."""
        mean = state.total / state.share
        improved = self.tol == 0 or state.value - mean > self.tol * abs(mean)
        n_no_improvement = 0 if improved else state.n_no_improvement + 1
        state = replace(state, total=0.0, share=0.0, n_no_improvement=n_no_improvement)
        if mean > _DIVERGED * state.start_value:
            return self.failed(state)
        if mean < state.value:
            state = replace(state, point=state.model, value=mean)
        if n_no_improvement >= self.n_iter_no_change:
            learned = state.value < state.start_value or state.gradient_norm == 0
            return replace(state, status=Status.STALLED if learned else Status.STUCK)
        return state


def tol_for(schedule: Schedule, params: SolverParams) -> float:
    """Return tol; 0, which never stops early, for a cosine schedule, which ends with the budget."""
    return 0.0 if isinstance(schedule, Cosine) else params.tol
