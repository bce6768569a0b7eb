"""The course of a fit: where it stands, told to the callbacks and kept in its checkpoint."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Generic, Self, TypeVar

from dsoftmax.cursor import Standing
from dsoftmax.errors import CheckpointError, ChunkError, DsoftmaxError
from dsoftmax.events import Callback, ChunkQuarantined, FitResumed, FitStarted, to_table
from dsoftmax.identity import Identity, identify
from dsoftmax.keeper import Keeper, Saved
from dsoftmax.ledger import Ledger
from dsoftmax.runtime.executors import Executor
from dsoftmax.runtime.numerics import numerics, worker_name
from dsoftmax.runtime.reduce import Begun
from dsoftmax.runtime.spans import Span
from dsoftmax.runtime.worker import Outcome
from dsoftmax.settings import Settings
from dsoftmax.sources.base import Source
from dsoftmax.sources.faults import Fault
from dsoftmax.validation import Apart

C = TypeVar("C", bound=Standing)


class Course(Generic[C]):
    """The cursor of a run, moved on step by step; as a context, it holds the checkpoint.

    Parameters
    ----------
    start : the cursor at the beginning
    callbacks : who is told
    checkpoint : path or URL of a folder, or None to keep nothing

    Attributes
    ----------
    cursor : Standing
    ledger : Ledger
    """

    def __init__(
        self, start: C, callbacks: Sequence[Callback],
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:  # fmt: skip
        self.cursor = start
        self.ledger = Ledger(callbacks)
        self._place = "" if checkpoint is None else os.fspath(checkpoint)
        self._keeper = None if checkpoint is None else Keeper(self._place, self.ledger.emit)
        self._identity: Identity | None = None
        self._labels, self._scanned = "", False
        self._saved: Saved | None = None
        self._seed = self._max_iter = 0

    def __enter__(self) -> Self:
        if self._keeper is not None:
            self._keeper.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._keeper is not None:
            self._keeper.__exit__(kind, error, trace)

    @property
    def holes(self) -> tuple[Span, ...]:
        """The rows that are left out."""
        return tuple((fault.start, fault.stop) for fault in self.cursor.quarantined)

    def resume(
        self, source: Source, settings: Settings, executor: Executor, apart: Apart | None = None,
        search: Mapping[str, str] | None = None,
    ) -> Settings:  # fmt: skip
        """Go on from the checkpoint, if there is one; return the settings with its seed.

        Parameters
        ----------
        source, settings, executor, apart : of the run
        search : parameters of a search, as text by name

        Raises
        ------
        CheckpointError
            If it is damaged, or that of another run.
        """
        if self._keeper is not None:
            self._identity = identify(source, settings, executor, apart, search or {})
            self._saved = self._keeper.read(self._identity, settings.max_iter)
        if self._saved is not None:
            cursor: C = self._saved.cursor
            if (left_out := len(cursor.quarantined)) > source.most_bad:
                raise CheckpointError(
                    f"{self._place} has left out {left_out} chunks that could not be read, and "
                    f"max_bad_chunks is {source.most_bad}; allow for them, or give another folder"
                )
            grown = settings.max_iter > self._saved.max_iter
            self.cursor = cursor.reopened() if cursor.out_of_budget and grown else cursor
            self.ledger.restore(cursor.tally, self._saved.history)
            settings = replace(settings, seed=self._saved.seed)
        self._seed, self._max_iter = settings.seed, settings.max_iter
        self._note(numerics(), worker_name())
        return settings

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
        self.ledger.emit(event)
        if self._saved is not None:
            tally, finished = self.cursor.tally, self.cursor.finished
            events = tuple(self.ledger.events)
            self.ledger.emit(
                FitResumed(self._place, tally.passes, tally.steps, tally.seconds, events, finished)
            )
            for fault in self._saved.cursor.quarantined:
                self.ledger.emit(ChunkQuarantined(*fault))

    def move(self, cursor: C, *, pass_ended: bool = False) -> None:
        """Move on to a cursor between two evaluations."""
        self.cursor = replace(cursor, tally=self.ledger.tally, begun=None)
        self._offer(pass_ended=pass_ended)

    def advance(self, outcome: Outcome, begun: Begun) -> None:
        """Move on within a pass over all rows."""
        self.note(outcome)
        self.cursor = replace(self.cursor, begun=begun)
        self._offer(pass_ended=False)

    def note(self, outcome: Outcome) -> None:
        """Take note of who has computed something."""
        for who, kind in outcome.numerics.items():
            self._note(kind, who)

    def _note(self, kind: str, who: str) -> None:
        known = self.cursor.numerics
        if kind in known:
            return
        self.cursor = replace(self.cursor, numerics={**known, kind: who})
        if known:
            warnings.warn(
                f"{who} computes otherwise than {', '.join(known.values())}: the last bits of this "
                "fit depend on who computes what, and another run may differ in them "
                f"({' | '.join(self.cursor.numerics)})",
                stacklevel=2,
            )

    def quarantine(self, faults: tuple[Fault, ...], source: Source, cursor: C) -> None:
        """Leave chunks out from here on, and move on to the cursor that does.

        Raises
        ------
        ChunkError
            If they are more than the source allows for, with those that are left out already, or
            all that there are.
        """
        total = len(self.cursor.quarantined) + len(faults)
        if total > source.most_bad:
            raise ChunkError(
                f"{total} chunks of X cannot be read, and max_bad_chunks is {source.most_bad}; the "
                f"first: {faults[0].reason}"
            )
        if total == len(source.chunks) - 1:
            raise ChunkError(f"no rows are left; the first fault: {faults[0].reason}")
        for fault in faults:
            self.ledger.emit(ChunkQuarantined(*fault))
        self._labels = ""  # those of the rows that are left are to be scanned
        self.move(cursor)

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
        if self._keeper is not None and self.cursor.is_worth_keeping:
            self._keeper.write(self._to_save)

    def _to_save(self) -> Saved:
        assert self._identity is not None, "a fit resumes before it saves"
        events = to_table(self.ledger.events.until(self.cursor.tally.n_events))
        return Saved(self._identity, self._labels, self._seed, self._max_iter, self.cursor, events)

    def save_if_possible(self) -> None:
        """Write the checkpoint on the way out of a fit that has failed."""
        with suppress(DsoftmaxError):
            self.save()
