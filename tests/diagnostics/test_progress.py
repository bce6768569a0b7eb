from __future__ import annotations

import io

import pytest

from dsoftmax.diagnostics.progress import Progress
from dsoftmax.events import Event, FitEnded, FitStarted, PassEnded, RowsDone, TimeSplit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def events(dashboard: str | None) -> list[Event]:
    spent = TimeSplit(0.2, 0.3, 1.0, 0.0)
    return [
        FitStarted(1_000_000, 64, 10, 16, 64_000_000, "sgd", 5, 2, dashboard),
        RowsDone(500_000, 1_000_000),
        PassEnded(1.0, 0, 2.302585, 0.5, 0.1, 1.0, 1_000_000, 64_000_000, spent, 0, 0.5),
        RowsDone(250_000, 1_000_000),
        PassEnded(2.0, 1, 0.594829, 0.157, 0.82, 2.0, 1_000_000, 64_000_000, spent, 0, 1.0),
        FitEnded("converged: it is done", True, 0.594829, 2, 1, 2.1, 0),
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
        " pass         loss  accuracy   gradient      rows/s    MB/s       s",
        "    1     2.302585    0.1000   5.00e-01   2,000,000     128     1.0",
        "    2     0.594829    0.8200   1.57e-01   1,000,000      64     2.0",
        "converged: it is done",
        "loss 0.594829 after 2 passes, 1 steps, 2.1 s",
    ]


def test_on_a_cluster_the_dashboard_is_named() -> None:
    lines = shown(io.StringIO(), dashboard="http://127.0.0.1:8787/status").splitlines()
    assert lines[0].endswith("sgd on 2 Dask workers")
    assert lines[1] == "dashboard: http://127.0.0.1:8787/status"


def test_a_terminal_sees_the_pass_under_way_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsoftmax.diagnostics.progress._REFRESH_SECONDS", 0)
    screen = [text.split("\n")[0] for text in shown(Terminal()).split("\r\x1b[2K")]
    first, second = [line for line in screen if "of pass" in line]
    assert first.startswith("    1   50% of pass, ")
    assert second.startswith("    2   25% of pass, ")
    assert sum(line.startswith("    1     2.302585") for line in screen) == 1


def test_a_terminal_is_not_redrawn_more_often_than_eyes_can_follow() -> None:
    stream = Terminal()
    progress = Progress(stream)
    for rows in range(1000):
        progress.on_event(RowsDone(rows, 1000))
    assert stream.getvalue().count("of pass") < 5


@pytest.mark.parametrize(("stream", "live"), [(Terminal(), False), (io.StringIO(), True)])
def test_live_overrides_what_the_stream_is(stream: io.StringIO, live: bool) -> None:
    assert ("\r" in shown(stream, live)) is live


def test_fast_passes_do_not_run_into_the_column_before() -> None:
    stream = io.StringIO()
    fast = PassEnded(1.0, 0, 1.0, 0.5, 0.1, 1.0, 10**9, 10**9, TimeSplit(), 0, 10.0)
    Progress(stream).on_event(fast)
    assert "5.00e-01 100,000,000" in stream.getvalue()
