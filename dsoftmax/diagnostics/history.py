"""The history of a fit, as records."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from dsoftmax.events import ChunkQuarantined, Event, FitResumed, PassEnded, StepEnded


@dataclass
class History:
    """Collects a dict for every step and pass.

    Keys: kind ("step" or "pass"), pass, step, loss, gradient_norm, accuracy, seconds (since
    the fit started), rows, bytes, read_seconds, kernel_seconds, waiting_seconds, retries; a
    pass also has pass_seconds. A chunk that is left out from there on has the kind
    "quarantined", and start, stop (rows) and reason.
    """

    records: list[dict[str, Any]] = field(default_factory=list)

    def on_event(self, event: Event) -> None:
        """Keep the steps and passes, those before the fit was resumed too."""
        if isinstance(event, StepEnded):
            self.records.append(as_record(event))
        elif isinstance(event, FitResumed):
            self.records[:] = [as_record(earlier) for earlier in event.events]
        elif isinstance(event, ChunkQuarantined):
            self.records.append({"kind": "quarantined", **asdict(event)})


def as_record(event: StepEnded) -> dict[str, Any]:
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
        "kernel_seconds": event.time.kernel,
        "waiting_seconds": event.time.waiting,
        "retries": event.retries,
    }
    if isinstance(event, PassEnded):
        record["pass_seconds"] = event.pass_seconds
    return record
