"""What holds a run back, in words: a few rules over the measured split of its time."""

from __future__ import annotations

from dsoftmax.diagnostics.palette import LABELS
from dsoftmax.events import TimeSplit

_LEAST_SHARE = 0.4  # of the time, for one activity to be what a run is bound by

_ADVICE = {
    "decode": (
        "decode-bound: {share:.0%} of worker time in decompression; store as zstd level 1{cache}, "
        "or add workers"
    ),
    "read": (
        "read-bound: {share:.0%} of worker time waiting for storage; move the data closer{cache}, "
        "or add workers"
    ),
    "kernel": (
        "compute-bound: {share:.0%} of worker time in losses and gradients; storage keeps up, and "
        "more workers would be faster"
    ),
}
_IDLE_IN_STEPS = (
    "waiting-bound: {share:.0%} of worker time between steps; take larger batches, or fewer workers"
)
_IDLE_IN_PASSES = (
    "waiting-bound: {share:.0%} of worker time without a task; use fewer workers, or store smaller "
    "chunks"
)


def verdict(time: TimeSplit, *, mini_batch: bool) -> str:
    """Return what most of the workers' time went to, and what would help.

    Parameters
    ----------
    time : of a whole run, or so far
    mini_batch : whether rows were read in steps, for which workers remember decoded chunks

    Examples
    --------
    >>> verdict(TimeSplit(read=1, decode=2, kernel=6, waiting=1), mini_batch=False)[:33]
    'compute-bound: 60% of worker time'
    """
    total = time.total
    if not total > 0:
        return ""
    shares = shares_of(time)
    name, share = max(shares.items(), key=lambda item: item[1])
    if share < _LEAST_SHARE:
        parts = ", ".join(f"{LABELS[part]} {value:.0%}" for part, value in shares.items())
        return f"balanced: no one activity takes most of the workers' time ({parts})"
    if name == "waiting":
        return (_IDLE_IN_STEPS if mini_batch else _IDLE_IN_PASSES).format(share=share)
    cache = ", keep more of it in cache (dsoftmax.cache)" if mini_batch else ""
    return _ADVICE[name].format(share=share, cache=cache)


def shares_of(time: TimeSplit) -> dict[str, float]:
    """Return the share of each activity in a time that is not zero."""
    parts = {
        "read": time.read,
        "decode": time.decode,
        "kernel": time.kernel,
        "waiting": time.waiting,
    }
    return {name: seconds / time.total for name, seconds in parts.items()}
