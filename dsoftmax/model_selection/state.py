"""Where a search stands, as data: what its checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from dsoftmax.model_selection.moments import FoldMoments
from dsoftmax.objective.importance_sample import ImportanceSample
from dsoftmax.solvers.base import FullBatchState, Status
from dsoftmax.storage.records import storable
from dsoftmax.training.run_state import RunState
from dsoftmax.typing import Array


@storable
@dataclass(frozen=True)
class BeforeBudget:
    """Where models were when the budget had followers leave their leaders early.

    Attributes
    ----------
    led, states, scores : as of SearchCursor
    """

    led: tuple[int, ...]
    states: tuple[FullBatchState, ...]
    scores: Array


@storable
@dataclass(frozen=True)
class SearchState(RunState):
    """Where a search stands.

    Attributes
    ----------
    first : FoldMoments, once they are read
    sample : the rows that are kept in memory
    states : of the solver of each member, then of each leader, and last of the winner on all rows
    scores : (n_members, 3), mean loss and accuracy on the rows that judge each, and accuracy on
        those that it learns from; NaN where not known
    led : the candidates whose leader is ahead of their models
    settling : those that their leader has left near enough to their minima: what is still to be
        known of them is what judges them there
    parting : where the budget ended that, for a larger one to go on from
    scout : the member that is ahead of all candidates, if one is
    n_heads : how many search in the round under way; None before it
    waiting : which members the round under way has not read for yet
    resampled : whether other rows were kept in memory in this round
    chosen : the candidate that has won, once it is fitted to all rows
    done : whether the search is over
    """

    first: FoldMoments | None = None
    sample: ImportanceSample | None = None
    states: tuple[FullBatchState, ...] = ()
    scores: Array = field(default_factory=lambda: np.empty((0, 3)))
    led: tuple[int, ...] = ()
    settling: tuple[int, ...] = ()
    parting: BeforeBudget | None = None
    scout: int | None = None
    n_heads: int | None = None
    waiting: tuple[int, ...] = ()
    resampled: bool = False
    chosen: int | None = None
    done: bool = False

    @property
    def is_worth_keeping(self) -> bool:
        """Whether anything was computed yet."""
        return self.first is not None or self.partial_sum is not None

    @property
    def finished(self) -> bool:
        """Whether it is over."""
        return self.done

    @property
    def running(self) -> tuple[int, ...]:
        """The members that go on."""
        statuses = enumerate(state.status for state in self.states)
        return tuple(index for index, status in statuses if status is Status.RUNNING)

    @property
    def out_of_budget(self) -> bool:
        """Whether it has ended with its budget, so that a larger one would let it go on."""
        return self.is_spent or (self.parting is not None and not self.done)

    @property
    def is_spent(self) -> bool:
        """Whether members had to end with the budget."""
        return any(state.status is Status.BUDGET for state in self.states)

    def reopened(self) -> Self:
        """Return the cursor before the budget was found to be spent."""
        states = self.all_as(Status.BUDGET, Status.RUNNING).states
        opened = replace(
            self, states=states, partial_sum=None, waiting=(), done=False, n_heads=None
        )
        if (before := self.parting) is not None:
            return replace(
                opened,
                states=before.states,
                scores=before.scores,
                led=before.led,
                settling=(),
                chosen=None,
                parting=None,
            )
        tried = states[: len(self.scores)]
        if self.chosen is None or all(state.status is not Status.RUNNING for state in tried):
            return opened
        return replace(opened, states=states[:-1], chosen=None)  # another one may win then

    def spent(self) -> Self:
        """Return the cursor whose members go on no more, since the budget has no room."""
        return replace(self.all_as(Status.RUNNING, Status.BUDGET), waiting=(), n_heads=None)

    def all_as(self, before: Status, after: Status) -> Self:
        """Return the cursor in which all states of one status have another."""
        states = (
            replace(state, status=after) if state.status is before else state
            for state in self.states
        )
        return replace(self, states=tuple(states))

    def with_state(self, index: int, state: FullBatchState) -> Self:
        """Return the cursor with another state of a member."""
        return replace(self, states=(*self.states[:index], state, *self.states[index + 1 :]))
