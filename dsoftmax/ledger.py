"""What a fit has spent and seen so far, told to the callbacks as events."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dsoftmax.events import Callback, Event, PassEnded, RowsDone, StepEnded, TimeSplit
from dsoftmax.reduction import Array
from dsoftmax.runtime.reduce import NOTHING, Spent
from dsoftmax.runtime.worker import Work
from dsoftmax.solvers.base import Evaluation


@dataclass
class Ledger:
    """Counts passes and steps, and averages what the steps of a pass saw.

    Attributes
    ----------
    callbacks : who is told
    n_rows : rows of a pass
    passes, steps : so far
    """

    callbacks: Sequence[Callback]
    n_rows: int
    passes: int = 0
    steps: int = 0
    _started: float = field(default_factory=time.perf_counter)
    _rows_done: int = 0
    _spent: Spent = NOTHING
    _last_spent: Spent = NOTHING
    _seen: Array = field(default_factory=lambda: np.zeros(4))
    _last_seen: Array = field(default_factory=lambda: np.zeros(4))

    @property
    def seconds(self) -> float:
        """Seconds since the fit started."""
        return time.perf_counter() - self._started

    def emit(self, event: Event) -> None:
        """Tell every callback."""
        for callback in self.callbacks:
            callback.on_event(event)

    def on_work(self, work: Work) -> None:
        """Tell how far the pass under way is."""
        self._rows_done += work.rows
        self.emit(RowsDone(self._rows_done, self.n_rows))

    def spend(self, spent: Spent) -> None:
        """Count what a reduction cost towards the pass under way."""
        self._last_spent = spent
        self._spent += spent

    def see(self, loss: float, gradient_norm: float, result: Evaluation) -> None:
        """Take note of the objective that an evaluation found at its first point."""
        self._last_seen = np.array([loss, gradient_norm, result.accuracy[0], 1.0])
        with np.errstate(invalid="ignore"):  # a loss that is not finite is for the solver to judge
            self._seen = self._seen + result.share * self._last_seen

    def end_step(self) -> None:
        """Tell of one mini-batch step."""
        self.emit(
            StepEnded(
                self.passes + float(self._seen[3]), *self._entry(self._last_seen, self._last_spent)
            )
        )

    def end_pass(self) -> None:
        """Tell of a pass: means over its steps, sums of what they cost."""
        self.passes += 1
        means, spent = self._seen / self._seen[3], self._spent
        self.emit(PassEnded(float(self.passes), *self._entry(means, spent), spent.seconds))
        self._spent, self._seen, self._rows_done = NOTHING, np.zeros(4), 0

    def _entry(self, seen: Array, spent: Spent) -> _Entry:
        loss, norm, accuracy = (float(value) for value in seen[:3])
        work = spent.work
        split = TimeSplit(work.read_seconds, work.kernel_seconds, spent.waiting_seconds)
        return self.steps, loss, norm, accuracy, self.seconds, work.rows, work.bytes, split


_Entry = tuple[int, float, float, float, float, int, int, TimeSplit]
