from __future__ import annotations

import pytest

from dsoftmax.diagnostics.verdict import verdict
from dsoftmax.events import TimeSplit


@pytest.mark.parametrize(
    ("split", "mini_batch", "start", "advice"),
    [
        (TimeSplit(1, 61, 30, 8), False, "decode-bound: 61%", "store as zstd level 1, or add"),
        (TimeSplit(1, 61, 30, 8), True, "decode-bound: 61%", "keep more of it in cache"),
        (TimeSplit(55, 20, 20, 5), False, "read-bound: 55%", "move the data closer"),
        (TimeSplit(5, 20, 70, 5), False, "compute-bound: 70%", "more workers would be faster"),
        (TimeSplit(5, 5, 10, 80), True, "waiting-bound: 80%", "take larger batches"),
        (TimeSplit(5, 5, 10, 80), False, "waiting-bound: 80%", "fewer workers"),
        (TimeSplit(25, 25, 25, 25), False, "balanced", "read 25%, decode 25%"),
    ],
)
def test_the_largest_share_of_the_time_is_named_with_what_helps(
    split: TimeSplit, mini_batch: bool, start: str, advice: str
) -> None:
    words = verdict(split, mini_batch=mini_batch)
    assert words.startswith(start)
    assert advice in words


@pytest.mark.parametrize("split", [TimeSplit(), TimeSplit(float("nan"), 0, 0, 0)])
def test_of_no_time_there_is_nothing_to_say(split: TimeSplit) -> None:
    assert verdict(split, mini_batch=False) == ""
