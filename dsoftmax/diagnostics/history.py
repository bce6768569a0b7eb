"""The history of a fit: its events as flat dicts, in memory (`history_`) or as lines of JSON."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from dsoftmax.diagnostics.verdict import verdict
from dsoftmax.events import (
    CandidatesJudged,
    CheckpointWritten,
    ChunkQuarantined,
    Event,
    FitEnded,
    FitResumed,
    FitStarted,
    PassEnded,
    RowsDone,
    StepEnded,
    TimeSplit,
)
from dsoftmax.storage.records import strict_json

Message = dict[str, Any]

# PassEnded is a StepEnded too, and so comes before it.
_KINDS: dict[type, str] = {
    PassEnded: "pass",
    StepEnded: "step",
    RowsDone: "rows",
    CandidatesJudged: "candidates",
    FitStarted: "started",
    FitResumed: "resumed",
    CheckpointWritten: "checkpoint",
    ChunkQuarantined: "quarantined",
    FitEnded: "ended",
}
_ROWS_SECONDS = 1.0  # between two lines of how far a pass is


def as_message(event: Event) -> Message:
    """Return an event as a dict; "event" says what has happened.

    The other keys are the fields of the event, the time split among them as `read_seconds` and
    so on; those of "step" and "pass" are the keys of `history_`. "ended" also has the `verdict`.
    """
    kind = next(kind for cls, kind in _KINDS.items() if isinstance(event, cls))
    if isinstance(event, StepEnded):
        return {"event": kind, **_step_fields(event)}
    fields = dict(vars(event))
    if isinstance(event, FitResumed):
        del fields["events"]
    elif isinstance(event, CandidatesJudged):
        fields = {"best": fields.pop("best")} | {
            name: [value if math.isfinite(value) else None for value in values]
            for name, values in fields.items()
            if name != "best"
        }
    elif isinstance(event, RowsDone | FitEnded):
        fields |= _seconds(fields.pop("time"))
    if isinstance(event, FitEnded):
        fields["verdict"] = verdict(event.time, mini_batch=event.mini_batch)
    return {"event": kind, **fields}


def _step_fields(event: StepEnded) -> Message:
    fields = {
        "pass": event.passes,
        "step": event.step,
        "loss": event.loss,
        "gradient_norm": event.gradient_norm,
        "accuracy": event.accuracy,
        "seconds": event.seconds,
        "rows": event.rows,
        "bytes": event.bytes,
        **_seconds(event.time),
        "retries": event.retries,
    }
    if isinstance(event, PassEnded):
        fields["pass_seconds"] = event.pass_seconds
        if event.gap is not None:
            fields["gap"] = event.gap
        if event.validation is not None:
            scores = asdict(event.validation).items()
            fields |= {
                f"validation_{name}": score for name, score in scores if not math.isnan(score)
            }
    return fields


def _seconds(time: TimeSplit) -> dict[str, float]:
    return {f"{activity}_seconds": seconds for activity, seconds in vars(time).items()}


def record_of(event: StepEnded | ChunkQuarantined) -> Message:
    """Return a step, a pass or a quarantined chunk as a record of `history_`.

    Keys: kind ("step" or "pass"), pass, step, loss, gradient_norm, accuracy, seconds (since
    the fit started), rows, bytes, read_seconds, decode_seconds, kernel_seconds,
    waiting_seconds, retries. A pass also has pass_seconds; from "newton" gap, an estimate of how
    far the loss is above its minimum; and, with validation rows, validation_loss,
    validation_accuracy, validation_balanced_accuracy, validation_f1_macro, validation_brier_score
    and validation_ece, see `dsoftmax.metrics.scores.EvaluationResult`. A chunk that was left out
    has the kind "quarantined", and start, stop (rows) and reason.
    """
    message = as_message(event)
    return {"kind": message.pop("event"), **message}


@dataclass
class JsonLines:
    """Writes the events of a fit as lines of JSON; see `as_message` for the keys.

    A number that is not finite is written as null, which JSON has no other word for. A file that
    cannot be written to is an error at first; later it is a warning, and the fit goes on.

    Attributes
    ----------
    target : stream, or path of a file that is appended to
    """

    target: TextIO | str | os.PathLike[str]
    _rows_at: float = -math.inf
    _has_written: bool = False
    _has_failed: bool = False

    def on_event(self, event: Event) -> None:
        """Write an event; of `RowsDone`, at most one a second."""
        now = time.monotonic()
        if isinstance(event, RowsDone):
            if now - self._rows_at < _ROWS_SECONDS:
                return
            self._rows_at = now
        line = json.dumps(strict_json(as_message(event)), allow_nan=False) + "\n"
        if isinstance(self.target, str | os.PathLike):
            self._append(Path(self.target), line)
        else:
            self.target.write(line)
            self.target.flush()

    def _append(self, path: Path, line: str) -> None:
        if self._has_failed:
            return
        # Opened for each line, so that every line is in the file if the process is killed.
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            if not self._has_written:
                raise
            self._has_failed = True
            warnings.warn(f"{path} ends here: {error}; the fit goes on", stacklevel=2)
        self._has_written = True
