from __future__ import annotations

import pytest

from dsoftmax.events import DecimatedLog


def filled(steps: int, most: int = 8) -> DecimatedLog[int]:
    thinned: DecimatedLog[int] = DecimatedLog(most)
    for step in range(1, steps + 1):
        thinned.add(step, step)
    return thinned


def test_few_steps_are_all_kept() -> None:
    assert list(filled(8)) == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("steps", [9, 17, 100, 100_000])
def test_many_steps_are_thinned_evenly(steps: int) -> None:
    kept = list(filled(steps))
    assert 4 <= len(kept) <= 8
    assert kept == list(range(kept[0], steps + 1, kept[0]))


def test_the_log_never_drops_events_that_are_not_steps() -> None:
    thinned: DecimatedLog[str] = DecimatedLog(2)
    for number in range(1, 101):
        thinned.add(f"step {number}", number)
        thinned.add(f"pass {number}")
    assert [kept for kept in thinned if kept[0] == "p"] == [f"pass {n}" for n in range(1, 101)]
    assert len(thinned) <= 102


def test_records_until_a_count_are_those_that_were_there_then() -> None:
    thinned = filled(20)
    assert list(thinned.until(10)) == [step for step in thinned if step <= 10]
    assert thinned.count == 20


@pytest.mark.parametrize("stop", [0, 3, 8, 9, 16, 40, 71])
def test_a_resumed_log_keeps_the_same_events(stop: int) -> None:
    before = filled(stop)
    thinned: DecimatedLog[int] = DecimatedLog(8)
    thinned.resume([(step, step) for step in before], before.count)
    for step in range(stop + 1, 101):
        thinned.add(step, step)
    assert list(thinned) == list(filled(100))
    assert thinned.count == 100
