from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dsoftmax import SoftmaxRegression
from dsoftmax.diagnostics.history import record_of
from dsoftmax.events import FitStarted, PassEnded, RowsDone, StepEnded, TimeSplit
from dsoftmax.training.event_log import MOST_STEPS
from dsoftmax.training.progress import Progress

STEP = StepEnded(0.5, 1, 0.7, 0.1, 0.8, 1.5, 50, 400, TimeSplit(0.1, 0.15, 0.2, 0.3), 3)
PASS = PassEnded(1.0, 2, 0.6, 0.05, 0.9, 3.0, 100, 800, TimeSplit(0.2, 0.3, 0.4, 0.6), 0, 2.5)
COMMON = ["kind", "pass", "step", "loss", "gradient_norm", "accuracy", "seconds", "rows", "bytes"]
TIMES = ["read_seconds", "decode_seconds", "kernel_seconds", "waiting_seconds", "retries"]


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(1000, 5)), rng.integers(3, size=1000)


def test_steps_and_passes_are_kept_in_order_and_nothing_else() -> None:
    progress = Progress(())
    for event in (FitStarted(1, 1, 2, 1, 8, "sgd", 1, 1, None), STEP, RowsDone(1, 2), PASS):
        progress.emit(event)
    assert [record_of(event)["kind"] for event in progress.history] == ["step", "pass"]


def test_a_record_is_flat_and_complete() -> None:
    step, whole = record_of(STEP), record_of(PASS)
    assert list(step) == COMMON + TIMES
    assert list(whole) == [*COMMON, *TIMES, "pass_seconds"]
    numbers = [0.5, 1, 0.7, 0.1, 0.8, 1.5, 50, 400, 0.1, 0.15, 0.2, 0.3, 3]
    assert list(step.values()) == ["step", *numbers]


def test_every_pass_of_lbfgs_reads_every_row(data: tuple[np.ndarray, np.ndarray]) -> None:
    model = SoftmaxRegression(solver="lbfgs").fit(*data)
    assert [record["kind"] for record in model.history_] == ["pass"] * model.n_iter_
    assert {record["rows"] for record in model.history_} == {1000}


def test_the_steps_of_sgd_fill_the_passes(data: tuple[np.ndarray, np.ndarray]) -> None:
    model = SoftmaxRegression(
        solver="sgd", max_iter=3, tol=0, batch_size=300, learning_rate=0.1, random_state=0
    )
    with pytest.warns(UserWarning, match="budget"):
        model.fit(*data)
    steps = [record for record in model.history_ if record["kind"] == "step"]
    assert [record["rows"] for record in steps] == [300, 300, 300, 100] * 2
    assert np.allclose([record["pass"] for record in steps][:4], [0.3, 0.6, 0.9, 1.0])
    assert [r["pass"] for r in model.history_ if r["kind"] == "pass"] == [1.0, 2.0, 3.0]


def test_a_hundred_thousand_steps_are_few_records_and_every_pass() -> None:
    progress = Progress(())
    for step in range(1, 100_001):
        progress.emit(replace(STEP, step=step))
        if step % 100 == 0:
            progress.emit(replace(PASS, passes=step / 100, step=step))
    records = [record_of(event) for event in progress.history]
    steps = [record["step"] for record in records if record["kind"] == "step"]
    passes = [record["pass"] for record in records if record["kind"] == "pass"]
    assert passes == [float(number) for number in range(1, 1001)]
    assert MOST_STEPS / 2 <= len(steps) <= MOST_STEPS
    assert set(np.diff(steps)) == {steps[0]}
