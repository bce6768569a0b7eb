"""What limits the speed of a run, in words: a few rules on the measured split of its time."""

from __future__ import annotations

from dsoftmax.diagnostics.style import LABELS
from dsoftmax.events import TimeSplit

_MIN_SHARE = 0.4  # of the time, from which on one activity limits a run

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
_WAITING_IN_STEPS = (
    "waiting-bound: {share:.0%} of worker time between steps; take larger batches, or fewer workers"
)
_WAITING_IN_PASSES = (
    "waiting-bound: {share:.0%} of worker time without a task; use fewer workers, or store smaller "
    "chunks"
)


def verdict(time: TimeSplit, *, mini_batch: bool) -> str:
    """Return what took most of the workers' time, and what would help; "" without any time.

    Parameters
    ----------
    time : of a whole run, or so far
    mini_batch : whether rows were read in mini-batches, whose decoded chunks workers cache

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
    if share < _MIN_SHARE:
        parts = ", ".join(f"{LABELS[part]} {value:.0%}" for part, value in shares.items())
        return f"balanced: no one activity takes most of the workers' time ({parts})"
    if name == "waiting":
        return (_WAITING_IN_STEPS if mini_batch else _WAITING_IN_PASSES).format(share=share)
    cache = ", keep more of it in cache (dsoftmax.cache)" if mini_batch else ""
    return _ADVICE[name].format(share=share, cache=cache)


def shares_of(time: TimeSplit) -> dict[str, float]:
    """Return the share of each activity in a total that is not zero."""
    return {name: seconds / time.total for name, seconds in vars(time).items()}
