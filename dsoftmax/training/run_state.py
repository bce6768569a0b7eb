"""Where a run stands, as data: what a checkpoint holds, and all that a run needs to go on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from dsoftmax.data.retry import BadChunk
from dsoftmax.metrics.metrics import MetricSums
from dsoftmax.objective.importance_sample import ImportanceSample
from dsoftmax.objective.kernel import LossSums
from dsoftmax.objective.objective import Objective, build_objective
from dsoftmax.objective.scaling import Moments
from dsoftmax.runtime.cost import Cost, PartialSum
from dsoftmax.runtime.spans import Span
from dsoftmax.solvers.base import State, Status
from dsoftmax.solvers.minibatch import MiniBatchState
from dsoftmax.storage.records import storable
from dsoftmax.training.params import FitParams
from dsoftmax.typing import Array


@storable
@dataclass(frozen=True)
class ProgressState:
    """What `Progress` has counted.

    Attributes
    ----------
    passes, steps, seconds, retries : so far
    n_events : how many steps and passes were reported
    cost : of the pass under way
    sums : (4,), over that pass, weighted by the fraction of the rows that each evaluation read:
        loss, gradient norm, accuracy and 1
    """

    passes: int = 0
    steps: int = 0
    seconds: float = 0.0
    retries: int = 0
    n_events: int = 0
    cost: Cost = field(default_factory=Cost)
    sums: Array = field(default_factory=lambda: np.zeros(4))


@dataclass(frozen=True)
class RunState(ABC):
    """Where a run stands: with the data and the parameters, all that it needs to go on.

    Attributes
    ----------
    progress : what it took so far
    partial_sum : the sum over all rows that is under way, or None
    quarantined : chunks that are left out
    numerics : the kinds of arithmetic met, each with the first worker that had it
    """

    progress: ProgressState = field(default_factory=ProgressState)
    partial_sum: PartialSum | None = None
    quarantined: tuple[BadChunk, ...] = ()
    numerics: dict[str, str] = field(default_factory=dict)

    @property
    def excluded(self) -> tuple[Span, ...]:
        """The rows that are left out."""
        return tuple((bad_chunk.start, bad_chunk.stop) for bad_chunk in self.quarantined)

    @property
    @abstractmethod
    def is_worth_keeping(self) -> bool:
        """Whether anything was computed yet."""

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether there is nothing left to do."""

    @property
    @abstractmethod
    def out_of_budget(self) -> bool:
        """Whether it ended because its budget was spent: a larger one lets it go on."""

    @abstractmethod
    def reopened(self) -> Self:
        """Return the state before the budget was found to be spent."""


@storable
@dataclass(frozen=True)
class DataStatistics:
    """What the first read found; with the parameters, it determines the objective.

    Attributes
    ----------
    moments : Moments
    complete : whether they are of all rows
    class_weight : (n_classes,), total weight of each class
    n_rows : how many rows there were
    at_start : sums at the model of a warm start, if they were read
    """

    moments: Moments
    complete: bool
    class_weight: Array
    n_rows: int
    at_start: LossSums | None = None

    def objective(
        self, params: FitParams, dtype: np.dtype[np.floating], *, mini_batch: bool
    ) -> Objective:
        """Return the objective, in coordinates chosen by the moments."""
        return build_objective(
            self.moments,
            class_weight=self.class_weight,
            n_rows=self.n_rows,
            alpha=params.alpha,
            l1_ratio=params.l1_ratio,
            fit_intercept=params.fit_intercept,
            standardize=params.standardize,
            scaled=params.learning_rate is None or not mini_batch,
            dtype=dtype,
        )


@storable
@dataclass(frozen=True)
class EpochPosition:
    """Where a fit is within its passes.

    Attributes
    ----------
    epoch, step : of the next mini-batch
    separated : whether some evaluated point fits every row
    held_out : metrics on the held-out rows, in the pass under way
    at_start : sums of loss and weight over the first epoch, at the model of a warm start
    """

    epoch: int = 0
    step: int = 0
    separated: bool = False
    held_out: MetricSums | None = None
    at_start: tuple[float, float] = (0.0, 0.0)


