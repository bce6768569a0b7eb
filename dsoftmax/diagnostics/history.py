"""The history of a fit, as records."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from dsoftmax.events import ChunkQuarantined, PassEnded, StepEnded

Record = dict[str, Any]


def record_of(event: StepEnded | ChunkQuarantined) -> Record:
    """Return a step, a pass or a quarantined chunk as a record of `history_`."""
    if isinstance(event, ChunkQuarantined):
        return {"kind": "quarantined", **asdict(event)}
    return as_record(event)


def as_record(event: StepEnded) -> Record:
    """Return a step or a pass as a flat dict of numbers and strings.

    Keys: kind ("step" or "pass"), pass, step, loss, gradient_norm, accuracy, seconds (since
    the fit started), rows, bytes, read_seconds, decode_seconds, kernel_seconds,
    waiting_seconds, retries. A pass also has pass_seconds; from "newton" gap, an estimate of how
    far the loss is above its minimum; and, with validation rows, validation_loss,
    validation_accuracy, validation_balanced_accuracy, validation_f1_macro, validation_brier_score
    and validation_ece, see `dsoftmax.metrics.scores.EvaluationResult`.
    """
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
