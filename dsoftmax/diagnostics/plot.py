"""A picture of a fit, drawn from its history alone."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsoftmax.diagnostics.axes import head, scale, tidy
from dsoftmax.diagnostics.palette import ACTIVITIES, BLUE, GREEN, INK, LABELS, ORANGE, SLATE
from dsoftmax.errors import DataError, DsoftmaxError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Records = Sequence[dict[str, Any]]

_SUFFIXES = (".pdf", ".png", ".svg")
_MANY_PASSES = 60


def check_plot(path: str | os.PathLike[str] | None = None) -> None:
    """Refuse a plot that could not be drawn, or saved at `path`.

    Raises
    ------
    DsoftmaxError
        If matplotlib is not installed.
    DataError
        If the file is not named .pdf, .png or .svg.
    """
    if find_spec("matplotlib") is None:
        raise DsoftmaxError("plots need matplotlib: pip install 'dsoftmax[plot]'")
    if path is not None and Path(path).suffix.lower() not in _SUFFIXES:
        raise DataError(f"cannot plot to {path}; expected a name ending in .pdf, .png or .svg")


def plot_history(model: Any, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw how a fit went: loss and accuracy, speed and where the time went.

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
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    steps = [record for record in history if record["kind"] == "step"]
    passes = [record for record in history if record["kind"] == "pass"]
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.02)
    figure = Figure(figsize=(10, 5.8), dpi=150, layout=layout)
    (loss, rate), (accuracy, times) = figure.subplots(2, 2, sharex=True)
    _draw_course(loss, "loss", steps, passes, BLUE)
    scale(loss, [r["loss"] for r in history if math.isfinite(r["loss"])])
    _draw_course(accuracy, "accuracy", steps, passes, GREEN)
    if passes:
        _draw_rate(rate, passes)
        _draw_times(times, passes)
    else:  # interrupted before it was known what a pass takes
        rate.set_axis_off()
        times.set_axis_off()
    for axes in figure.axes:
        _tidy(axes, last=history[-1]["pass"])
    for axes in (accuracy, times):
        axes.set_xlabel("passes over the data", color=INK)
    figure.suptitle(_summary(history, passes), x=0.014, ha="left", color=INK, weight="bold")
    return figure


def _summary(history: Records, passes: Records) -> str:
    last = history[-1]
    rows = f"{passes[-1]['rows']:,} rows, " if passes else ""
    return f"{rows}{last['pass']:.4g} passes in {last['seconds']:,.1f} s"


def _draw_course(axes: Axes, name: str, steps: Records, passes: Records, color: str) -> None:
    """Draw a quantity after every pass, over what it was at every step."""
    if steps:
        axes.plot(_column(steps, "pass"), _column(steps, name), color=color, alpha=0.45, lw=0.8)
    if passes:
        style = "o" if steps else "o-"
        axes.plot(
            _column(passes, "pass"),
            _column(passes, name),
            style,
            color=color,
            ms=4.5,
            lw=1.5,
            clip_on=False,
            zorder=3,
        )
    last = (passes or steps)[-1][name]
    value = f"{last:.4f} in the last {'pass' if passes else 'step'}"
    judged = [record for record in passes if f"validation_{name}" in record]
    if judged:
        _draw_validation(axes, name, judged)
        best = min(judged, key=lambda record: record["validation_loss"])
        score = best[f"validation_{name}"]
        value += f"; of validation {score:.4f} in pass {best['pass']:.0f}, its best"
    head(axes, name, value)


def _draw_validation(axes: Axes, name: str, judged: Records) -> None:
    axes.plot(
        _column(judged, "pass"),
        _column(judged, f"validation_{name}"),
        "o-",
        color=ORANGE,
        ms=3.5,
        lw=1.5,
        clip_on=False,
        zorder=2,
        label="validation",
    )
    axes.legend(framealpha=1, edgecolor="none", fontsize=8.5, labelcolor=INK)


def _draw_rate(axes: Axes, passes: Records) -> None:
    from matplotlib.ticker import EngFormatter

    rates = [record["rows"] / max(record["pass_seconds"], 1e-9) for record in passes]
    _draw_bars(axes, passes, rates, SLATE)
    axes.yaxis.set_major_formatter(EngFormatter())
    mean = sum(_column(passes, "rows")) / max(sum(_column(passes, "pass_seconds")), 1e-9)
    head(axes, "rows a second", f"{EngFormatter(places=1)(mean)} on average")


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
    head(axes, "seconds a pass", "added up over the workers")


def _draw_bars(
    axes: Axes,
    passes: Records,
    heights: list[float],
    color: str,
    below: list[float] | float = 0.0,
    label: str = "",
) -> None:
    """Draw a bar from the beginning of each pass to its end."""
    starts = [record["pass"] - 1 for record in passes]
    gap = 0.0 if len(passes) > _MANY_PASSES else 1.0
    axes.bar(
        starts,
        heights,
        1.0,
        below,
        align="edge",
        color=color,
        edgecolor="white",
        lw=gap,
        label=label,
    )


def _column(records: Records, name: str) -> list[float]:
    return [record[name] for record in records]


def _tidy(axes: Axes, last: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0, math.ceil(last))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes)
