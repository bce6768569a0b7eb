"""What a run has spent and found so far, reported to the callbacks as events."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from dsoftmax.events import (
    Callback,
    ChunkQuarantined,
    Event,
    FitEnded,
    PassEnded,
    RowsDone,
    StepEnded,
    TimeSplit,
    ValidationScores,
)
from dsoftmax.runtime.cost import Cost
from dsoftmax.training.event_log import DecimatedLog
from dsoftmax.training.run_state import FittedModel, ProgressState


class Progress:
    """Counts passes and steps, and averages what the steps of a pass found.

    Attributes
    ----------
    passes, steps, retries : so far
    history : the steps (decimated when many), passes and quarantined chunks so far
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = callbacks
        self.restore(ProgressState(), ())

    def restore(self, state: ProgressState, events: Sequence[StepEnded]) -> None:
        """Go on from what was counted before."""
        self.passes, self.steps, self.retries = state.passes, state.steps, state.retries
        self.history: DecimatedLog[StepEnded | ChunkQuarantined] = DecimatedLog()
        self.history.resume([(event, _step(event)) for event in events], state.n_events)
        self._cost, self._sums = state.cost, state.sums
        self._started = time.perf_counter() - state.seconds

    @property
    def state(self) -> ProgressState:
        """What was counted, as data."""
        return ProgressState(
            self.passes,
            self.steps,
            self.seconds,
            self.retries,
            self.history.count,
            self._cost,
            self._sums,
        )

    @property
    def seconds(self) -> float:
        """Seconds since the fit started, without those for which it was stopped."""
        return time.perf_counter() - self._started

    def emit(self, event: Event) -> None:
        """Pass an event to every callback."""
        if isinstance(event, StepEnded | ChunkQuarantined):
            self.history.add(event, _step(event))
        for callback in self._callbacks:
            callback.on_event(event)

    def report_rows(self, cost: Cost, n_rows: int) -> None:
        """Report how far the pass under way is."""
        self.emit(RowsDone(cost.rows, n_rows, cost.bytes, cost.seconds, cost.time, cost.retries))

    def spend(self, cost: Cost) -> None:
        """Add what a reduction cost to the pass under way."""
        self._cost += cost
        self.retries += cost.retries

    def record(
        self, loss: float, gradient_norm: float, accuracy: float, fraction: float = 1.0
    ) -> None:
        """Add an evaluation to the pass under way.

        Parameters
        ----------
        loss, gradient_norm, accuracy : what it found
        fraction : of the rows that it read
        """
        with np.errstate(invalid="ignore"):  # a loss that is not finite is for the solver to judge
            self._sums = self._sums + fraction * np.array([loss, gradient_norm, accuracy, 1.0])

    def report_step(self, loss: float, gradient_norm: float, accuracy: float, cost: Cost) -> None:
        """Report the evaluation of a mini-batch, recorded before."""
        passes = self.passes + float(self._sums[3])
        self.emit(StepEnded(passes, self.steps, loss, gradient_norm, accuracy, *self._took(cost)))

    def end_pass(
        self, validation: ValidationScores | None = None, gap: float | None = None
    ) -> PassEnded:
        """Count a pass, and return its event: means over its steps, sums of costs."""
        self.passes += 1
        loss, norm, accuracy = (float(mean) for mean in self._sums[:3] / self._sums[3])
        cost = self._cost
        event = PassEnded(
            float(self.passes),
            self.steps,
            loss,
            norm,
            accuracy,
            *self._took(cost),
            cost.seconds,
            validation,
            gap,
        )
        self.start_over()
        return event

    def end_first(self) -> None:
        """Count a pass that evaluated no model."""
        self.passes += 1
        self.steps += 1
        self.start_over()

    def start_over(self) -> None:
        """Forget a pass that is not counted: it is made again, or mends what was lost."""
        self._cost, self._sums = Cost(), np.zeros(4)

    def end(self, model: FittedModel) -> None:
        """Report that the fit is over."""
        passes = [event.time for event in self.history if isinstance(event, PassEnded)]
        steps = [event for event in self.history if type(event) is StepEnded]
        self.emit(
            FitEnded(
                model.status.value,
                model.status.converged,
                model.loss,
                max(1, self.passes),
                self.steps,
                self.seconds,
                self.retries,
                sum(passes, start=self._cost.time),
                bool(steps),
                model.gap,
                model.best_pass,
            )
        )

    def _took(self, cost: Cost) -> tuple[float, int, int, TimeSplit, int]:
        return self.seconds, cost.rows, cost.bytes, cost.time, cost.retries


def _step(event: StepEnded | ChunkQuarantined) -> int | None:
    """Return the number of a step, by which the history is decimated; None for what is kept."""
    return event.step if type(event) is StepEnded else None
