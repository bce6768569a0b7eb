"""Holds the state of a run, and writes it to a checkpoint folder at the ends of passes."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from types import TracebackType
from typing import Generic, Self, TypeVar

import dask
from dask.utils import parse_timedelta

from dsoftmax.data.retry import BadChunk, told_as_outages
from dsoftmax.data.source import Source
from dsoftmax.errors import ChunkError, DsoftmaxError
from dsoftmax.events import (
    Callback,
    CheckpointWritten,
    ChunkQuarantined,
    FitResumed,
    FitStarted,
    StepEnded,
)
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.cost import PartialSum, TaskResult
from dsoftmax.runtime.environment import numerics, worker_name
from dsoftmax.storage.checkpoint_file import CheckpointFolder
from dsoftmax.storage.credentials import public_url
from dsoftmax.storage.lock import FolderLock
from dsoftmax.storage.records import STORABLE
from dsoftmax.training.checkpoint import Checkpoint, of_another_run
from dsoftmax.training.event_log import from_table, to_table
from dsoftmax.training.fingerprint import (
    RunFingerprint,
    fingerprint_of,
    lists_the_same,
)
from dsoftmax.training.label_scan import EncodedData, known_labels
from dsoftmax.training.params import FitParams
from dsoftmax.training.progress import Progress
from dsoftmax.training.run_state import RunState
from dsoftmax.training.state_shapes import require_shapes
from dsoftmax.training.validation import ValidationSet
from dsoftmax.typing import Array

R = TypeVar("R", bound=RunState)

_INTERVAL = "30 seconds"
_MAX_TIME_FRACTION = 0.01  # of the run, that writing checkpoints may take


class Checkpointer(Generic[R]):
    """The state of a run, and its checkpoint; as a context, it holds the lock of the folder.

    Parameters
    ----------
    start : the state at the beginning
    callbacks : told of every event
    checkpoint : path or URL of a folder, or None to write nothing

    Attributes
    ----------
    run_state : RunState
    progress : Progress
    """

    def __init__(
        self,
        start: R,
        callbacks: Sequence[Callback],
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        self.run_state = start
        self.progress = Progress(callbacks)
        self._path = "" if checkpoint is None else public_url(checkpoint)
        self._folder = None if checkpoint is None else CheckpointFolder(checkpoint)
        self._lock = None if checkpoint is None else FolderLock(checkpoint, on_wait=_warn)
        self._loaded: Checkpoint | None = None
        self._fingerprint: RunFingerprint | None = None
        self._labels, self._labels_known = "", False
        self._classes: Array | None = None
        self._is_over = self._is_written = False
        self._seed = self._max_iter = 0
        self._interval = parse_timedelta(dask.config.get("dsoftmax.checkpoint-interval", _INTERVAL))
        self._written_at = time.perf_counter()
        self._write_seconds = 0.0

    def __enter__(self) -> Self:
        with told_as_outages(f"{self._path}: the checkpoint cannot be reached"):
            (self._lock or nullcontext()).__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        (self._lock or nullcontext()).__exit__(kind, error, trace)

    def resume(
        self,
        source: Source,
        params: FitParams,
        executor: Executor,
        validation: ValidationSet | None = None,
        search: Mapping[str, str] | None = None,
    ) -> FitParams:
        """Go on from the checkpoint, if there is one; return the parameters with its seed.

        Parameters
        ----------
        source, params, executor, validation : of the run
        search : parameters of a search, as text by name

        Raises
        ------
        CheckpointError
            If it is damaged, or that of another run.
        OutageError
            If its storage does not answer.
        """
        known: RunFingerprint | None = None
        if self._folder is not None:
            with told_as_outages(f"{self._path}: the checkpoint cannot be reached"):
                self._loaded = self._folder.read(STORABLE)
            if self._loaded is not None and self._loaded.is_over(params.max_iter):
                self._is_over, known = True, self._loaded.fingerprint
                known = known if lists_the_same(known, source, validation) else None
            self._fingerprint = fingerprint_of(
                source, params, executor, validation, search or {}, known
            )
        if self._loaded is not None:
            assert self._fingerprint is not None, "there is a folder"
            self._fingerprint = self._loaded.without_drawn_seed(self._fingerprint)
            self._loaded.require_same_run(self._path, self._fingerprint, source, params)
            self._is_written = True
            self._classes = None if known is None else self._loaded.classes
            loaded: R = self._loaded.run_state
            more_budget = params.max_iter > self._loaded.max_iter
            self.run_state = loaded.reopened() if loaded.out_of_budget and more_budget else loaded
            self.progress.restore(loaded.progress, from_table(self._loaded.events))
            params = replace(params, seed=self._loaded.seed)
        self._seed, self._max_iter = params.seed, params.max_iter
        if not self._is_over:  # else nothing is computed here
            self._add_numerics(numerics(), worker_name())
        return params

    def labels(self, source: Source) -> EncodedData | None:
        """Return what there is to know of the labels of a run that is over, without a scan.

        None if its data may have changed, or it goes on.
        """
        loaded, classes = self._loaded, self._classes
        if loaded is None or classes is None or not self._is_over:
            return None
        return known_labels(source, classes, loaded.labels)

    def set_labels(self, digest: str, n_features: int, classes: Array) -> None:
        """Keep what the label scan found, and the digest of it, the first time or again.

        Raises
        ------
        CheckpointError
            If the first is not the one in the checkpoint, or its state is of another shape.
        """
        loaded = self._loaded
        if loaded is not None and not self._labels_known:
            if loaded.labels not in ("", digest):
                raise of_another_run(self._path, ["other labels or weights than there were"])
            require_shapes(self._path, loaded.run_state, n_features, len(classes))
        self._labels, self._labels_known, self._classes = digest, True, classes

    def announce(self, event: FitStarted) -> None:
        """Report that the fit starts, and where it goes on from."""
        self.progress.emit(event)
        if self._loaded is not None:
            state, finished = self.run_state.progress, self.run_state.finished
            events = tuple(past for past in self.progress.history if isinstance(past, StepEnded))
            self.progress.emit(
                FitResumed(self._path, state.passes, state.steps, state.seconds, events, finished)
            )
            for bad_chunk in self._loaded.run_state.quarantined:
                self.progress.emit(ChunkQuarantined(*bad_chunk))

    def commit(self, run_state: R, *, pass_ended: bool = False) -> None:
        """Set the state after an evaluation, and write it if a checkpoint is due."""
        self.run_state = replace(
            run_state,
            progress=self.progress.state,
            partial_sum=None,
            numerics=self.run_state.numerics,  # those met during the evaluation, too
        )
        self._save_if_due(pass_ended=pass_ended)

    def on_task_done(
        self, task_result: TaskResult, partial_sum: PartialSum | None, is_last: bool
    ) -> None:
        """Note which machine computed a task, and set the sum that is under way.

        Parameters
        ----------
        task_result : TaskResult
        partial_sum : of a pass over all rows; None for mini-batches
        is_last : whether the pass has no more tasks: its end is committed in a moment
        """
        for worker, kind in task_result.numerics.items():
            self._add_numerics(kind, worker)
        if partial_sum is not None:
            self.run_state = replace(self.run_state, partial_sum=partial_sum)
            if not is_last:
                self._save_if_due(pass_ended=False)

    def _add_numerics(self, kind: str, worker: str) -> None:
        known = self.run_state.numerics
        if kind in known:
            return
        self.run_state = replace(self.run_state, numerics={**known, kind: worker})
        if known:
            warnings.warn(
                f"{worker} computes otherwise than {', '.join(known.values())}: the last bits of "
                "this fit depend on who computes what, and another run may differ in them "
                f"({' | '.join(self.run_state.numerics)})",
                stacklevel=2,
            )

    def quarantine(self, bad_chunks: tuple[BadChunk, ...], source: Source, run_state: R) -> None:
        """Leave chunks out from here on, and commit the state without them.

        Raises
        ------
        ChunkError
            If the source allows for fewer, with those that are left out already, or they are all
            that there are.
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
        self._labels = ""  # the labels of the rows that are left are scanned next
        self.commit(run_state)

    def _save_if_due(self, *, pass_ended: bool) -> None:
        """Write at the end of a pass, or every so many seconds, but never often."""
        if self._folder is None:
            return
        since = time.perf_counter() - self._written_at
        seldom = since >= self._write_seconds / _MAX_TIME_FRACTION
        if self._interval == 0 or (seldom and (pass_ended or since >= self._interval)):
            self.save()

    def save(self) -> None:
        """Write the checkpoint, if there is anything to keep; where that fails, warn loudly.

        Raises
        ------
        CheckpointError
            If another process has taken over the folder.
        """
        if self._folder is None or self._lock is None or not self.run_state.is_worth_keeping:
            return
        if self._is_over:
            return
        self._lock.require()
        started, size = time.perf_counter(), 0
        try:
            size = self._folder.write(self._checkpoint())
            self._is_written = True
        except OSError as error:
            before = "the checkpoint before this one is still" if self._is_written else "none is"
            warnings.warn(
                f"CHECKPOINT NOT WRITTEN to {self._path}: {error}; the fit goes on, and "
                f"{before} there",
                stacklevel=2,
            )
        self._written_at = time.perf_counter()
        self._write_seconds = self._written_at - started
        if size:
            self.progress.emit(CheckpointWritten(self._path, size, self._write_seconds))

    def _checkpoint(self) -> Checkpoint:
        assert self._fingerprint is not None, "a run resumes before it saves"
        history = self.progress.history.until(self.run_state.progress.n_events)
        events = to_table([event for event in history if isinstance(event, StepEnded)])
        return Checkpoint(
            self._fingerprint,
            self._labels,
            self._seed,
            self._max_iter,
            self.run_state,
            events,
            self._classes,
        )

    def save_if_possible(self, error: BaseException) -> None:
        """Write the checkpoint on the way out of a run that failed."""
        if isinstance(error, ChunkError) and self._fingerprint is not None:
            # Whoever restores the chunk writes to the store, and may go on from here.
            self._fingerprint = replace(self._fingerprint, stored={})
        with suppress(DsoftmaxError):
            self.save()


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=2)
