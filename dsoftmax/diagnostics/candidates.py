"""The candidates of a search on the page: a chart of their held-out losses, and what fills it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, HoverTool
from bokeh.models.plots import Plot
from bokeh.plotting import figure

from dsoftmax.diagnostics.charts import TOOLS, styled
from dsoftmax.diagnostics.messages import Message
from dsoftmax.diagnostics.palette import BLUE, GREEN, GREY, INK, ORANGE, SLATE

COLUMNS = {
    "candidates": (
        "position",
        "loss",
        "low",
        "high",
        "color",
        "alpha",
        "l1_ratio",
        "error",
        "accuracy",
        "running",
    ),
    "paths": ("position", "loss", "color", "name"),
    "best": ("position", "loss"),
}
_COLORS = (BLUE, ORANGE, GREEN, SLATE)


def chart(sources: Mapping[str, ColumnDataSource]) -> Plot:
    """Return the chart: a line for each share of the L1 penalty, grey where it is ruled out."""
    plot = figure(
        name="candidates",
        title="Held-out loss of the candidates",
        x_axis_label="alpha",
        x_axis_type="log",
        tools=TOOLS,
    )
    lines = plot.multi_line(
        "position", "loss", source=sources["paths"], color="color", line_width=1.5, alpha=0.6
    )
    source = sources["candidates"]
    plot.segment(
        "position", "low", "position", "high", source=source, color="color", line_width=1.5
    )
    dots = plot.scatter("position", "loss", source=source, color="color", size=7)
    plot.scatter(
        "position",
        "loss",
        source=sources["best"],
        size=16,
        fill_color=None,
        line_color=INK,
        line_width=2,
    )
    tips = [
        ("alpha", "@alpha{0.000e+0}"),
        ("l1_ratio", "@l1_ratio"),
        ("held-out loss", "@loss{0.000000} +- @error{0.000000}"),
        ("held-out accuracy", "@accuracy{0.0000}"),
        ("models that go on", "@running"),
    ]
    plot.add_tools(
        HoverTool(renderers=[dots], tooltips=tips),
        HoverTool(renderers=[lines], tooltips=[("share of the L1 penalty", "@name")]),
    )
    return styled(plot)


def columns_of(message: Message) -> dict[str, dict[str, Any]]:
    """Return what the chart is to show of a message of the kind "candidates", by the source."""
    alphas, ratios = np.array(message["alphas"]), np.array(message["l1_ratios"])
    loss, error = (np.array(message[name], np.float64) for name in ("losses", "errors"))
    position, known = _positions(alphas), sorted(set(ratios.tolist()))
    color_of = dict(zip(known, cycle(_COLORS), strict=False))
    colors = [
        GREY if lost else color_of[ratio]
        for lost, ratio in zip(message["ruled_out"], ratios.tolist(), strict=True)
    ]
    own = [ratios == ratio for ratio in known]
    best = slice(message["best"], message["best"] + 1)
    return {
        "candidates": {
            "position": position,
            "loss": loss,
            "low": loss - error,
            "high": loss + error,
            "color": colors,
            "alpha": alphas,
            "l1_ratio": ratios,
            "error": error,
            "accuracy": np.array(message["accuracies"], np.float64),
            "running": np.array(message["running"]),
        },
        "paths": {
            "position": [position[those].tolist() for those in own],
            "loss": [loss[those].tolist() for those in own],
            "color": [color_of[ratio] for ratio in known],
            "name": [f"{ratio:g}" for ratio in known],
        },
        "best": {"position": position[best], "loss": loss[best]},
    }


def _positions(alphas: Any) -> Any:
    """Return where the alphas are on a logarithmic axis: zero a decade below the others."""
    positive = alphas[alphas > 0]
    least = positive.min() / 10 if len(positive) else 1.0
    return np.where(alphas > 0, alphas, least)
