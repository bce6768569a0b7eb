from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dsoftmax.diagnostics import progress as module
from dsoftmax.diagnostics.progress import Progress
from dsoftmax.events import (
    CandidatesJudged,
    Event,
    FitEnded,
    FitResumed,
    FitStarted,
    PassEnded,
    RowsDone,
    StepEnded,
    TimeSplit,
    ValidationScores,
)

SPENT = TimeSplit(0.1, 0.4, 1.0, 0.0)
STEP = StepEnded(0.25, 1, 0.9, 0.5, 0.1, 1.0, 1000, 64_000, SPENT, 0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that goes by 10 seconds each time it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 10.0
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def events(dashboard: str | None) -> list[Event]:
    return [
        FitStarted(1_000_000, 64, 10, 16, 64_000_000, "sgd", 5, 2, dashboard),
        RowsDone(500_000, 1_000_000, seconds=0.25),
        PassEnded(1.0, 0, 2.302585, 0.5, 0.1, 1.0, 1_000_000, 64_000_000, SPENT, 0, 0.5),
        RowsDone(250_000, 1_000_000, seconds=0.5),
        PassEnded(2.0, 1, 0.594829, 0.157, 0.82, 2.0, 1_000_000, 64_000_000, SPENT, 0, 1.0),
        FitEnded("converged: it is done", True, 0.594829, 2, 1, 2.1, 0, SPENT),
    ]


def shown(stream: io.StringIO, live: bool | None = None, dashboard: str | None = None) -> str:
    progress = Progress(stream, live)
    for event in events(dashboard):
        progress.on_event(event)
    return stream.getvalue()


def test_a_batch_log_gets_plain_lines_with_a_row_a_pass() -> None:
    lines = shown(io.StringIO()).splitlines()
    assert lines == [
        "1,000,000 rows x 64 features, 10 classes; 64 MB a pass in 16 chunks; sgd on this process",
        " pass         loss  accuracy   gradient      rows/s    MB/s       s     left",
        "    1     2.302585    0.1000   5.00e-01   2,000,000     128     1.0      0 s",
        "    2     0.594829    0.8200   1.57e-01   1,000,000      64     2.0      0 s",
        "converged: it is done",
        "loss 0.594829 after 2 passes, 1 steps, 2.1 s",
        "compute-bound: 67% of worker time in losses and gradients; storage keeps up, and more "
        "workers would be faster",
    ]


def test_what_validation_rows_say_has_columns_of_its_own() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    started, _, first, _, second, _ = events(None)
    assert isinstance(started, FitStarted)
    assert isinstance(second, PassEnded)
    scores = ValidationScores(0.65, 0.79, 0.78, 0.77, 0.3, 0.05)
    for event in (replace(started, n_validation=10), first, replace(second, validation=scores)):
        progress.on_event(event)
    assert stream.getvalue().splitlines()[1:] == [
        " pass         loss  accuracy    val. loss val. acc.   gradient      rows/s    MB/s       s"
        "     left",
        "    1     2.302585    0.1000                          5.00e-01   2,000,000     128     1.0"
        "      0 s",
        "    2     0.594829    0.8200     0.650000    0.7900   1.57e-01   1,000,000      64     2.0"
        "      0 s",
    ]


def test_a_search_tells_the_best_candidate_so_far_and_how_many_models_go_on() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    started, _, first, _, second, ended = events(None)
    assert isinstance(started, FitStarted)
    assert isinstance(second, PassEnded)
    standing = CandidatesJudged(
        (10.0, 0.1), (0.0, 0.0), (0.7, 0.5), (0.1, 0.1), (0.8, 0.9), (2, 3), (False, False), 1
    )
    scores = ValidationScores(0.5, 0.9)
    for event in (
        replace(started, n_validation=10, n_models=6),
        standing,
        standing,
        replace(first, validation=scores),
        replace(standing, running=(0, 0), best=0),
        replace(second, validation=scores),
        replace(standing, running=(0, 0)),
        replace(second, passes=3.0, validation=scores),
        ended,
    ):
        progress.on_event(event)
    head, titles, *rows = stream.getvalue().splitlines()
    assert head.endswith("sgd on this process; 6 models")
    assert titles.split()[:4] == ["pass", "alpha", "models", "loss"]
    assert [row.split()[:3] for row in rows[:3]] == [
        ["1", "0.1", "5"],
        ["2", "10", "0"],
        ["3", "0.1", "refit"],
    ]
    assert {len(line) for line in (titles, *rows[:3])} == {len(titles)}


def test_on_a_cluster_the_dashboard_is_named() -> None:
    lines = shown(io.StringIO(), dashboard="http://127.0.0.1:8787/status").splitlines()
    assert lines[0].endswith("sgd on 2 Dask workers")
    assert lines[1] == "dashboard: http://127.0.0.1:8787/status"


def test_who_can_watch_a_dashboard_on_loopback_is_said() -> None:
    lines = shown(io.StringIO(), dashboard="http://127.0.0.1:8787/status").splitlines()
    assert lines[2].startswith("           all users of this machine can watch it; DASK_DSOFTMAX__")
    assert "users" not in shown(io.StringIO(), dashboard="http://node7:8787/status")


def test_a_dashboard_that_is_off_is_not_named() -> None:
    lines = shown(io.StringIO(), dashboard="").splitlines()
    assert lines[0].endswith("sgd on 2 Dask workers")
    assert "dashboard" not in "".join(lines)


def test_the_time_left_is_that_of_the_passes_that_are_left(clock: Clock) -> None:
    rows = [line for line in shown(io.StringIO()).splitlines() if line[:5].strip().isdigit()]
    assert [row.split()[-1] for row in rows] == ["2:00", "1:30"]  # 30 s, then 60 s for two


def test_a_resumed_fit_estimates_by_what_it_does_now(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.on_event(FitStarted(100, 4, 2, 1, 800, "lbfgs", 10, 1, None))
    progress.on_event(FitResumed("state", 8, 8, 3600.0, (), False))
    progress.on_event(PassEnded(9.0, 9, 0.5, 0.1, 0.9, 3605.0, 100, 800, SPENT, 0, 5.0))
    assert stream.getvalue().splitlines()[-1].endswith("3605.0     10 s")


def test_a_terminal_sees_the_pass_under_way_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REFRESH_SECONDS", 0)
    screen = [text.split("\n")[0] for text in shown(Terminal()).split("\r\x1b[2K")]
    first, second = [line for line in screen if "of pass" in line]
    assert first.startswith("    1   50% of pass, 2,000,000 rows/s, at most ")
    assert second.startswith("    2   25% of pass, 500,000 rows/s, loss 2.302585, at most ")
    assert sum(line.startswith("    1     2.302585") for line in screen) == 1


def test_a_terminal_sees_the_steps_of_mini_batches(clock: Clock) -> None:
    stream = Terminal()
    progress = Progress(stream)
    progress.on_event(FitStarted(4000, 64, 10, 4, 256_000, "sgd", 2, 2, None))
    progress.on_event(STEP)
    assert stream.getvalue().endswith(
        "    1   25% of pass, 1,000 rows/s, loss 0.900000, at most 3:30 left"
    )


def test_a_terminal_is_not_redrawn_more_often_than_eyes_can_follow() -> None:
    stream = Terminal()
    progress = Progress(stream)
    for rows in range(1000):
        progress.on_event(RowsDone(rows, 1000))
        progress.on_event(STEP)
    assert stream.getvalue().count("of pass") < 10


def test_a_batch_log_gets_a_line_a_minute_within_a_long_pass(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    for rows in range(1, 61):
        progress.on_event(RowsDone(rows, 60, seconds=10.0 * rows))
    lines = stream.getvalue().splitlines()
    assert 5 <= len(lines) <= 12  # of a clock that has gone on by 10 or 20 minutes
    assert all("of pass" in line for line in lines)


@pytest.mark.parametrize(("stream", "live"), [(Terminal(), False), (io.StringIO(), True)])
def test_live_overrides_what_the_stream_is(stream: io.StringIO, live: bool) -> None:
    assert ("\r" in shown(stream, live)) is live


def test_without_escape_sequences_a_line_is_emptied_by_blanks(clock: Clock) -> None:
    text = shown(io.StringIO(), live=True)
    assert "\x1b" not in text
    first = next(part for part in text.split("\r") if "of pass" in part)
    assert f"\r{' ' * len(first)}\r" in text


def test_fast_passes_do_not_run_into_the_column_before() -> None:
    stream = io.StringIO()
    fast = PassEnded(1.0, 0, 1.0, 0.5, 0.1, 1.0, 10**9, 10**9, TimeSplit(), 0, 10.0)
    Progress(stream).on_event(fast)
    assert "5.00e-01 100,000,000" in stream.getvalue()


def test_a_diverged_loss_is_printed() -> None:
    stream = io.StringIO()
    whole = events(None)[2]
    assert isinstance(whole, PassEnded)
    Progress(stream).on_event(replace(whole, loss=float("inf"), accuracy=float("nan")))
    assert "inf" in stream.getvalue()


NOTEBOOK = """
import numpy as np
from dsoftmax import SoftmaxRegression
from dsoftmax.diagnostics import progress
progress._REFRESH_SECONDS = 0
rng = np.random.default_rng(0)
X, y = rng.normal(size=(20_000, 40)), rng.integers(3, size=20_000)
model = SoftmaxRegression(tol=0.1, verbose=1).fit(X, y)
print(model.n_iter_)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own
def test_a_notebook_sees_the_rows_and_the_pass_under_way() -> None:
    manager = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("ipykernel")
    kernel, client = manager.start_new_kernel()
    heard: dict[str, list[str]] = {"stdout": [], "stderr": []}

    def hear(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            heard[message["content"]["name"]].append(message["content"]["text"])

    listen: Callable[..., dict[str, Any]] = client.execute_interactive
    try:
        reply = listen(NOTEBOOK, output_hook=hear, timeout=120)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok", reply
    shown = "".join(heard["stderr"])
    assert "% of pass" in shown
    assert "\x1b" not in shown
    rows = [line.rpartition("\r")[2] for line in shown.split("\n")]
    passes = [int(row[:5]) for row in rows if row[:5].strip().isdigit()]
    assert passes == list(np.arange(1, int("".join(heard["stdout"])) + 1))
