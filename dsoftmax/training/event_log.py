"""The steps and passes of a fit: kept in bounded memory, and written as a table of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from typing import Generic, TypeVar

import numpy as np

from dsoftmax.errors import CheckpointError
from dsoftmax.events import PassEnded, StepEnded, TimeSplit, ValidationScores
from dsoftmax.typing import Array

MOST_STEPS = 4096
_N_COLUMNS = 21  # 13 of a step, and 8 more of a pass, which are NaN in the row of a step

_COUNTS = [1, 6, 7, 12]  # columns of integers: step, rows, bytes and retries

Record = TypeVar("Record")


class DecimatedLog(Generic[Record]):
    """A list of records that drops records of steps when they become many.

    When there are more than `max_steps` of them, every other one is dropped, and so are those to
    come: the steps that remain are those whose number is a multiple of a power of two. Records
    that belong to no step are never dropped.

    Parameters
    ----------
    max_steps : how many records of steps are kept

    Attributes
    ----------
    count : how many records were added
    """

    def __init__(self, max_steps: int = MOST_STEPS) -> None:
        self.count = 0
        self._max_steps, self._stride, self._n_steps = max_steps, 1, 0
        self._entries: list[tuple[int, int | None, Record]] = []  # number, step, record

    def __iter__(self) -> Iterator[Record]:
        return (record for _, _, record in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, record: Record, step: int | None = None) -> None:
        """Add a record; `step` is the number of its step, None if it belongs to none."""
        self.count += 1
        if step is not None:
            if step % self._stride:
                return
            self._n_steps += 1
        self._entries.append((self.count, step, record))
        if self._n_steps > self._max_steps:
            self._stride *= 2
            self._entries = [entry for entry in self._entries if not (entry[1] or 0) % self._stride]
            self._n_steps = sum(step is not None for _, step, _ in self._entries)

    def until(self, count: int) -> Sequence[Record]:
        """Return what remains of the first `count` records."""
        return [record for number, _, record in self._entries if number <= count]

    def resume(self, records: Sequence[tuple[Record, int | None]], count: int) -> None:
        """Add the records, with their steps, that remained of `count` in an earlier log."""
        for record, step in records:
            self.add(record, step)
        self.count = count
        self._entries = [
            (min(number, count), step, record) for number, step, record in self._entries
        ]
        # The earlier log may have dropped more than the steps that are here tell. A log that
        # dropped any is at least half full, and then its stride divides all of its steps.
        steps = [step for _, step, _ in self._entries if step is not None]
        if 2 * len(steps) >= self._max_steps:
            while not any(step % (2 * self._stride) for step in steps):
                self._stride *= 2


def to_table(events: Sequence[StepEnded]) -> Array:
    """Return steps and passes as numbers, a row each."""
    table = np.full((len(events), _N_COLUMNS), np.nan)
    for row, event in zip(table, events, strict=True):
        row[:13] = (
            event.passes,
            event.step,
            event.loss,
            event.gradient_norm,
            event.accuracy,
            event.seconds,
            event.rows,
            event.bytes,
            *astuple(event.time),
            event.retries,
        )
        if isinstance(event, PassEnded):
            row[13] = event.pass_seconds
            row[14] = np.nan if event.gap is None else event.gap
            if event.validation is not None:
                row[15:] = astuple(event.validation)
    return table


def from_table(table: Array) -> tuple[StepEnded, ...]:
    """Return the steps and passes of `to_table`; a CheckpointError if it made no such table."""
    if table.ndim != 2 or table.shape[1] != _N_COLUMNS or table.dtype.kind != "f":
        raise CheckpointError(
            f"the checkpoint has a table of events of shape {table.shape} and dtype {table.dtype}; "
            f"expected {_N_COLUMNS} columns of floats: remove it, or give another folder"
        )
    if not np.isfinite(table[:, _COUNTS]).all():
        raise CheckpointError("the checkpoint counts steps or rows by no number; remove it")
    return tuple(_event(row) for row in table.tolist())


def _event(row: list[float]) -> StepEnded:
    passes, step, loss, norm, accuracy, seconds, rows, size, *times, retries = row[:13]
    time = TimeSplit(*times)
    values = (passes, int(step), loss, norm, accuracy, seconds, int(rows), int(size), time)
    pass_seconds, gap, *scores = row[13:]
    if np.isnan(pass_seconds):
        return StepEnded(*values, int(retries))
    validation = None if np.isnan(scores).all() else ValidationScores(*scores)
    gap_or_none = None if np.isnan(gap) else gap
    return PassEnded(*values, int(retries), pass_seconds, validation, gap_or_none)
