"""The course of a fit: where it stands, told to the callbacks and kept in its checkpoint."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import dask
from dask.utils import parse_timedelta

from dsoftmax.data.retry import BadChunk
from dsoftmax.data.source import Source
from dsoftmax.errors import CheckpointError, ChunkError, DsoftmaxError
from dsoftmax.events import (
    Callback,
    CheckpointWritten,
    ChunkQuarantined,
    Event,
    FitResumed,
    FitStarted,
    StepEnded,
)
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.cost import PartialSum, TaskResult
from dsoftmax.runtime.environment import numerics, worker_name
from dsoftmax.runtime.spans import Span
from dsoftmax.storage.checkpoint_file import CheckpointFolder
from dsoftmax.storage.lock import FolderLock
from dsoftmax.storage.records import STORABLE, storable
from dsoftmax.training.event_log import from_table, to_table
from dsoftmax.training.fingerprint import RunFingerprint, differences, fingerprint_of
from dsoftmax.training.params import FitParams
from dsoftmax.training.progress import Progress
from dsoftmax.training.run_state import (
    RunState,
)
from dsoftmax.training.validation import ValidationSet
from dsoftmax.typing import Array

C = TypeVar("C", bound=RunState)


class Checkpointer(Generic[C]):
    """The cursor of a run, moved on step by step; as a context, it holds the checkpoint.

    Parameters
    ----------
    start : the cursor at the beginning
    callbacks : who is told
    checkpoint : path or URL of a folder, or None to keep nothing

    Attributes
    ----------
    run_state : Standing
    progress : Ledger
    """

    def __init__(
        self,
        start: C,
        callbacks: Sequence[Callback],
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        self.run_state = start
        self.progress = Progress(callbacks)
        self._place = "" if checkpoint is None else os.fspath(checkpoint)
        self._keeper = (
            None if checkpoint is None else CheckpointStore(self._place, self.progress.emit)
        )
        self._identity: RunFingerprint | None = None
        self._labels, self._scanned = "", False
        self._saved: Checkpoint | None = None
        self._seed = self._max_iter = 0

    def __enter__(self) -> Self:
        if self._keeper is not None:
            self._keeper.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._keeper is not None:
            self._keeper.__exit__(kind, error, trace)

    @property
    def excluded(self) -> tuple[Span, ...]:
        """The rows that are left out."""
        return tuple((bad_chunk.start, bad_chunk.stop) for bad_chunk in self.run_state.quarantined)

    def resume(
        self,
        source: Source,
        params: FitParams,
        executor: Executor,
        validation: ValidationSet | None = None,
        search: Mapping[str, str] | None = None,
    ) -> FitParams:
        """Go on from the checkpoint, if there is one; return the settings with its seed.

        Parameters
        ----------
        source, params, executor, validation : of the run
        search : parameters of a search, as text by name

        Raises
        ------
        CheckpointError
            If it is damaged, or that of another run.
        """
        if self._keeper is not None:
            self._identity = fingerprint_of(source, params, executor, validation, search or {})
            self._saved = self._keeper.read(self._identity, params.max_iter)
        if self._saved is not None:
            run_state: C = self._saved.run_state
            if (left_out := len(run_state.quarantined)) > source.max_bad_chunks:
                raise CheckpointError(
                    f"{self._place} has left out {left_out} chunks that could not be read, and "
                    f"max_bad_chunks is {source.max_bad_chunks}; allow for them, or give another "
                    "folder"
                )
            grown = params.max_iter > self._saved.max_iter
            self.run_state = (
                run_state.reopened() if run_state.out_of_budget and grown else run_state
            )
            self.progress.restore(run_state.tally, self._saved.history)
            params = replace(params, seed=self._saved.seed)
        self._seed, self._max_iter = params.seed, params.max_iter
        self._note(numerics(), worker_name())
        return params

    def labelled(self, digest: str) -> None:
        """Take note of what the scan of the labels has found, for the first time or again.

        Raises
        ------
        CheckpointError
            If it is not what the checkpoint says.
        """
        saved, first = self._saved, not self._scanned
        if self._keeper is not None and saved is not None and saved.labels and first:
            self._keeper.require_labels(saved, digest)
        self._labels, self._scanned = digest, True

    def announce(self, event: FitStarted) -> None:
        """Tell that the fit starts, and where it goes on from."""
        self.progress.emit(event)
        if self._saved is not None:
            tally, finished = self.run_state.tally, self.run_state.finished
            events = tuple(self.progress.events)
            self.progress.emit(
                FitResumed(self._place, tally.passes, tally.steps, tally.seconds, events, finished)
            )
            for bad_chunk in self._saved.run_state.quarantined:
                self.progress.emit(ChunkQuarantined(*bad_chunk))

    def move(self, run_state: C, *, pass_ended: bool = False) -> None:
        """Move on to a cursor between two evaluations."""
        self.run_state = replace(run_state, tally=self.progress.tally, begun=None)
        self._offer(pass_ended=pass_ended)

    def advance(self, task_result: TaskResult, begun: PartialSum) -> None:
        """Move on within a pass over all rows."""
        self.note(task_result)
        self.run_state = replace(self.run_state, begun=begun)
        self._offer(pass_ended=False)

    def note(self, task_result: TaskResult) -> None:
        """Take note of who has computed something."""
        for who, kind in task_result.numerics.items():
            self._note(kind, who)

    def _note(self, kind: str, who: str) -> None:
        known = self.run_state.numerics
        if kind in known:
            return
        self.run_state = replace(self.run_state, numerics={**known, kind: who})
        if known:
            warnings.warn(
                f"{who} computes otherwise than {', '.join(known.values())}: the last bits of this "
                "fit depend on who computes what, and another run may differ in them "
                f"({' | '.join(self.run_state.numerics)})",
                stacklevel=2,
            )

    def quarantine(self, bad_chunks: tuple[BadChunk, ...], source: Source, run_state: C) -> None:
        """Leave chunks out from here on, and move on to the cursor that does.

        Raises
        ------
        ChunkError
            If they are more than the source allows for, with those that are left out already, or
            all that there are.
        """
        total = len(self.run_state.quarantined) + len(bad_chunks)
        if total > source.max_bad_chunks:
            raise ChunkError(
                f"{total} chunks of X cannot be read, and max_bad_chunks is "
                f"{source.max_bad_chunks}; the first: {bad_chunks[0].reason}"
            )
        if total == len(source.chunks) - 1:
            raise ChunkError(f"no rows are left; the first fault: {bad_chunks[0].reason}")
        for bad_chunk in bad_chunks:
            self.progress.emit(ChunkQuarantined(*bad_chunk))
        self._labels = ""  # those of the rows that are left are to be scanned
        self.move(run_state)

    def _offer(self, *, pass_ended: bool) -> None:
        if self._keeper is not None and self._keeper.is_due(pass_ended=pass_ended):
            self.save()

    def save(self) -> None:
        """Write the checkpoint, if there is anything to keep.

        Raises
        ------
        CheckpointError
            If another process has taken it over.
        """
        if self._keeper is not None and self.run_state.is_worth_keeping:
            self._keeper.write(self._to_save)

    def _to_save(self) -> Checkpoint:
        assert self._identity is not None, "a fit resumes before it saves"
        events = to_table(self.progress.events.until(self.run_state.tally.n_events))
        return Checkpoint(
            self._identity, self._labels, self._seed, self._max_iter, self.run_state, events
        )

    def save_if_possible(self) -> None:
        """Write the checkpoint on the way out of a fit that has failed."""
        with suppress(DsoftmaxError):
            self.save()


_INTERVAL = "30 seconds"
_MAX_TIME_FRACTION = 0.01  # of the time that writing checkpoints may take


@storable
@dataclass(frozen=True)
class Checkpoint:
    """What is in a checkpoint.

    Attributes
    ----------
    identity : of the run
    labels : digest of what the scan of its labels found
    seed : what its random numbers come from
    max_iter : its budget
    run_state : where it stands
    events : the steps and passes so far, thinned, as a table
    """

    identity: RunFingerprint
    labels: str
    seed: int
    max_iter: int
    run_state: Any
    events: Array

    @property
    def history(self) -> tuple[StepEnded, ...]:
        """The steps and passes so far."""
        return from_table(self.events)


class CheckpointStore:
    """The checkpoint of a fit, as a context that holds its lease.

    Parameters
    ----------
    place : path or URL of a folder
    emit : told of every checkpoint that was written
    """

    def __init__(self, place: str | os.PathLike[str], emit: Callable[[Event], None]) -> None:
        self._place, self._emit = os.fspath(place), emit
        self._folder = CheckpointFolder(place)
        self._lease = FolderLock(place, on_wait=_tell)
        self._interval = parse_timedelta(dask.config.get("dsoftmax.checkpoint-interval", _INTERVAL))
        self._written = time.perf_counter()
        self._cost = 0.0

    def __enter__(self) -> Self:
        self._lease.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lease.__exit__(kind, error, trace)

    def read(self, identity: RunFingerprint, max_iter: int) -> Checkpoint | None:
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
        saved: Checkpoint | None = self._folder.read(STORABLE)
        if saved is None:
            return None
        found = differences(saved.identity, identity)
        if max_iter < saved.max_iter:
            found.append(f"max_iter was {saved.max_iter}, and is {max_iter}: it may only grow")
        if found:
            raise self._of_another_run(found)
        return saved

    def require_labels(self, saved: Checkpoint, labels: str) -> None:
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
        rarely = since >= self._cost / _MAX_TIME_FRACTION
        return self._interval == 0 or (rarely and (pass_ended or since >= self._interval))

    def write(self, saved: Callable[[], Checkpoint]) -> None:
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
