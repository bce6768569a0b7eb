"""Events as flat dicts of numbers and strings: for a log, another process, or a browser."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from dsoftmax.diagnostics.history import as_record
from dsoftmax.diagnostics.verdict import verdict
from dsoftmax.events import (
    CandidatesJudged,
    CheckpointWritten,
    ChunkQuarantined,
    Event,
    FitEnded,
    FitResumed,
    FitStarted,
    RowsDone,
    StepEnded,
    TimeSplit,
)

Message = dict[str, Any]


def as_message(event: Event) -> Message:
    """Return an event as a dict; "event" says what has happened.

    The other keys are the fields of the event, the time split among them as `read_seconds` and
    so on; those of "step" and "pass" are the keys of `history_`. "ended" also has the `verdict`.
    """
    return next(make(event) for kind, make in _MESSAGES.items() if isinstance(event, kind))


def _of_step(event: StepEnded) -> Message:
    record = as_record(event)
    return {"event": record.pop("kind"), **record}


def _of_rows(event: RowsDone) -> Message:
    return {"event": "rows", **_flat(event, event.time)}


def _of_resumed(event: FitResumed) -> Message:
    fields = {name: value for name, value in vars(event).items() if name != "events"}
    return {"event": "resumed", **fields}


def _of_candidates(event: CandidatesJudged) -> Message:
    fields = {name: value for name, value in asdict(event).items() if name != "best"}
    return {"event": "candidates", "best": event.best} | {
        name: [value if math.isfinite(value) else None for value in values]
        for name, values in fields.items()
    }


def _of_ended(event: FitEnded) -> Message:
    words = verdict(event.time, mini_batch=event.mini_batch)
    return {"event": "ended", **_flat(event, event.time), "verdict": words}


def _flat(event: RowsDone | FitEnded, time: TimeSplit) -> Message:
    fields = {name: value for name, value in vars(event).items() if name != "time"}
    return fields | {f"{name}_seconds": value for name, value in asdict(time).items()}


def _fields(name: str) -> Callable[[Any], Message]:
    return lambda event: {"event": name, **asdict(event)}


_MESSAGES: dict[type, Callable[[Any], Message]] = {
    StepEnded: _of_step,
    RowsDone: _of_rows,
    CandidatesJudged: _of_candidates,
    FitStarted: _fields("started"),
    FitResumed: _of_resumed,
    CheckpointWritten: _fields("checkpoint"),
    ChunkQuarantined: _fields("quarantined"),
    FitEnded: _of_ended,
}


def time_of(message: Message) -> TimeSplit:
    """Return the time split of a message or record."""
    return TimeSplit(
        message["read_seconds"],
        message["decode_seconds"],
        message["kernel_seconds"],
        message["waiting_seconds"],
    )


NAME = "dsoftmax"
TOPIC = "dsoftmax"
