"""What the page says and shows of runs, without a browser."""

from __future__ import annotations

import pytest

from dsoftmax.diagnostics import page
from dsoftmax.diagnostics.page import Page, WorkerMemory
from dsoftmax.diagnostics.runs import Run, Runs
from dsoftmax.diagnostics.scheduler_report import public
from tests.diagnostics.sample_events import ALL, PASS, STARTED


def runs_with(*keys: str) -> Runs:
    runs = Runs()
    for key in keys:
        runs.receive(key, "me", [public(event) for event in ALL], now=100.0)
    return runs


def test_what_comes_from_a_run_is_escaped() -> None:
    runs = runs_with("<b>key")
    run = runs.get("<b>key")
    assert run is not None
    run.reason = "<script>alert()</script>"
    run.facts = {**run.facts, "solver": "<i>sgd</i>"}
    texts = page._TEXTS.status(run) + page._TEXTS.cards(run) + page._TEXTS.table([run], run)
    assert "&lt;script&gt;" in texts
    assert "&lt;b&gt;key" in texts
    assert "&lt;i&gt;sgd" in texts
    assert not any(tag in texts for tag in ("<script", "<b>", "<i>"))


def test_the_cards_show_the_last_figures() -> None:
    run = runs_with("a").newest
    text = page._TEXTS.cards(run)
    for figure in ("0.700000", "0.8000", "1.00e-01", "validation loss", "best alpha"):
        assert figure in text
    assert "of 20 at most" in text
    assert "width:5.0%" in text


@pytest.mark.parametrize("events", [(), (STARTED,), (STARTED, PASS)])
def test_a_run_is_shown_whatever_is_known_of_it(events: tuple[object, ...]) -> None:
    runs = Runs()
    runs.receive("a", "me", [public(event) for event in events], now=100.0)  # type: ignore[arg-type]
    shown = Page(runs, lambda: [WorkerMemory("w", 3, 4), WorkerMemory("v", 1, 0)])
    shown.refresh()
    memory = shown._sources["memory"].data
    assert list(memory["worker"]) == ["w", "v"]
    assert "running" in shown._status.text


def test_a_page_without_runs_says_so() -> None:
    shown = Page(Runs(), list)
    shown.refresh()
    assert "No run yet" in shown._status.text
    assert page._run_columns(Run("", "", 0.0), ())["candidates"]["loss"].tolist() == []
