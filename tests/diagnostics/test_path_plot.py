from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError

from dsoftmax import SoftmaxRegressionCV
from dsoftmax.diagnostics import plot_history, style
from dsoftmax.errors import DsoftmaxError

ALPHAS = [1e-4, 1e-2, 1.0]


def fitted(**params: Any) -> SoftmaxRegressionCV:
    X, y = load_iris(return_X_y=True)
    given: dict[str, Any] = {"alphas": ALPHAS, "cv": 3, "random_state": 0, "tol": 1e-3} | params
    return SoftmaxRegressionCV(**given).fit(X, y)


@pytest.fixture(scope="module")
def model() -> SoftmaxRegressionCV:
    return fitted(l1_ratios=[0.0, 0.5], select="1se")


def test_each_share_of_the_l1_penalty_is_a_line_with_standard_errors(
    model: SoftmaxRegressionCV,
) -> None:
    upper, _ = model.plot_path().axes
    losses = -model.scores_
    for index, drawn in enumerate(upper.containers):
        line, _, (bars,) = drawn.lines
        assert line.get_xdata().tolist() == model.alphas_.tolist()
        assert np.allclose(line.get_ydata(), losses[:, index].mean(axis=0))
        lengths = [np.ptp(segment[:, 1]) for segment in bars.get_segments()]
        errors = losses[:, index].std(axis=0, ddof=1) / np.sqrt(3)
        assert np.allclose(lengths, 2 * errors)
    assert index == 1
    labels = [text.get_text() for text in upper.get_legend().get_texts()]
    assert labels[-2:] == ["l1_ratio 0", "l1_ratio 0.5"]


def test_the_best_and_the_choice_of_one_standard_error_are_marked(
    model: SoftmaxRegressionCV,
) -> None:
    upper, _ = model.plot_path().axes
    marks = {line.get_label(): line.get_xdata()[0] for line in upper.lines if len(line.get_xdata())}
    means = model.scores_.mean(axis=0)
    ratio, index = np.unravel_index(means.argmax(), means.shape)
    best, simpler = model.alphas_[index], model.alpha_
    assert marks[f"best: {best:.3g}"] == best
    assert marks[f"one standard error: {simpler:.3g}"] == simpler
    where = means[ratio, model.alphas_.tolist().index(simpler)]
    assert f"chosen: {-where:.4f} at alpha {simpler:.3g}" in upper.get_title(loc="right")


def test_below_are_the_norms_of_the_coefficients(model: SoftmaxRegressionCV) -> None:
    _, lower = model.plot_path().axes
    for index, line in enumerate(lower.lines):
        norms = [
            np.mean([np.linalg.norm(fold[index, i, :, :-1]) for fold in model.coefs_paths_])
            for i in range(3)
        ]
        assert np.allclose(line.get_ydata(), norms)


def test_candidates_that_were_not_followed_to_their_minima_are_hollow() -> None:
    model = fitted(alphas=[1e-2, 1e3])
    dots = [line for line in model.plot_path().axes[0].lines if line.get_marker() == "o"]
    hollow = [line for line in dots if line.get_markerfacecolor() == "white"]
    ended = model.converged_[:, 0].all(axis=0)
    assert not ended.all()
    assert np.concatenate([line.get_xdata() for line in hollow]).tolist() == (
        model.alphas_[~ended].tolist()
    )


@pytest.mark.parametrize(
    ("params", "scale"),
    [
        ({"alphas": [0.0, 1e-2]}, "symlog"),
        ({"alphas": [0.0]}, "linear"),
        ({"scoring": "accuracy"}, "log"),
        ({"alphas": 1}, "log"),
        ({"l1_ratios": [1.0], "alphas": [1e3, 1e-2]}, "log"),  # all coefficients zero
    ],
    ids=str,
)
def test_every_path_is_drawn(params: dict[str, Any], scale: str, tmp_path: Path) -> None:
    figure = fitted(**params).plot_path()
    figure.savefig(tmp_path / "path.png")
    assert [axes.get_xscale() for axes in figure.axes] == [scale] * 2
    name = "accuracy" if params.get("scoring") else "loss"
    assert figure.axes[0].get_title(loc="left") == f"held-out {name}"


def test_a_path_that_other_rows_have_judged_has_no_standard_error() -> None:
    X, y = load_iris(return_X_y=True)
    model = SoftmaxRegressionCV(ALPHAS, cv=None, random_state=0)
    upper, _ = model.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2]).plot_path().axes
    labels = [text.get_text() for text in upper.get_legend().get_texts()]
    assert labels == [f"best: {model.alpha_:.3g}"]


def test_it_is_drawn_where_the_user_says(model: SoftmaxRegressionCV) -> None:
    figure = Figure()
    both = figure.subplots(2)
    assert model.plot_path(both) is figure
    assert [len(axes.lines) > 0 for axes in both] == [True, True]
    alone = Figure().subplots()
    assert len(model.plot_path(alone).axes) == 1
    assert alone.get_xlabel() == "alpha"


def test_the_history_of_a_search_is_drawn_too(model: SoftmaxRegressionCV, tmp_path: Path) -> None:
    plot_history(model, tmp_path / "history.png")
    assert (tmp_path / "history.png").stat().st_size > 10_000


def test_without_a_fit_or_matplotlib_it_is_refused(
    model: SoftmaxRegressionCV, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFittedError):
        SoftmaxRegressionCV().plot_path()
    monkeypatch.setattr(style, "find_spec", lambda name: None)
    with pytest.raises(DsoftmaxError, match=r"pip install 'dsoftmax\[plot\]'"):
        model.plot_path()
