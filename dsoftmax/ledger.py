"""What a fit has spent and seen so far, told to the callbacks as events."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dsoftmax.events import Callback, Event, PassEnded, RowsDone, StepEnded, TimeSplit
from dsoftmax.reduction import Array
from dsoftmax.runtime.reduce import Spent
from dsoftmax.runtime.worker import Work
from dsoftmax.solvers.base import Evaluation, largest


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
    _spent: list[Spent] = field(default_factory=list)
    _seen: list[Array] = field(default_factory=list)
    _rows_done: int = 0

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
        self._spent.append(spent)

    def see(self, loss: float, result: Evaluation) -> None:
        """Take note of the penalised objective that an evaluation found."""
        self._seen.append(
            np.array([loss, largest(result.gradient[0]), result.accuracy[0], result.share])
        )

    def end_step(self) -> None:
        """Tell of one mini-batch step."""
        loss, norm, accuracy, _ = self._seen[-1]
        done = self.passes + sum(seen[3] for seen in self._seen)
        spent = self._spent[-1]
        self.emit(
            StepEnded(
                float(done), self.steps, float(loss), float(norm), float(accuracy), self.seconds,
                spent.work.rows, spent.work.bytes, _split([spent]),
            )
        )  # fmt: skip

    def end_pass(self) -> None:
        """Tell of a pass: means over its steps, sums of what they cost."""
        self.passes += 1
        seen = np.array(self._seen)
        loss, norm, accuracy, _ = np.average(seen, axis=0, weights=seen[:, 3])
        work = sum((spent.work for spent in self._spent), Work())
        seconds = sum(spent.seconds for spent in self._spent)
        self.emit(
            PassEnded(
                float(self.passes), self.steps, float(loss), float(norm), float(accuracy),
                self.seconds, work.rows, work.bytes, _split(self._spent), seconds,
            )
        )  # fmt: skip
        self._spent, self._seen, self._rows_done = [], [], 0


def _split(spent: Sequence[Spent]) -> TimeSplit:
    return TimeSplit(
        read=sum(s.work.read_seconds for s in spent),
        kernel=sum(s.work.kernel_seconds for s in spent),
        waiting=sum(s.waiting_seconds for s in spent),
    )
