"""A long course of events in little memory: every pass, and a fair choice of the steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

Record = TypeVar("Record")

MOST_STEPS = 4096


class Thinned(Generic[Record]):
    """Records in their order, of which those of steps are thinned when they become many.

    Each time there are more than `most`, those of every other step go, and so do those to come:
    what is left are the steps whose number is a multiple of a power of two.

    Parameters
    ----------
    most : how many records of steps are kept

    Attributes
    ----------
    count : how many records there were
    """

    def __init__(self, most: int = MOST_STEPS) -> None:
        self.count = 0
        self._most, self._stride, self._steps = most, 1, 0
        self._kept: list[tuple[int, int | None, Record]] = []

    def __iter__(self) -> Iterator[Record]:
        return (record for _, _, record in self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, record: Record, step: int | None = None) -> None:
        """Add a record, and the number of its step if it is one."""
        self.count += 1
        if step is not None:
            if step % self._stride:
                return
            self._steps += 1
        self._kept.append((self.count, step, record))
        if self._steps > self._most:
            self._stride *= 2
            self._kept = [kept for kept in self._kept if not (kept[1] or 0) % self._stride]
            self._steps = sum(step is not None for _, step, _ in self._kept)

    def until(self, count: int) -> Sequence[Record]:
        """Return what is kept of the first records."""
        return [record for number, _, record in self._kept if number <= count]

    def resume(self, records: Sequence[tuple[Record, int | None]], count: int) -> None:
        """Go on from what another one has kept of its records, and how many there were."""
        for record, step in records:
            self.add(record, step)
        self.count = count
        self._kept = [(min(number, count), step, record) for number, step, record in self._kept]
        steps = [step for _, step, _ in self._kept if step is not None]
        if 2 * len(steps) >= self._most:  # else none was left out
            while not any(step % (2 * self._stride) for step in steps):
                self._stride *= 2
