"""What a message of a fit must hold for the scheduler to take it for one.

Whoever reaches the scheduler may send anything under the topic of fits, and a client may have
another version. What is taken is shown to a browser and to Prometheus, so that a wrong type in one
message would spoil both, for all runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dsoftmax.events import TimeSplit

_COSTS = ("rows", "bytes", "retries", *(f"{activity}_seconds" for activity in vars(TimeSplit())))
_STEP = ("pass", "step", "seconds", *_COSTS)
_SIZES = ("n_samples", "n_features", "n_classes", "n_chunks", "pass_bytes", "max_iter", "workers")
# Fields that are finite numbers, by the kind of the message.
_FINITE = {
    "started": _SIZES,
    "resumed": ("passes", "seconds"),
    "rows": ("total", "seconds", *_COSTS),
    "step": _STEP,
    "pass": (*_STEP, "pass_seconds"),
}
_SCORES = ("loss", "gradient_norm", "accuracy")  # numbers that may be infinite or NaN
_TEXTS = {"started": ("solver",), "ended": ("reason", "verdict"), "failed": ("reason",)}
# Lists of the same length, one number or None for each candidate.
_CANDIDATES = ("alphas", "l1_ratios", "losses", "errors", "accuracies", "running", "ruled_out")
_KNOWN = ("alphas", "l1_ratios", "running", "ruled_out")  # those in which there is no None


def fault_in(message: Any) -> str:
    """Return what is wrong with a message; "" if nothing is, or it is of an unknown kind."""
    if not isinstance(message, Mapping) or not isinstance(message.get("event"), str):
        return "no mapping with a text as its event"
    kind = message["event"]
    if kind == "candidates":
        return _fault_in_candidates(message)
    if kind in ("step", "pass"):
        wrong = [name for name in _SCORES if name not in message]
        wrong += [name for name in message if name != "event" and not _is_number(message[name])]
    else:
        wrong = []
    wrong += [name for name in _FINITE.get(kind, ()) if not _is_finite(message.get(name))]
    wrong += [name for name in _TEXTS.get(kind, ()) if not is_text(message.get(name))]
    if kind == "resumed" and not _are_records(message.get("records")):
        wrong.append("records")
    return f"{', '.join(map(str, wrong))} of {kind}" if wrong else ""


def _fault_in_candidates(message: Mapping[str, Any]) -> str:
    columns = [message.get(name) for name in _CANDIDATES]
    lists = [column for column in columns if isinstance(column, list | tuple)]
    if len(lists) < len(columns) or len({len(column) for column in lists}) != 1:
        return "the lists of candidates"
    best = message.get("best")
    if not isinstance(best, int) or not 0 <= best < len(lists[0]):
        return "the best of candidates"
    for name in _CANDIDATES:
        allowed = (value for value in message[name] if value is not None or name in _KNOWN)
        if not all(map(_is_number, allowed)):
            return f"{name} of candidates"
    return ""


def _are_records(records: Any) -> bool:
    return isinstance(records, list | tuple) and all(
        not fault_in(record) and record["event"] in ("step", "pass") for record in records
    )


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and isinstance(float(value), float)
    except OverflowError:  # an integer of 400 digits
        return False


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def is_text(value: Any) -> bool:
    """Whether a value is text that can be encoded, which half of a surrogate pair cannot."""
    return isinstance(value, str) and value == value.encode(errors="ignore").decode()
