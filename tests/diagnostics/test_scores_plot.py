from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsoftmax import DataError, SoftmaxRegression
from dsoftmax.diagnostics import plot_scores
from dsoftmax.metrics.scores import EvaluationResult

pytest.importorskip("matplotlib")


def scores_for(n_classes: int) -> EvaluationResult:
    rng = np.random.default_rng(0)
    y = np.arange(40 * n_classes) % n_classes
    X = rng.normal(size=(len(y), 4)) + rng.normal(size=(n_classes, 4))[y]
    names = np.array([f"class {i:02}" for i in range(n_classes)])
    return SoftmaxRegression(tol=0.1).fit(X, names[y]).evaluate(X, names[y])


@pytest.mark.parametrize("n_classes", [2, 10, 60])
def test_the_picture_shows_the_shares_and_the_reliability(n_classes: int, tmp_path: Path) -> None:
    scores = scores_for(n_classes)
    figure = plot_scores(scores, tmp_path / "scores.png")
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
    confusion, reliability, support = figure.axes
    (image,) = confusion.images
    share = np.asarray(image.get_array()) ** 2
    np.testing.assert_allclose(share.sum(axis=1), 1)
    np.testing.assert_allclose(share.diagonal(), scores["per_class"]["recall"])
    named = [label.get_text() for label in confusion.get_yticklabels()]
    assert ("class 01" in named) == (n_classes <= 30)
    (curve,) = (line for line in reliability.lines if line.get_marker() == "o")
    there = scores["reliability"]["support"] > 0
    np.testing.assert_array_equal(curve.get_ydata(), scores["reliability"]["accuracy"][there])
    assert sum(bar.get_height() for bar in support.patches) == 40 * n_classes


def test_other_kinds_of_files_are_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ending in \.pdf, \.png or \.svg"):
        plot_scores(scores_for(2), tmp_path / "scores.gif")
