"""Where a fit stands, as data: what a checkpoint holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from dsoftmax.ending import Final
from dsoftmax.ledger import Tally
from dsoftmax.passes import Place
from dsoftmax.reduction import Array
from dsoftmax.runtime.reduce import Begun
from dsoftmax.scaling import Moments
from dsoftmax.solvers.base import State, Status
from dsoftmax.solvers.minibatch import MiniBatchState
from dsoftmax.sources.faults import Fault
from dsoftmax.subsample import Subsample
from dsoftmax.validation import Best


@dataclass(frozen=True)
class FirstRead:
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


@dataclass(frozen=True)
class Standing(ABC):
    """Where a run stands: with data and settings, all that it needs to go on.

    Attributes
    ----------
    tally : what it took so far
    begun : the sum over all rows that is under way
    quarantined : chunks that are left out
    numerics : the kinds of arithmetic met, each with the first worker that had it
    """

    tally: Tally = field(default_factory=Tally)
    begun: Begun | None = None
    quarantined: tuple[Fault, ...] = ()
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


@dataclass(frozen=True)
class Cursor(Standing):
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

    place: Place = field(default_factory=Place)
    first: FirstRead | None = None
    sample: Subsample | None = None
    start: tuple[Array, Array] | None = None
    state: State | None = None
    last_epoch: tuple[State, Place] | None = None
    final: Final | None = None
    best: Best | None = None

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
        self, state: State, place: Place, sample: Subsample | None, best: Best | None,
        *, epoch_ended: bool,
    ) -> Cursor:  # fmt: skip
        """Return the cursor at a state of the solver."""
        last = (state, place) if epoch_ended else self.last_epoch
        return replace(self, state=state, place=place, sample=sample, last_epoch=last, best=best)

    def without(self, faults: tuple[Fault, ...]) -> Cursor:
        """Return where to go on from when chunks are left out from here on.

        Mini-batches under way go back to the end of the last pass.
        """
        cursor = replace(self, quarantined=tuple(sorted((*self.quarantined, *faults))), begun=None)
        if not (self.is_under_way and isinstance(self.state, MiniBatchState)):
            return cursor
        if self.last_epoch is None:
            return replace(cursor, state=None, place=Place(separated=self.place.separated))
        state, place = self.last_epoch
        # The best value so far was that of another objective.
        return replace(cursor, state=replace(state, value=np.inf), place=place)

    def restarted(self, start: tuple[Array, Array] | None) -> Cursor:
        """Return where to go on from with a new first read, and a solver that remembers nothing."""
        return replace(self, first=None, sample=None, state=None, start=start)

    @property
    def is_under_way(self) -> bool:
        """Whether the solver has started, and not ended."""
        return self.state is not None and self.state.status is Status.RUNNING
