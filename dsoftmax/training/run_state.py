"""Where a fit stands, as data: what a checkpoint holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from dsoftmax.data.retry import BadChunk
from dsoftmax.metrics.metrics import MetricSums
from dsoftmax.objective.importance_sample import ImportanceSample
from dsoftmax.objective.scaling import Moments
from dsoftmax.runtime.cost import Cost, PartialSum
from dsoftmax.solvers.base import State, Status
from dsoftmax.solvers.minibatch import MiniBatchState
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array


@storable
@dataclass(frozen=True)
class DataStatistics:
    """What the first read told; with the settings, it determines the objective.

    Attributes
    ----------
    moments : Moments
    whole : whether they are of all rows
    class_weight : (n_classes,), total weight of each class
    n_rows : how many there were
    """

    moments: Moments
    whole: bool
    class_weight: Array
    n_rows: int


@storable
@dataclass(frozen=True)
class ProgressState:
    """What a ledger has counted.

    Attributes
    ----------
    passes, steps, seconds, retries : so far
    n_events : how many steps and passes were told of
    cost : in the pass under way
    seen : (4,), sums over that pass of loss, gradient norm, accuracy and share, by share
    """

    passes: int = 0
    steps: int = 0
    seconds: float = 0.0
    retries: int = 0
    n_events: int = 0
    cost: Cost = field(default_factory=Cost)
    seen: Array = field(default_factory=lambda: np.zeros(4))


@dataclass(frozen=True)
class RunState(ABC):
    """Where a run stands: with data and settings, all that it needs to go on.

    Attributes
    ----------
    tally : what it took so far
    begun : the sum over all rows that is under way
    quarantined : chunks that are left out
    numerics : the kinds of arithmetic met, each with the first worker that had it
    """

    tally: ProgressState = field(default_factory=ProgressState)
    begun: PartialSum | None = None
    quarantined: tuple[BadChunk, ...] = ()
    numerics: dict[str, str] = field(default_factory=dict)

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
        """Whether it has ended with its budget, so that a larger one would let it go on."""

    @abstractmethod
    def reopened(self) -> Self:
        """Return the standing before the budget was found to be spent."""


@storable
@dataclass(frozen=True)
class EpochPosition:
    """Where a fit is within its passes.

    Attributes
    ----------
    epoch, step : of the mini-batch that comes next
    separated : whether some point was seen that fits every row
    judged : what the rows held out have said in the pass under way
    """

    epoch: int = 0
    step: int = 0
    separated: bool = False
    judged: MetricSums | None = None


@storable
@dataclass(frozen=True)
class FitState(RunState):
    """Where a fit stands.

    Attributes
    ----------
    place : where the mini-batches are
    first : FirstRead, once it is done
    sample : the rows that are kept in memory
    start : coefficients and intercepts where the solver starts, if not by its rule
    state : of the solver, once it has started
    last_epoch : state and place at the end of the last pass of mini-batches, to go back to
    final : the model that is returned; None before the end
    best : the model of the lowest validation loss so far
    """

    place: EpochPosition = field(default_factory=EpochPosition)
    first: DataStatistics | None = None
    sample: ImportanceSample | None = None
    start: tuple[Array, Array] | None = None
    state: State | None = None
    last_epoch: tuple[State, EpochPosition] | None = None
    final: FittedModel | None = None
    best: BestModel | None = None

    @property
    def is_worth_keeping(self) -> bool:
        """Whether anything was computed yet."""
        return self.first is not None or self.begun is not None

    @property
    def finished(self) -> bool:
        """Whether the model to return is known."""
        return self.final is not None

    @property
    def out_of_budget(self) -> bool:
        """Whether it has ended with its budget, so that a larger one would let it go on."""
        return self.state is not None and self.state.status is Status.BUDGET

    def reopened(self) -> Self:
        """Return the cursor before the budget was found to be spent."""
        assert self.state is not None
        return replace(
            self, state=replace(self.state, status=Status.RUNNING), begun=None, final=None
        )

    def reached(
        self,
        state: State,
        place: EpochPosition,
        sample: ImportanceSample | None,
        best: BestModel | None,
        *,
        epoch_ended: bool,
    ) -> FitState:
        """Return the cursor at a state of the solver."""
        last = (state, place) if epoch_ended else self.last_epoch
        return replace(self, state=state, place=place, sample=sample, last_epoch=last, best=best)

    def without(self, bad_chunks: tuple[BadChunk, ...]) -> FitState:
        """Return where to go on from when chunks are left out from here on.

        Mini-batches under way go back to the end of the last pass.
        """
        run_state = replace(
            self, quarantined=tuple(sorted((*self.quarantined, *bad_chunks))), begun=None
        )
        if not (self.is_under_way and isinstance(self.state, MiniBatchState)):
            return run_state
        if self.last_epoch is None:
            return replace(
                run_state, state=None, place=EpochPosition(separated=self.place.separated)
            )
        state, place = self.last_epoch
        # The best value so far was that of another objective.
        return replace(run_state, state=replace(state, value=np.inf), place=place)

    def restarted(self, start: tuple[Array, Array] | None) -> FitState:
        """Return where to go on from with a new first read, and a solver that remembers nothing."""
        return replace(self, first=None, sample=None, state=None, start=start)

    @property
    def is_under_way(self) -> bool:
        """Whether the solver has started, and not ended."""
        return self.state is not None and self.state.status is Status.RUNNING


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
    status : why the fit has ended
    best_pass : the pass whose model validation rows called the best, if it is that one
    """

    coef: Array
    intercept: Array
    loss: float
    gap: float | None
    status: Status
    best_pass: int | None


@storable
@dataclass(frozen=True)
class BestModel:
    """The model of the lowest validation loss so far.

    Attributes
    ----------
    coefficients : (n_features, n_columns) and intercepts (n_columns,), in units of the data
    value : its whole objective (mini-batch: the mean over the batches of its epoch)
    loss : its validation loss
    passes : after how many it was reached
    n_no_improvement : passes in a row, until now, without enough progress
    """

    coefficients: tuple[Array, Array]
    value: float
    loss: float
    passes: int
    n_no_improvement: int = 0

    def on_other_rows(self, *, validation: bool) -> BestModel:
        """Return what it is when rows are left out: what is known of it was on all of them.

        Only rows that are apart still say of it what they said.
        """
        return replace(
            self, value=np.nan, loss=self.loss if validation else np.inf, n_no_improvement=0
        )
