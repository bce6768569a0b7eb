"""`plot_history`: loss, accuracy, speed and time of a fit, from its history alone."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dsoftmax.diagnostics.style import (
    ACTIVITIES,
    BLUE,
    GREEN,
    INK,
    LABELS,
    ORANGE,
    SLATE,
    add_legend,
    check_plot,
    draw_dots,
    log_scale_if_wide,
    new_figure,
    set_titles,
    style_axes,
)
from dsoftmax.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Records = Sequence[dict[str, Any]]

_MANY_PASSES = 60  # beyond which bars have no gaps between them


def plot_history(model: Any, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw how a fit went: loss, accuracy, speed, and where the time went.

    Parameters
    ----------
    model : SoftmaxRegression or SoftmaxRegressionCV
        Fitted; only its `history_` is used.
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
        If the file is of another kind, or the history is empty.
    NotFittedError
        If the model is not fitted.

    Examples
    --------
    >>> from dsoftmax import SoftmaxRegression
    >>> from sklearn.datasets import load_iris
    >>> figure = plot_history(SoftmaxRegression().fit(*load_iris(return_X_y=True)))
    """
    from sklearn.utils.validation import check_is_fitted

    check_plot(path)
    check_is_fitted(model, "history_")
    if not model.history_:
        raise DataError("history_ is empty; expected a record for each step and pass: fit first")
    figure = _draw(model.history_)
    if path is not None:
        figure.savefig(path)
    return figure


def _draw(history: Records) -> Figure:
    steps = [record for record in history if record["kind"] == "step"]
    passes = [record for record in history if record["kind"] == "pass"]
    figure = new_figure(10, 5.8, _summary(history, passes))
    (loss, rate), (accuracy, times) = figure.subplots(2, 2, sharex=True)
    _draw_values(loss, "loss", steps, passes, BLUE)
    log_scale_if_wide(loss, [r["loss"] for r in history if math.isfinite(r["loss"])])
    _draw_values(accuracy, "accuracy", steps, passes, GREEN)
    if passes:
        _draw_rate(rate, passes)
        _draw_times(times, passes)
    else:  # the fit was interrupted before the end of its first pass
        rate.set_axis_off()
        times.set_axis_off()
    for axes in figure.axes:
        _style_passes(axes, last=history[-1]["pass"])
    for axes in (accuracy, times):
        axes.set_xlabel("passes over the data", color=INK)
    return figure


def _summary(history: Records, passes: Records) -> str:
    last = history[-1]
    rows = f"{passes[-1]['rows']:,} rows, " if passes else ""
    return f"{rows}{last['pass']:.4g} passes in {last['seconds']:,.1f} s"


def _draw_values(axes: Axes, name: str, steps: Records, passes: Records, color: str) -> None:
    """Draw a quantity at the end of every pass, on top of its values at the steps."""
    if steps:
        axes.plot(_column(steps, "pass"), _column(steps, name), color=color, alpha=0.45, lw=0.8)
    if passes:
        style = "o" if steps else "o-"
        draw_dots(axes, _column(passes, "pass"), _column(passes, name), color, style=style)
    last = (passes or steps)[-1][name]
    value = f"{last:.4f} in the last {'pass' if passes else 'step'}"
    validated = [record for record in passes if f"validation_{name}" in record]
    if validated:
        _draw_validation(axes, name, validated)
        best = min(validated, key=lambda record: record["validation_loss"])
        score = best[f"validation_{name}"]
        value = f"{last:.4f}; validation {score:.4f} in pass {best['pass']:.0f}, its best"
    set_titles(axes, name, value)


def _draw_validation(axes: Axes, name: str, passes: Records) -> None:
    x, y = _column(passes, "pass"), _column(passes, f"validation_{name}")
    draw_dots(axes, x, y, ORANGE, size=3.5, zorder=2, label="validation")
    add_legend(axes)


def _draw_rate(axes: Axes, passes: Records) -> None:
    from matplotlib.ticker import EngFormatter

    rates = [record["rows"] / max(record["pass_seconds"], 1e-9) for record in passes]
    _draw_bars(axes, passes, rates, SLATE)
    axes.yaxis.set_major_formatter(EngFormatter())
    mean = sum(_column(passes, "rows")) / max(sum(_column(passes, "pass_seconds")), 1e-9)
    set_titles(axes, "rows a second", f"{EngFormatter(places=1)(mean)} on average")


def _draw_times(axes: Axes, passes: Records) -> None:
    total = sum(sum(_column(passes, f"{name}_seconds")) for name in ACTIVITIES)
    below = [0.0] * len(passes)
    for name, color in ACTIVITIES.items():
        seconds = _column(passes, f"{name}_seconds")
        share = sum(seconds) / max(total, 1e-9)
        _draw_bars(axes, passes, seconds, color, below, f"{LABELS[name]} {share:.0%}")
        below = [low + height for low, height in zip(below, seconds, strict=True)]
    axes.set_ylim(0, 1.22 * max(below))  # leaves room for the legend
    axes.legend(
        loc="upper left",
        ncols=4,
        framealpha=1,
        edgecolor="none",
        fontsize=8.5,
        labelcolor=INK,
        handlelength=1.0,
        columnspacing=1.1,
        borderaxespad=0.2,
    )
    set_titles(axes, "seconds a pass", "added up over the workers")


def _draw_bars(
    axes: Axes,
    passes: Records,
    heights: list[float],
    color: str,
    below: list[float] | float = 0.0,
    label: str = "",
) -> None:
    """Draw a bar as wide as each pass."""
    starts = [record["pass"] - 1 for record in passes]
    gap = 0.0 if len(passes) > _MANY_PASSES else 1.0
    look: dict[str, Any] = {"align": "edge", "color": color, "edgecolor": "white", "lw": gap}
    axes.bar(starts, heights, 1.0, below, label=label, **look)


def _column(records: Records, name: str) -> list[float]:
    return [record[name] for record in records]


def _style_passes(axes: Axes, last: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0, math.ceil(last))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style_axes(axes)
