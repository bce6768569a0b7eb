from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dsoftmax.diagnostics.runs import ENDED, FAILED, LOST, RUNNING, Run, Runs, Totals
from dsoftmax.diagnostics.scheduler_report import public
from dsoftmax.events import (
    Event,
    FitEnded,
    FitResumed,
    RowsDone,
    TimeSplit,
)
from tests.diagnostics.sample_events import ALL, ENDED_EVENT, JUDGED, PASS, SPLIT, STARTED, STEP


def told(*events: Event, runs: Runs | None = None, key: str = "a", client: str = "me") -> Run:
    runs = Runs() if runs is None else runs
    runs.receive(key, client, [public(event) for event in events], now=100.0)
    run = runs.get(key)
    assert run is not None
    return run


@pytest.mark.parametrize("event", ALL, ids=lambda event: type(event).__name__)
def test_nothing_that_may_hold_a_credential_travels(event: Event) -> None:
    assert "password" not in repr(public(event))
    assert "8787" not in repr(public(event))


def test_a_run_knows_how_far_it_is_within_a_pass() -> None:
    run = told(STARTED, PASS, RowsDone(250, 1000, 16_000, 1.5, SPLIT, 1))
    assert run.passes == 1.25
    assert run.seconds == 7.5
    assert run.totals == Totals(1250, 80_000, 4, SPLIT + SPLIT)


def test_the_time_left_is_that_of_the_budget() -> None:
    assert told(STARTED).seconds_left is None
    assert told(STARTED, PASS).seconds_left == pytest.approx(19 * 6.0)
    assert told(STARTED, PASS, ENDED_EVENT).seconds_left is None


def test_steps_are_not_counted_twice_when_their_pass_ends() -> None:
    whole = replace(PASS, rows=1000, bytes=64_000, time=SPLIT + SPLIT, retries=0)
    run = told(STARTED, STEP, replace(STEP, passes=1.0, step=2, seconds=2.0), whole)
    assert run.totals == Totals(1000, 64_000, 0, SPLIT + SPLIT)
    assert run.mini_batch


def test_rates_are_those_of_reading_and_computing() -> None:
    run = told(STARTED, PASS, replace(PASS, passes=2.0, seconds=20.0, pass_seconds=2.0))
    assert [(s.stop, s.rows, s.bytes) for s in run.samples] == [
        (1.0, 200.0, 12_800.0),
        (2.0, 500.0, 32_000.0),
    ]
    assert [sample.time for sample in run.samples] == [SPLIT, SPLIT]


def test_what_a_pass_took_beside_its_steps_is_no_speed_of_theirs() -> None:
    steps = [replace(STEP, passes=i / 2, step=i, seconds=4.0 * i) for i in (1, 2)]
    whole = replace(PASS, rows=1500, bytes=96_000, seconds=8.1)
    more = [replace(step, passes=1 + step.passes, seconds=8.1 + step.seconds) for step in steps]
    run = told(STARTED, *steps, whole, *more)
    assert run.totals.rows == 2500
    assert [sample.rows for sample in run.samples] == pytest.approx([125.0] * 4)


def test_a_long_pass_has_rates_before_it_ends() -> None:
    done = [RowsDone(100 * i, 1000, 6400 * i, 4.0 * i, SPLIT, 0) for i in range(1, 6)]
    assert [sample.rows for sample in told(STARTED, *done).samples] == [25.0] * 5


def test_a_pass_that_is_made_again_does_no_harm() -> None:
    far = RowsDone(900, 1000, 57_600, 9.0, SPLIT + SPLIT, 0)
    run = told(STARTED, far, RowsDone(10, 1000, 640, 4.0, TimeSplit(), 0), PASS)
    assert run.totals.rows == 1000
    assert all(sample.rows > 0 for sample in run.samples)


def test_what_happens_on_the_way_is_counted() -> None:
    run = told(*(event for event in ALL if not isinstance(event, FitEnded)))
    assert (run.skipped, run.checkpoint_at, run.state) == (1, 100.0, RUNNING)
    run = told(*ALL)
    assert (run.state, run.reason) == (ENDED, "converged")
    assert run.verdict.startswith("compute-bound: 50%")


def test_a_resumed_run_has_its_earlier_records() -> None:
    again = FitResumed("state", 2, 2, 12.0, (PASS, replace(PASS, passes=2.0, seconds=12.0)), False)
    run = told(STARTED, again, replace(PASS, passes=3.0, seconds=18.0))
    assert [record["pass"] for record in run.records] == [1.0, 2.0, 3.0]
    assert run.totals.rows == 3000
    assert run.passes == 3.0


@pytest.mark.slow
def test_a_hundred_thousand_steps_stay_few() -> None:
    runs = Runs()
    for step in range(1, 100_001):
        event = replace(STEP, passes=step / 100, step=step, seconds=step / 20)
        runs.receive("a", "me", [public(event)], now=step / 20)
    run = runs.get("a")
    assert run is not None
    assert len(run.records) <= 4096
    assert 100 < len(run.samples) <= 1024
    assert run.last is not None
    assert run.last["step"] == 100_000


def test_runs_of_a_client_that_has_gone_are_lost_but_not_those_that_ended() -> None:
    runs = Runs()
    told(STARTED, runs=runs, key="a")
    told(STARTED, ENDED_EVENT, runs=runs, key="b")
    told(STARTED, runs=runs, key="c", client="another")
    runs.client_left("me")
    assert [run.state for run in runs] == [LOST, ENDED, RUNNING]


def test_old_runs_are_forgotten_those_that_have_ended_first() -> None:
    runs = Runs()
    told(STARTED, runs=runs, key="first")
    for number in range(40):
        told(STARTED, ENDED_EVENT, runs=runs, key=str(number))
    assert len(runs) == 16
    assert runs.get("first") is not None
    assert runs.newest is runs.get("39")


@pytest.mark.parametrize("event", [{"event": "of the future"}, {"event": "receive"}])
def test_an_unknown_message_is_passed_over(event: dict[str, Any]) -> None:
    runs = Runs()
    runs.receive(
        "a", "me", [public(STARTED), event, {"event": "failed", "reason": "KeyError"}], 1.0
    )
    run = runs.get("a")
    assert run is not None
    assert (run.state, run.reason) == (FAILED, "KeyError")


def test_of_a_search_the_last_standing_of_the_candidates_is_known() -> None:
    assert told(STARTED, PASS).candidates is None
    run = told(STARTED, replace(JUDGED, running=(3, 3)), JUDGED, PASS)
    assert run.candidates is not None
    assert run.candidates["running"] == [2, 3]
    assert run.candidates["losses"] == [0.75, None]