@storable
@dataclass(frozen=True)
class FittedModel:
    """The model that a fit returns.

    Attributes
    ----------
    coef : (n_features, n_columns), in units of the data
    intercept : (n_columns,)
    loss : penalised objective there
    gap : estimate of how far that is above its minimum, or None
    status : why the fit ended
    best_pass : the pass whose model had the lowest validation loss, if it is that model
    evaluated : whether `loss` was evaluated on all rows; else it is an estimate
    """

    coef: Array
    intercept: Array
    loss: float
    gap: float | None
    status: Status
    best_pass: int | None
    evaluated: bool = True


@storable
@dataclass(frozen=True)
class BestModel:
    """The model of the lowest validation loss so far.

    Attributes
    ----------
    coefficients : (n_features, n_columns) and intercepts (n_columns,), in units of the data
    value : its objective (mini-batch: the mean over the batches of its epoch)
    loss : its validation loss
    passes : after how many it was reached
    n_no_improvement : passes in a row, until now, without enough progress
    """

    coefficients: tuple[Array, Array]
    value: float
    loss: float
    passes: int
    n_no_improvement: int = 0

    def on_other_rows(self, *, keep_loss: bool) -> BestModel:
        """Return the same model when chunks are left out, since its value was that of all rows.

        Its validation loss is kept only if the validation rows are the same as before.
        """
        loss = self.loss if keep_loss else np.inf
        return replace(self, value=np.nan, loss=loss, n_no_improvement=0)


@storable
@dataclass(frozen=True)
class FitState(RunState):
    """Where a fit stands.

    Attributes
    ----------
    position : where it is within its passes
    statistics : what the first read found, once it is done
    sample : the rows that are kept in memory
    start : coefficients and intercepts where the solver starts, if not by its rule
    solver_state : once the solver has started
    last_epoch : solver state and position at the end of the last epoch, to go back to
    final : the model that is returned; None before the end
    best : the model of the lowest validation loss so far
    """

    position: EpochPosition = field(default_factory=EpochPosition)
    statistics: DataStatistics | None = None
    sample: ImportanceSample | None = None
    start: tuple[Array, Array] | None = None
    solver_state: State | None = None
    last_epoch: tuple[State, EpochPosition] | None = None
    final: FittedModel | None = None
    best: BestModel | None = None

    @property
    def is_worth_keeping(self) -> bool:
        """Whether anything was computed yet."""
        return self.statistics is not None or self.partial_sum is not None

    @property
    def finished(self) -> bool:
        """Whether the model to return is known."""
        return self.final is not None

    @property
    def out_of_budget(self) -> bool:
        """Whether it ended because its budget was spent: a larger one lets it go on."""
        return self.solver_state is not None and self.solver_state.status is Status.BUDGET

    def reopened(self) -> Self:
        """Return the state before the budget was found to be spent."""
        assert self.solver_state is not None
        running = replace(self.solver_state, status=Status.RUNNING)
        return replace(self, solver_state=running, partial_sum=None, final=None)

    def without(self, bad_chunks: tuple[BadChunk, ...]) -> FitState:
        """Return the state to go on from when chunks are left out from here on.

        Mini-batches go back to the end of the last epoch.
        """
        quarantined = tuple(sorted((*self.quarantined, *bad_chunks)))
        after = replace(self, quarantined=quarantined, partial_sum=None)
        if not (self.is_under_way and isinstance(self.solver_state, MiniBatchState)):
            return after
        if self.last_epoch is None:
            position = EpochPosition(separated=self.position.separated)
            return replace(after, solver_state=None, position=position)
        solver_state, position = self.last_epoch
        # The best value so far was that of another objective.
        solver_state = replace(solver_state, value=np.inf)
        return replace(after, solver_state=solver_state, position=position)

    def restarted(self, start: tuple[Array, Array] | None) -> FitState:
        """Return the state before a new first read, with a solver that remembers nothing."""
        return replace(self, statistics=None, sample=None, solver_state=None, start=start)

    @property
    def is_under_way(self) -> bool:
        """Whether the solver has started, and not ended."""
        return self.solver_state is not None and self.solver_state.status is Status.RUNNING
