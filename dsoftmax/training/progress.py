"""What a fit has spent and seen so far, told to the callbacks as events."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from dsoftmax.events import (
    Callback,
    Event,
    FitEnded,
    PassEnded,
    RowsDone,
    StepEnded,
    TimeSplit,
    ValidationScores,
)
from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.runtime.cost import Cost, PartialSum
from dsoftmax.training.event_log import DecimatedLog
from dsoftmax.training.run_state import ProgressState
from dsoftmax.typing import Array


class Progress:
    """Counts passes and steps, and averages what the steps of a pass saw.

    Attributes
    ----------
    callbacks : who is told
    passes, steps, retries : so far
    events : the steps and passes that were told of, thinned
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = callbacks
        self.restore(ProgressState(), ())

    def restore(self, tally: ProgressState, events: Sequence[StepEnded]) -> None:
        """Go on from what was counted before."""
        self.passes, self.steps, self.retries = tally.passes, tally.steps, tally.retries
        self.events: DecimatedLog[StepEnded] = DecimatedLog()
        self.events.resume([(event, _step(event)) for event in events], tally.n_events)
        self._spent, self._seen = tally.cost, tally.seen
        self._last_spent, self._last_seen = Cost(), np.zeros(4)
        self._started = time.perf_counter() - tally.seconds

    @property
    def tally(self) -> ProgressState:
        """What was counted, as data."""
        return ProgressState(
            self.passes,
            self.steps,
            self.seconds,
            self.retries,
            self.events.count,
            self._spent,
            self._seen,
        )

    @property
    def seconds(self) -> float:
        """Seconds since the fit started, without those for which it was stopped."""
        return time.perf_counter() - self._started

    def emit(self, event: Event) -> None:
        """Tell every callback."""
        if isinstance(event, StepEnded):
            self.events.add(event, _step(event))
        for callback in self.callbacks:
            callback.on_event(event)

    def progress(self, begun: PartialSum, n_rows: int) -> None:
        """Tell how far the pass under way is."""
        cost = begun.cost
        self.emit(RowsDone(cost.rows, n_rows, cost.bytes, cost.seconds, cost.time, cost.retries))

    def spend(self, cost: Cost) -> None:
        """Count what a reduction cost towards the pass under way."""
        self._last_spent = cost
        self._spent += cost
        self.retries += cost.retries

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

    def end_pass(
        self, validation: ValidationScores | None = None, gap: float | None = None
    ) -> PassEnded:
        """Count a pass, and return what to tell of it: means over its steps, sums of costs."""
        self.passes += 1
        means, cost = self._seen / self._seen[3], self._spent
        event = PassEnded(
            float(self.passes), *self._entry(means, cost), cost.seconds, validation, gap
        )
        self._spent, self._seen = Cost(), np.zeros(4)
        return event

    def end_first(self) -> None:
        """Count a pass that told nothing of any model."""
        self.passes += 1
        self.steps += 1
        self.start_over()

    def start_over(self) -> None:
        """Forget a pass that is not counted: it is made again, or mends what was lost."""
        self._spent, self._seen = Cost(), np.zeros(4)

    def end(
        self, reason: str, converged: bool, loss: float, gap: float | None, best_pass: int | None
    ) -> None:
        """Tell that the fit is over."""
        whole = [event.time for event in self.events if isinstance(event, PassEnded)]
        split = sum(whole, start=self._spent.time)
        mini_batch = len(whole) < len(self.events)
        self.emit(
            FitEnded(
                reason,
                converged,
                loss,
                max(1, self.passes),
                self.steps,
                self.seconds,
                self.retries,
                split,
                mini_batch,
                gap,
                best_pass,
            )
        )

    def _entry(self, seen: Array, cost: Cost) -> _Entry:
        loss, norm, accuracy = (float(value) for value in seen[:3])
        took = self.seconds, cost.rows, cost.bytes, cost.time, cost.retries
        return self.steps, loss, norm, accuracy, *took


def _step(event: StepEnded) -> int | None:
    return None if isinstance(event, PassEnded) else event.step


_Entry = tuple[int, float, float, float, float, int, int, TimeSplit, int]
