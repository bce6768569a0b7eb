"""How the axes of all pictures look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsoftmax.diagnostics.palette import GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOG_FROM = 3.0  # largest over smallest, from which on a scale is logarithmic
_MANY_FROM = 300.0  # and from which on there is one tick a decade


def head(axes: Axes, name: str, value: str) -> None:
    """Write above the axes what is drawn, and what is to be remembered of it."""
    axes.set_title(name, loc="left", fontsize=10, color=INK, weight="bold")
    axes.set_title(value, loc="right", fontsize=9, color=INK)


def tidy(axes: Axes) -> None:
    """Leave two sides of the frame, and lines across."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(GREY)
    axes.tick_params(color=GREY, labelcolor=INK, labelsize=9)
    axes.grid(axis="y", color=GREY, lw=0.6, alpha=0.7)
    axes.set_axisbelow(True)


def scale(axes: Axes, values: list[float]) -> None:
    """Use a logarithmic scale for numbers that span one."""
    from matplotlib.ticker import LogLocator, NullLocator

    if not values or not 0 < min(values) < max(values) / _LOG_FROM:
        return
    axes.set_yscale("log")
    few = max(values) / min(values) < _MANY_FROM
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
