from __future__ import annotations

import pytest

from dsoftmax.training.event_log import DecimatedLog


def filled(steps: int, max_steps: int = 8) -> DecimatedLog[int]:
    log: DecimatedLog[int] = DecimatedLog(max_steps)
    for step in range(1, steps + 1):
        log.add(step, step)
    return log


def test_few_steps_are_all_kept() -> None:
    assert list(filled(8)) == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("steps", [9, 17, 100, 100_000])
def test_many_steps_are_thinned_evenly(steps: int) -> None:
    kept = list(filled(steps))
    assert 4 <= len(kept) <= 8
    assert kept == list(range(kept[0], steps + 1, kept[0]))


def test_the_log_never_drops_events_that_are_not_steps() -> None:
    log: DecimatedLog[str] = DecimatedLog(2)
    for number in range(1, 101):
        log.add(f"step {number}", number)
        log.add(f"pass {number}")
    assert [kept for kept in log if kept[0] == "p"] == [f"pass {n}" for n in range(1, 101)]
    assert len(log) <= 102


def test_records_until_a_count_are_those_that_were_there_then() -> None:
    log = filled(20)
    assert list(log.until(10)) == [step for step in log if step <= 10]
    assert log.count == 20


@pytest.mark.parametrize("stop", [0, 3, 8, 9, 16, 40, 71])
def test_a_resumed_log_keeps_the_same_events(stop: int) -> None:
    before = filled(stop)
    log: DecimatedLog[int] = DecimatedLog(8)
    log.resume([(step, step) for step in before], before.count)
    for step in range(stop + 1, 101):
        log.add(step, step)
    assert list(log) == list(filled(100))
    assert log.count == 100
