"""Keeps the checkpoint of a fit: when it is written, and whose it is when it is read."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import dask
from dask.utils import parse_timedelta

from dsoftmax.checkpoint import CheckpointFolder
from dsoftmax.cursor import Cursor, FirstRead
from dsoftmax.ending import Final
from dsoftmax.errors import CheckpointError
from dsoftmax.events import CheckpointWritten, Event, StepEnded, from_table
from dsoftmax.identity import Identity, differences
from dsoftmax.judging import FoldSums, Judged
from dsoftmax.lease import Lease
from dsoftmax.ledger import Tally
from dsoftmax.loss import LossSums
from dsoftmax.metrics import MetricSums, Pairs
from dsoftmax.passes import Place
from dsoftmax.reduction import Array, Several
from dsoftmax.runtime.reduce import Begun, Spent
from dsoftmax.runtime.worker import Work
from dsoftmax.scaling import Moments
from dsoftmax.solvers.autosgd import AutoState, Snapshot
from dsoftmax.solvers.base import Status
from dsoftmax.solvers.bend import Bend, Secant
from dsoftmax.solvers.fista import FISTAState
from dsoftmax.solvers.lbfgs import LBFGSState, Pair
from dsoftmax.solvers.line_search import LineSearch, Sample, Search
from dsoftmax.solvers.minibatch import MiniBatchState
from dsoftmax.solvers.model import Model
from dsoftmax.solvers.newton_state import NewtonState, Trial
from dsoftmax.sources.faults import Fault
from dsoftmax.subsample import Subsample
from dsoftmax.tuning.cursor import Parting, SearchCursor
from dsoftmax.tuning.moments import FoldMoments
from dsoftmax.validation import Best

_INTERVAL = "30 seconds"
_SHARE = 0.01  # of the time that writing checkpoints may take


@dataclass(frozen=True)
class Saved:
    """What is in a checkpoint.

    Attributes
    ----------
    identity : of the run
    labels : digest of what the scan of its labels found
    seed : what its random numbers come from
    max_iter : its budget
    cursor : where it stands
    events : the steps and passes so far, thinned, as a table
    """

    identity: Identity
    labels: str
    seed: int
    max_iter: int
    cursor: Any
    events: Array

    @property
    def history(self) -> tuple[StepEnded, ...]:
        """The steps and passes so far."""
        return from_table(self.events)


_KINDS = {
    kind.__name__: kind
    for kind in (
        AutoState, Begun, Bend, Best, Cursor, FISTAState, Fault, Final, FirstRead,
        FoldMoments, FoldSums, Judged, Parting, SearchCursor, Identity,
        LBFGSState, LineSearch, LossSums, MetricSums, MiniBatchState, Model, Moments, NewtonState,
        Pair, Pairs, Place, Sample, Saved, Search, Secant, Several, Snapshot, Spent, Status,
        Subsample, Tally, Trial, Work,
    )
}  # fmt: skip


class Keeper:
    """The checkpoint of a fit, as a context that holds its lease.

    Parameters
    ----------
    place : path or URL of a folder
    emit : told of every checkpoint that was written
    """

    def __init__(self, place: str | os.PathLike[str], emit: Callable[[Event], None]) -> None:
        self._place, self._emit = os.fspath(place), emit
        self._folder = CheckpointFolder(place)
        self._lease = Lease(place, on_wait=_tell)
        self._interval = parse_timedelta(dask.config.get("dsoftmax.checkpoint-interval", _INTERVAL))
        self._written = time.perf_counter()
        self._cost = 0.0

    def __enter__(self) -> Self:
        self._lease.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._lease.__exit__(kind, error, trace)

    def read(self, identity: Identity, max_iter: int) -> Saved | None:
        """Return the checkpoint, if there is one.

        Parameters
        ----------
        identity : of the run that asks
        max_iter : its budget

        Raises
        ------
        CheckpointError
            If it is damaged, or that of another run.
        """
        saved: Saved | None = self._folder.read(_KINDS)
        if saved is None:
            return None
        found = differences(saved.identity, identity)
        if max_iter < saved.max_iter:
            found.append(f"max_iter was {saved.max_iter}, and is {max_iter}: it may only grow")
        if found:
            raise self._of_another_run(found)
        return saved

    def require_labels(self, saved: Saved, labels: str) -> None:
        """Raise CheckpointError if the labels are not those that the checkpoint was made with."""
        if saved.labels != labels:
            raise self._of_another_run(["other labels or weights than there were"])

    def _of_another_run(self, found: Sequence[str]) -> CheckpointError:
        return CheckpointError(
            f"{self._place} is the checkpoint of another run: {'; '.join(found)}. Give each run "
            "(each candidate of a search, too) a folder of its own, or remove this one"
        )

    def is_due(self, *, pass_ended: bool) -> bool:
        """Whether to write: at the end of a pass, or every so many seconds, but rarely enough."""
        since = time.perf_counter() - self._written
        rarely = since >= self._cost / _SHARE
        return self._interval == 0 or (rarely and (pass_ended or since >= self._interval))

    def write(self, saved: Callable[[], Saved]) -> None:
        """Write a checkpoint; where that fails, warn loudly, and leave the last one as it is.

        Parameters
        ----------
        saved : makes what is written, which takes time too

        Raises
        ------
        CheckpointError
            If another process has taken the folder over.
        """
        self._lease.require()
        started = time.perf_counter()
        try:
            size = self._folder.write(saved())
        except OSError as error:
            warnings.warn(
                f"CHECKPOINT NOT WRITTEN to {self._place}: {error}; the fit goes on, and the "
                "checkpoint before this one is still there",
                stacklevel=2,
            )
            size = 0
        self._written = time.perf_counter()
        self._cost = self._written - started
        if size:
            self._emit(CheckpointWritten(self._place, size, self._cost))


def _tell(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=2)
