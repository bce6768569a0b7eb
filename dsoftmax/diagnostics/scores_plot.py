"""`plot_scores`: the confusion matrix and the calibration of an evaluated model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from dsoftmax.diagnostics.style import (
    BLUE,
    GREY,
    INK,
    check_plot,
    draw_dots,
    new_figure,
    set_titles,
    style_axes,
)
from dsoftmax.metrics.scores import EvaluationResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_NAMED = 30  # classes whose names and numbers are still legible


def plot_scores(scores: EvaluationResult, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw the confusion matrix and the reliability of an evaluation.

    Parameters
    ----------
    scores : EvaluationResult
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
    figure = new_figure(11, 5.4, _summary(scores))
    grid = figure.add_gridspec(2, 2, width_ratios=[1.15, 1], height_ratios=[3, 1])
    _draw_confusion(figure.add_subplot(grid[:, 0]), scores)
    reliability = figure.add_subplot(grid[0, 1])
    _draw_reliability(reliability, scores)
    _draw_support(figure.add_subplot(grid[1, 1], sharex=reliability), scores)
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
    # The square root brings out the errors, which are few next to the diagonal.
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    set_titles(axes, "confusion", "% of each label's rows")
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("label", color=INK)
    axes.tick_params(color=GREY, labelcolor=INK, labelsize=8)
    axes.spines[:].set_color(GREY)
    if len(matrix) <= _MAX_NAMED:
        _label_cells(axes, scores["per_class"]["label"].tolist(), share)


def _label_cells(axes: Axes, labels: list[Any], share: Any) -> None:
    """Write the names of the classes at the axes, and percentages into the cells."""
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
    bins = {name: column[table["support"] > 0] for name, column in table.items()}
    axes.plot([0, 1], [0, 1], color=GREY, lw=1.2, zorder=1)  # perfect calibration
    _draw_bins(axes, bins, bins["accuracy"], alpha=0.25)
    draw_dots(axes, bins["confidence"], bins["accuracy"], BLUE)
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy", color=INK, fontsize=9)
    set_titles(axes, "reliability", f"calibration error {scores['ece']:.4f}")
    axes.tick_params(labelbottom=False)


def _draw_support(axes: Axes, scores: EvaluationResult) -> None:
    from matplotlib.ticker import EngFormatter

    bins = scores["reliability"]
    _draw_bins(axes, bins, bins["support"])
    axes.set_ylabel("rows", color=INK, fontsize=9)
    axes.set_xlabel("confidence: probability of the predicted class", color=INK)
    axes.yaxis.set_major_formatter(EngFormatter())


def _draw_bins(axes: Axes, bins: Any, heights: Any, alpha: float = 1.0) -> None:
    """Draw a bar for each bin of the confidence."""
    widths = bins["high"] - bins["low"]
    axes.bar(bins["low"], heights, widths, align="edge", color=BLUE, alpha=alpha, edgecolor="white")
    axes.set_xlim(0, 1)
    style_axes(axes)
