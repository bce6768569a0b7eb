from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from dsoftmax import SoftmaxRegression
from dsoftmax.diagnostics import plot_history, style
from dsoftmax.errors import DataError, DsoftmaxError

SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-", "svg": b"<?xml"}

LIGHT = """
import sys
import dsoftmax.diagnostics
print({"matplotlib", "sklearn", "distributed"} & set(sys.modules))
"""

NO_PYPLOT = """
import sys
from dsoftmax import SoftmaxRegression
from dsoftmax.diagnostics import plot_history
plot_history(SoftmaxRegression().fit([[0.0], [1.0]], [0, 1]), sys.argv[1])
print("matplotlib.pyplot" in sys.modules)
"""


@pytest.fixture(scope="module")
def full_batch() -> SoftmaxRegression:
    rng = np.random.default_rng(0)
    return SoftmaxRegression().fit(rng.normal(size=(500, 4)), rng.integers(3, size=500))


@pytest.fixture(scope="module")
def mini_batch() -> SoftmaxRegression:
    rng = np.random.default_rng(0)
    model = SoftmaxRegression(solver="sgd", max_iter=4, tol=0, batch_size=50, random_state=0)
    with pytest.warns(ConvergenceWarning):
        return model.fit(rng.normal(size=(500, 4)), rng.integers(3, size=500))


def with_history(records: list[dict[str, Any]]) -> SoftmaxRegression:
    model = SoftmaxRegression()
    model.history_ = records
    return model


def of_kind(model: SoftmaxRegression, kind: str, name: str) -> list[float]:
    return [record[name] for record in model.history_ if record["kind"] == kind]


@pytest.mark.parametrize("suffix", SIGNATURES)
def test_the_file_is_of_the_kind_that_its_name_says(
    full_batch: SoftmaxRegression, tmp_path: Path, suffix: str
) -> None:
    plot_history(full_batch, tmp_path / f"fit.{suffix}")
    assert (tmp_path / f"fit.{suffix}").read_bytes().startswith(SIGNATURES[suffix])


def test_there_is_a_dot_for_every_pass(full_batch: SoftmaxRegression) -> None:
    loss, _, accuracy, _ = plot_history(full_batch).axes
    for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
        (dots,) = axes.lines
        assert list(dots.get_xdata()) == of_kind(full_batch, "pass", "pass")
        assert list(dots.get_ydata()) == of_kind(full_batch, "pass", name)


def test_what_validation_rows_say_is_a_line_of_its_own() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(500, 4)), rng.integers(3, size=500)
    model = SoftmaxRegression().fit(X[:400], y[:400], X_val=X[400:], y_val=y[400:])
    loss, _, accuracy, _ = plot_history(model).axes
    for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
        _, line = axes.lines
        assert line.get_label() == "validation"
        assert list(line.get_ydata()) == of_kind(model, "pass", f"validation_{name}")
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["validation"]


def test_the_steps_of_mini_batches_are_a_line_behind_the_dots(
    mini_batch: SoftmaxRegression,
) -> None:
    line, dots = plot_history(mini_batch).axes[0].lines
    assert list(line.get_ydata()) == of_kind(mini_batch, "step", "loss")
    assert list(dots.get_ydata()) == of_kind(mini_batch, "pass", "loss")
    assert dots.get_linestyle() == "None"


def test_the_bars_of_a_pass_add_up_to_the_time_of_its_workers(
    full_batch: SoftmaxRegression,
) -> None:
    bars = plot_history(full_batch).axes[3].patches
    tops = [bar.get_y() + bar.get_height() for bar in bars[-full_batch.n_iter_ :]]
    times = [
        of_kind(full_batch, "pass", f"{n}_seconds") for n in ("kernel", "decode", "read", "waiting")
    ]
    assert np.allclose(tops, np.sum(times, axis=0))


def test_bars_cover_their_pass(full_batch: SoftmaxRegression) -> None:
    bars = plot_history(full_batch).axes[1].patches
    ends = [bar.get_x() + bar.get_width() for bar in bars]
    assert ends == of_kind(full_batch, "pass", "pass")


def test_a_fit_that_was_interrupted_in_its_first_pass_is_drawn(
    mini_batch: SoftmaxRegression, tmp_path: Path
) -> None:
    plot_history(with_history(mini_batch.history_[:3]), tmp_path / "fit.png")


def test_a_fit_that_diverged_is_drawn(full_batch: SoftmaxRegression, tmp_path: Path) -> None:
    gone = {"loss": np.inf, "accuracy": np.nan}
    records = [*full_batch.history_[:2], full_batch.history_[1] | gone]
    plot_history(with_history(records), tmp_path / "fit.png")
    plot_history(with_history([records[-1]]), tmp_path / "fit.png")


def test_losses_that_span_a_scale_are_drawn_on_a_logarithmic_one(
    full_batch: SoftmaxRegression,
) -> None:
    record = full_batch.history_[0]
    for losses, scale in [((1.0, 0.1), "log"), ((1.0, 0.9), "linear"), ((1.0, 0.0), "linear")]:
        records = [record | {"loss": loss} for loss in losses]
        assert plot_history(with_history(records)).axes[0].get_yscale() == scale


def test_an_empty_history_is_refused() -> None:
    with pytest.raises(DataError, match="history_ is empty"):
        plot_history(with_history([]))


def test_an_unfitted_model_is_refused() -> None:
    with pytest.raises(NotFittedError):
        plot_history(SoftmaxRegression())


def test_other_kinds_of_files_are_refused(full_batch: SoftmaxRegression, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.pdf, \.png or \.svg"):
        plot_history(full_batch, tmp_path / "fit.gif")


def test_without_matplotlib_the_message_says_what_to_install(
    full_batch: SoftmaxRegression, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "find_spec", lambda name: None)
    with pytest.raises(DsoftmaxError, match=r"pip install 'dsoftmax\[plot\]'"):
        plot_history(full_batch)


def test_importing_the_diagnostics_is_light() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.slow
def test_pyplot_and_displays_are_left_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NO_PYPLOT, str(tmp_path / "fit.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
