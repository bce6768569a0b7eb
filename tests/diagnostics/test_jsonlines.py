from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsoftmax import SoftmaxRegression
from dsoftmax.diagnostics import history
from dsoftmax.diagnostics.history import JsonLines
from dsoftmax.events import CandidatesJudged, RowsDone, StepEnded, TimeSplit

STEP = StepEnded(0.25, 1, 0.9, 0.5, 0.1, 1.0, 1000, 64_000, TimeSplit(1, 2, 3, 4), 0)


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(500, 4)), rng.integers(3, size=500)


def strict(text: str) -> list[dict[str, object]]:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_the_log_of_a_fit_holds_the_history_between_its_start_and_its_end(
    data: tuple[np.ndarray, np.ndarray],
) -> None:
    stream = io.StringIO()
    model = SoftmaxRegression(callbacks=[JsonLines(stream)]).fit(*data)
    lines = strict(stream.getvalue())
    assert lines[0]["event"] == "started"
    assert lines[0]["n_samples"] == 500
    passes = [line for line in lines if line["event"] == "pass"]
    assert [{"kind": line.pop("event"), **line} for line in passes] == model.history_
    assert lines[-1]["event"] == "ended"
    assert lines[-1]["loss"] == model.loss_
    assert "-bound" in str(lines[-1]["verdict"]) or "balanced" in str(lines[-1]["verdict"])


def test_a_file_is_appended_to(tmp_path: Path, data: tuple[np.ndarray, np.ndarray]) -> None:
    log = tmp_path / "run.jsonl"
    for target in (log, str(log)):
        SoftmaxRegression(callbacks=[JsonLines(target)]).fit(*data)
    events = [line["event"] for line in strict(log.read_text())]
    assert events.count("started") == events.count("ended") == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_word_for_is_null(value: float) -> None:
    stream = io.StringIO()
    JsonLines(stream).on_event(replace(STEP, loss=value))
    (line,) = strict(stream.getvalue())
    assert line["loss"] is None
    assert line["decode_seconds"] == 2


def test_how_far_a_pass_is_takes_a_line_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    log = JsonLines(stream)
    for rows in range(10_000):
        log.on_event(RowsDone(rows, 10_000))
    assert stream.getvalue().count("\n") < 100
    monkeypatch.setattr(history, "_ROWS_SECONDS", 0.0)
    log.on_event(RowsDone(9_999, 10_000))
    assert strict(stream.getvalue())[-1]["rows"] == 9_999


def test_a_file_that_cannot_be_written_is_an_error_at_first(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        JsonLines(tmp_path / "no" / "run.jsonl").on_event(STEP)


def test_a_file_that_fails_later_does_not_end_the_fit(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    log = JsonLines(folder / "run.jsonl")
    log.on_event(STEP)
    folder.rename(tmp_path / "gone")
    with pytest.warns(UserWarning, match="the fit goes on"):
        log.on_event(STEP)
    log.on_event(STEP)


def test_candidates_whose_loss_is_no_number_are_json_all_the_same() -> None:
    stream, losses = io.StringIO(), (math.inf, math.nan, 0.5)
    none, ones = (0.0,) * 3, (1,) * 3
    JsonLines(stream).on_event(
        CandidatesJudged((3.0, 2.0, 1.0), none, losses, losses, none, ones, (True,) * 3, 2)
    )
    (line,) = strict(stream.getvalue())
    assert line["losses"] == line["errors"] == [None, None, 0.5]
    assert (line["best"], line["running"], line["ruled_out"]) == (2, [1] * 3, [True] * 3)
