"""How plots and pages look: colors, labels, time spans, and matplotlib's figures and axes."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsoftmax.errors import DataError, DsoftmaxError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, GREEN, ORANGE, SAND, RED = "#2f6db3", "#2c8a63", "#e5a04b", "#f2d3a6", "#c0392b"
GREY, SLATE, INK = "#d3d8de", "#8793a3", "#3a424d"

ACTIVITIES = {"kernel": BLUE, "decode": ORANGE, "read": SAND, "waiting": GREY}
LABELS = {"kernel": "gradient", "decode": "decode", "read": "read", "waiting": "waiting"}
CYCLE = (BLUE, ORANGE, GREEN, SLATE)  # of lines that differ in l1_ratio

_SUFFIXES = (".pdf", ".png", ".svg")
_LOG_RATIO = 3.0  # largest over smallest, from which on a scale is logarithmic
_DECADES_RATIO = 300.0  # and from which on there is one tick a decade
_MINUTE, _HOUR = 60, 3600


def duration(seconds: float) -> str:
    """Return a time span as a clock shows it.

    Examples
    --------
    >>> duration(7.3), duration(75), duration(3 * 3600 + 62)
    ('7 s', '1:15', '3:01:02')
    """
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}:{whole % _MINUTE:02}"
    return f"{whole // _HOUR}:{whole % _HOUR // _MINUTE:02}:{whole % _MINUTE:02}"


def check_plot(path: str | os.PathLike[str] | None = None) -> None:
    """Refuse a plot that could not be drawn, or not be saved at `path`.

    Raises
    ------
    DsoftmaxError
        If matplotlib is not installed.
    DataError
        If the file is not named .pdf, .png or .svg, or there is no folder for it.
    """
    # find_spec, since an import takes a second, and this is called before a fit.
    if find_spec("matplotlib") is None:
        raise DsoftmaxError("plots need matplotlib: pip install 'dsoftmax[plot]'")
    if path is not None and Path(path).suffix.lower() not in _SUFFIXES:
        raise DataError(f"cannot plot to {path}; expected a name ending in .pdf, .png or .svg")
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise DataError(f"{Path(path).absolute().parent} is no folder to draw {path} in")


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """Return an empty figure of so many inches that pyplot does not know."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # Not by pyplot, which would keep every figure in memory until it is closed.
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(width, height), dpi=150, layout=layout)
    if title:
        figure.suptitle(title, x=0.014, ha="left", color=INK, weight="bold")
    return figure


def set_titles(axes: Axes, name: str, value: str) -> None:
    """Write above the axes what they show, on the left, and its main figure, on the right."""
    axes.set_title(name, loc="left", fontsize=10, color=INK, weight="bold")
    axes.set_title(value, loc="right", fontsize=9, color=INK)


def draw_dots(
    axes: Axes,
    x: Any,
    y: Any,
    color: str,
    *,
    style: str = "o-",
    size: float = 4.5,
    zorder: int = 3,
    label: str | None = None,
) -> None:
    """Draw dots that are not cut off at the frame, and with "o-" a line through them."""
    axes.plot(x, y, style, color=color, ms=size, lw=1.5, clip_on=False, zorder=zorder, label=label)


def add_legend(axes: Axes) -> None:
    """Add a legend without a frame."""
    axes.legend(framealpha=1, edgecolor="none", fontsize=8.5, labelcolor=INK)


def style_axes(axes: Axes) -> None:
    """Leave two sides of the frame, and horizontal grid lines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(GREY)
    axes.tick_params(color=GREY, labelcolor=INK, labelsize=9)
    axes.grid(axis="y", color=GREY, lw=0.6, alpha=0.7)
    axes.set_axisbelow(True)


def log_scale_if_wide(axes: Axes, values: list[float]) -> None:
    """Use a logarithmic y axis for positive values that differ by a factor of three or more."""
    from matplotlib.ticker import LogLocator, NullLocator

    if not values or not 0 < min(values) < max(values) / _LOG_RATIO:
        return
    axes.set_yscale("log")
    within_decades = max(values) / min(values) < _DECADES_RATIO
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if within_decades else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
