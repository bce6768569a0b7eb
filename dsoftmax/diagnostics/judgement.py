"""A picture of an evaluation: what is taken for what, and what confidence is worth."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from dsoftmax.diagnostics.axes import head, tidy
from dsoftmax.diagnostics.palette import BLUE, GREY, INK
from dsoftmax.diagnostics.plot import check_plot
from dsoftmax.metrics.scores import EvaluationResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_NAMED = 30  # classes whose names and numbers can be read


def plot_scores(scores: EvaluationResult, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw the confusion matrix and the reliability of an evaluation.

    Parameters
    ----------
    scores : Scores
        What `SoftmaxRegression.evaluate` returned.
    path : path, optional
        Where to save the figure: a .png, .pdf or .svg file.

    Returns
    -------
    matplotlib.figure.Figure
        Not known to pyplot: no window opens, and nothing has to be closed.

    Raises
    ------
    DsoftmaxError
        If matplotlib is not installed.
    DataError
        If the file is of another kind.

    Examples
    --------
    >>> from dsoftmax import SoftmaxRegression
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> figure = plot_scores(SoftmaxRegression().fit(X, y).evaluate(X, y))
    """
    check_plot(path)
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.04)
    figure = Figure(figsize=(11, 5.4), dpi=150, layout=layout)
    grid = figure.add_gridspec(2, 2, width_ratios=[1.15, 1], height_ratios=[3, 1])
    _draw_confusion(figure.add_subplot(grid[:, 0]), scores)
    reliability = figure.add_subplot(grid[0, 1])
    _draw_reliability(reliability, scores)
    _draw_support(figure.add_subplot(grid[1, 1], sharex=reliability), scores)
    figure.suptitle(_summary(scores), x=0.014, ha="left", color=INK, weight="bold")
    if path is not None:
        figure.savefig(path)
    return figure


def _summary(scores: EvaluationResult) -> str:
    return (
        f"{scores['n_samples']:,} rows: accuracy {scores['accuracy']:.4f}, balanced "
        f"{scores['balanced_accuracy']:.4f}, log loss {scores['log_loss']:.4f}"
    )


def _draw_confusion(axes: Axes, scores: EvaluationResult) -> None:
    matrix = scores["confusion_matrix"].astype(float)
    support = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, support, out=np.zeros_like(matrix), where=support > 0)
    # A root brings out the errors, which are few next to the diagonal.
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    head(axes, "confusion", "% of each label's rows")
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("label", color=INK)
    axes.tick_params(color=GREY, labelcolor=INK, labelsize=8)
    axes.spines[:].set_color(GREY)
    if len(matrix) <= _MOST_NAMED:
        _name_classes(axes, scores["per_class"]["label"].tolist(), share)


def _name_classes(axes: Axes, labels: list[Any], share: Any) -> None:
    names = [str(label) for label in labels]
    long = max(map(len, names)) > 3
    axes.set_xticks(
        range(len(names)),
        names,
        rotation=40 if long else 0,
        ha="right" if long else "center",
        rotation_mode="anchor" if long else "default",
    )
    axes.set_yticks(range(len(names)), names)
    size = float(np.clip(130 / len(names), 4, 10))
    for row, column in np.argwhere(share >= 0.0005):
        value = 100 * share[row, column]
        text = f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"
        color = "white" if share[row, column] > 0.35 else INK
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=size)


def _draw_reliability(axes: Axes, scores: EvaluationResult) -> None:
    table = scores["reliability"]
    there = table["support"] > 0
    axes.plot([0, 1], [0, 1], color=GREY, lw=1.2, zorder=1)
    axes.bar(
        table["low"][there],
        table["accuracy"][there],
        (table["high"] - table["low"])[there],
        align="edge",
        color=BLUE,
        alpha=0.25,
        edgecolor="white",
    )
    axes.plot(
        table["confidence"][there],
        table["accuracy"][there],
        "o-",
        color=BLUE,
        ms=4.5,
        lw=1.5,
        clip_on=False,
        zorder=3,
    )
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy", color=INK, fontsize=9)
    head(axes, "reliability", f"calibration error {scores['ece']:.4f}")
    _tidy(axes)
    axes.tick_params(labelbottom=False)


def _draw_support(axes: Axes, scores: EvaluationResult) -> None:
    from matplotlib.ticker import EngFormatter

    table = scores["reliability"]
    axes.bar(
        table["low"],
        table["support"],
        table["high"] - table["low"],
        align="edge",
        color=BLUE,
        edgecolor="white",
    )
    axes.set_ylabel("rows", color=INK, fontsize=9)
    axes.set_xlabel("confidence: probability of the predicted class", color=INK)
    axes.yaxis.set_major_formatter(EngFormatter())
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    tidy(axes)
