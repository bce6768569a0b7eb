"""The history of a fit, as records."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from dsoftmax.events import ChunkQuarantined, DecimatedLog, Event, FitResumed, PassEnded, StepEnded

Record = dict[str, Any]


class History:
    """Collects a dict for every pass, and for the steps: see `dsoftmax.events` when many.

    Keys: kind ("step" or "pass"), pass, step, loss, gradient_norm, accuracy, seconds (since
    the fit started), rows, bytes, read_seconds, decode_seconds, kernel_seconds,
    waiting_seconds, retries. A pass also has pass_seconds; from "newton" gap, an estimate of how
    far the loss is above its minimum; and, where there are validation rows, validation_loss,
    validation_accuracy, validation_balanced_accuracy, validation_f1_macro, validation_brier_score
    and validation_ece, see `dsoftmax.metrics.scores.EvaluationResult`. A chunk that is left out
    from there on has the kind "quarantined", and start, stop (rows) and reason.
    """

    def __init__(self) -> None:
        self._kept: DecimatedLog[Record] = DecimatedLog()

    @property
    def records(self) -> list[Record]:
        """The records so far."""
        return list(self._kept)

    def on_event(self, event: Event) -> None:
        """Keep the steps and passes, those before the fit was resumed too."""
        if isinstance(event, StepEnded):
            self._kept.add(*_with_step(event))
        elif isinstance(event, FitResumed):
            self._kept = DecimatedLog()
            earlier = [_with_step(before) for before in event.events]
            self._kept.resume(earlier, len(earlier))
        elif isinstance(event, ChunkQuarantined):
            self._kept.add({"kind": "quarantined", **asdict(event)})


def _with_step(event: StepEnded) -> tuple[Record, int | None]:
    return as_record(event), None if isinstance(event, PassEnded) else event.step


def as_record(event: StepEnded) -> Record:
    """Return an event as a flat dict of numbers and strings."""
    record = {
        "kind": "pass" if isinstance(event, PassEnded) else "step",
        "pass": event.passes,
        "step": event.step,
        "loss": event.loss,
        "gradient_norm": event.gradient_norm,
        "accuracy": event.accuracy,
        "seconds": event.seconds,
        "rows": event.rows,
        "bytes": event.bytes,
        "read_seconds": event.time.read,
        "decode_seconds": event.time.decode,
        "kernel_seconds": event.time.kernel,
        "waiting_seconds": event.time.waiting,
        "retries": event.retries,
    }
    if isinstance(event, PassEnded):
        record["pass_seconds"] = event.pass_seconds
        if event.gap is not None:
            record["gap"] = event.gap
        if event.validation is not None:
            scores = asdict(event.validation)
            known = {name: score for name, score in scores.items() if not np.isnan(score)}
            record |= {f"validation_{name}": score for name, score in known.items()}
    return record
