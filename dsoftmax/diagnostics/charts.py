"""The charts of the page, without data: Bokeh's column data sources fill them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    CustomJSTickFormatter,
    DataRange1d,
    FactorRange,
    HoverTool,
    Legend,
    LegendItem,
    LinearAxis,
    NumeralTickFormatter,
    Range1d,
)
from bokeh.plotting import figure

from dsoftmax.diagnostics.style import ACTIVITIES, BLUE, GREEN, GREY, INK, LABELS, ORANGE, SLATE

JOINED = "joined"  # the line from pass to pass; hidden for mini-batches, which have a line of steps
VALIDATION = "validation_loss"

_PASSES = "passes over the data"
_TOOLS = "xpan,xwheel_zoom,box_zoom,reset"
# Bokeh's own formatter writes m for a million, which reads as a thousandth.
_SHORT = """
    for (const [unit, sign] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]])
        if (tick >= unit) return Number((tick / unit).toPrecision(3)) + sign
    return tick
"""
_LEGEND: dict[str, Any] = {
    "orientation": "horizontal",
    "background_fill_alpha": 0,
    "border_line_color": None,
    "padding": 0,
    "margin": 2,
    "spacing": 12,
    "glyph_width": 12,
    "glyph_height": 12,
    "label_text_font_size": "11px",
    "label_standoff": 4,
}

Figure = Any  # bokeh.plotting.figure, which has no types for mypy
Sources = Mapping[str, ColumnDataSource]
Tips = list[tuple[str, str]]


def build(sources: Sources) -> dict[str, Figure]:
    """Return the charts by name."""
    loss = _values(sources, "loss", "Loss", BLUE, "0.000000")
    _add_validation(loss, sources["passes"])
    plots = {
        "loss": loss,
        "gradient_norm": _values(sources, "gradient_norm", "Gradient norm", GREEN, "0.00e+0"),
        "candidates": _candidates(sources),
        "rate": _rate(sources["samples"]),
        "time": _time(sources["samples"]),
        "memory": _memory(sources["memory"]),
    }
    for plot in plots.values():
        _style(plot)
    return plots


def _style(plot: Figure) -> None:
    """Have a plot fill its place, and look like the others."""
    plot.update(
        sizing_mode="stretch_both",
        min_border_right=14,
        toolbar_location="above",
        outline_line_color=None,
    )
    plot.title.text_color = INK
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.minor_tick_line_color = None
    plot.grid.grid_line_color = "#eeeeee"
    plot.toolbar.autohide = True


def _add_tips(plot: Figure, glyphs: Any, tips: Tips) -> None:
    plot.add_tools(HoverTool(renderers=[glyphs], tooltips=tips))


def _values(sources: Sources, name: str, title: str, color: str, digits: str) -> Figure:
    """Draw a quantity after every pass, on top of its steps and of the other runs."""
    scale = "log" if name == "gradient_norm" else "linear"
    plot = figure(name=name, title=title, x_axis_label=_PASSES, tools=_TOOLS, y_axis_type=scale)
    others = plot.multi_line(
        "pass", name, source=sources["others"], color=SLATE, alpha=0.45, line_width=1.5
    )
    plot.line("pass", name, source=sources["steps"], color=color, alpha=0.45)
    plot.line("pass", name, source=sources["passes"], color=color, line_width=2, name=JOINED)
    dots = plot.scatter("pass", name, source=sources["passes"], color=color, size=6)
    tips = [("pass", "@pass{0.##}"), (title.lower(), f"@{name}{{{digits}}}")]
    _add_tips(plot, dots, tips)
    _add_tips(plot, others, [("run", "@title")])
    return plot


def _add_validation(plot: Figure, source: ColumnDataSource) -> None:
    """Add the validation loss, and a legend that is visible once there is one."""
    line = plot.line("pass", VALIDATION, source=source, color=ORANGE, line_width=2)
    dots = plot.scatter("pass", VALIDATION, source=source, color=ORANGE, size=6)
    tips = [("pass", "@pass{0.##}"), ("validation loss", f"@{VALIDATION}{{0.000000}}")]
    _add_tips(plot, dots, tips)
    items = [
        LegendItem(label="training", renderers=[plot.select_one({"name": JOINED})]),
        LegendItem(label="validation", renderers=[line]),
    ]
    plot.add_layout(Legend(items=items, visible=False, **_LEGEND), "above")


def _candidates(sources: Sources) -> Figure:
    """Draw a line of held-out losses for each l1_ratio, grey where a candidate is ruled out."""
    plot = figure(
        name="candidates",
        title="Held-out loss of the candidates",
        x_axis_label="alpha",
        x_axis_type="log",
        tools=_TOOLS,
    )
    lines = plot.multi_line(
        "position", "loss", source=sources["paths"], color="color", line_width=1.5, alpha=0.6
    )
    source = sources["candidates"]
    plot.segment(
        "position", "low", "position", "high", source=source, color="color", line_width=1.5
    )
    dots = plot.scatter("position", "loss", source=source, color="color", size=7)
    ring = {"size": 16, "fill_color": None, "line_color": INK, "line_width": 2}
    plot.scatter("position", "loss", source=sources["best"], **ring)
    tips = [
        ("alpha", "@alpha{0.000e+0}"),
        ("l1_ratio", "@l1_ratio"),
        ("held-out loss", "@loss{0.000000} +- @error{0.000000}"),
        ("held-out accuracy", "@accuracy{0.0000}"),
        ("models that go on", "@running"),
    ]
    _add_tips(plot, dots, tips)
    _add_tips(plot, lines, [("share of the L1 penalty", "@name")])
    return plot


def _sample_figure(name: str, title: str, top: float) -> Figure:
    """Return a plot for the samples of a run, whose x axis starts at the first pass."""
    x_range = DataRange1d(start=0, range_padding=0)
    return figure(
        name=name,
        title=title,
        x_axis_label=_PASSES,
        tools=_TOOLS,
        y_range=Range1d(0, top),
        x_range=x_range,
    )


def _rate(source: ColumnDataSource) -> Figure:
    """Draw rows per second, and on the right axis their decoded bytes."""
    plot = _sample_figure("rate", "Rows a second", 1)
    plot.extra_y_ranges = {"megabytes": Range1d(0, 1)}
    axis = LinearAxis(
        y_range_name="megabytes",
        axis_label="MB/s decoded",
        formatter=NumeralTickFormatter(format="0,0.[0]"),
        ticker=BasicTicker(desired_num_ticks=5),
    )
    plot.add_layout(axis, "right")
    bars = plot.quad(
        left="left",
        right="right",
        bottom=0,
        top="rows",
        source=source,
        color=SLATE,
        line_color="white",
        line_width=0.5,
    )
    plot.yaxis[0].formatter = CustomJSTickFormatter(code=_SHORT)
    tips = [("until pass", "@right{0.00}"), ("rows/s", "@rows{0,0}"), ("MB/s", "@megabytes{0,0.0}")]
    _add_tips(plot, bars, tips)
    return plot


def scale_rates(plot: Figure, source: ColumnDataSource, row_bytes: float) -> None:
    """Set the ranges of both axes of the rates, so that each bar is right on either axis."""
    top = 1.1 * max(source.data["rows"], default=0) or 1.0
    plot.y_range.end = top
    plot.extra_y_ranges["megabytes"].end = top * row_bytes / 1e6 or 1.0


def _time(source: ColumnDataSource) -> Figure:
    """Draw the shares of the workers' time, on top of one another."""
    plot = _sample_figure("time", "Time of the workers", 1.18)  # with room for the legend
    for name, color in ACTIVITIES.items():
        bars = plot.quad(
            left="left",
            right="right",
            bottom=f"{name}_bottom",
            top=name,
            source=source,
            color=color,
            line_color=color,
            line_width=0.3,
            legend_label=LABELS[name],
        )
        tips = [("until pass", "@right{0.00}"), (LABELS[name], f"@{name}_share{{0%}}")]
        _add_tips(plot, bars, tips)
    plot.yaxis.formatter = NumeralTickFormatter(format="0%")
    plot.yaxis.ticker = [0, 0.25, 0.5, 0.75, 1]
    plot.legend[0].update(location="top_left", **_LEGEND)
    return plot


def _memory(source: ColumnDataSource) -> Figure:
    """Draw the memory of each worker in front of its limit."""
    plot = figure(
        name="memory",
        title="Memory of the workers, and their limits",
        tools="",
        y_range=FactorRange(),
        x_range=DataRange1d(start=0, range_padding=0),
    )
    plot.hbar("worker", right="limit", height=0.5, source=source, color=GREY)
    bars = plot.hbar("worker", right="used", height=0.5, source=source, color="color")
    plot.xaxis.formatter = NumeralTickFormatter(format="0 ib")
    plot.xaxis.ticker = BasicTicker(
        base=1024, mantissas=[1, 2, 4, 8, 16, 32, 64, 128, 256, 512], desired_num_ticks=4
    )
    plot.ygrid.visible = False
    tips = [("worker", "@worker"), ("uses", "@used{0.0 ib}"), ("of", "@limit{0.0 ib}")]
    _add_tips(plot, bars, tips)
    return plot


def set_workers(plot: Figure, source: ColumnDataSource) -> None:
    """Give each worker a line, the fullest first."""
    names = list(reversed(source.data["worker"]))
    if plot.y_range.factors != names:
        plot.y_range.factors = names
