"""The charts of the page, empty: what fills them are Bokeh's column data sources."""

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
from bokeh.models.plots import Plot
from bokeh.plotting import figure

from dsoftmax.diagnostics.palette import ACTIVITIES, BLUE, GREEN, GREY, INK, LABELS, ORANGE, SLATE

COLUMNS = {
    "steps": ("pass", "loss", "gradient_norm", "accuracy"),
    "passes": ("pass", "loss", "gradient_norm", "accuracy", "validation_loss"),
    "others": ("pass", "loss", "gradient_norm", "title"),
    "samples": (
        "left",
        "right",
        "rows",
        "megabytes",
        *(f"{name}{part}" for name in ACTIVITIES for part in ("", "_bottom", "_share")),
    ),
    "memory": ("worker", "used", "limit", "color"),
}
JOINED = "joined"  # the line from pass to pass; those of mini-batches are dots over their steps
_PASSES = "passes over the data"
_SHORT = """
    for (const [unit, sign] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]])
        if (tick >= unit) return Number((tick / unit).toPrecision(3)) + sign
    return tick
"""  # of large numbers; Bokeh's own formatter writes m for a million
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
VALIDATION = "validation_loss"
TOOLS = "xpan,xwheel_zoom,box_zoom,reset"

Sources = Mapping[str, ColumnDataSource]


def build(sources: Sources) -> dict[str, Plot]:
    """Return the charts by name, each a root of the document."""
    return {
        "loss": _with_validation(_course(sources, "loss", "Loss", BLUE), sources["passes"]),
        "gradient_norm": _course(sources, "gradient_norm", "Gradient norm", GREEN, log=True),
        "rate": _rate(sources["samples"]),
        "time": _time(sources["samples"]),
        "memory": _memory(sources["memory"]),
    }


def styled(plot: Any) -> Plot:
    """Have a figure fill its place, and look like the others."""
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
    done: Plot = plot
    return done


def _course(sources: Sources, name: str, title: str, color: str, *, log: bool = False) -> Plot:
    """Draw a quantity after every pass, over its steps and the other runs."""
    scale = "log" if log else "linear"
    plot = figure(name=name, title=title, x_axis_label=_PASSES, tools=TOOLS, y_axis_type=scale)
    other = plot.multi_line(
        "pass", name, source=sources["others"], color=SLATE, alpha=0.45, line_width=1.5
    )
    plot.line("pass", name, source=sources["steps"], color=color, alpha=0.45)
    plot.line("pass", name, source=sources["passes"], color=color, line_width=2, name=JOINED)
    dots = plot.scatter("pass", name, source=sources["passes"], color=color, size=6)
    value = f"@{name}{{0.000000}}" if not log else f"@{name}{{0.00e+0}}"
    plot.add_tools(
        HoverTool(renderers=[dots], tooltips=[("pass", "@pass{0.##}"), (title.lower(), value)]),
        HoverTool(renderers=[other], tooltips=[("run", "@title")]),
    )
    return styled(plot)


def _with_validation(plot: Any, source: ColumnDataSource) -> Plot:
    """Add the loss of validation rows, and a legend that is shown once there is one."""
    line = plot.line("pass", VALIDATION, source=source, color=ORANGE, line_width=2)
    dots = plot.scatter("pass", VALIDATION, source=source, color=ORANGE, size=6)
    tips = [("pass", "@pass{0.##}"), ("validation loss", f"@{VALIDATION}{{0.000000}}")]
    plot.add_tools(HoverTool(renderers=[dots], tooltips=tips))
    joined = plot.select_one({"name": JOINED})
    items = [
        LegendItem(label="training", renderers=[joined]),
        LegendItem(label="validation", renderers=[line]),
    ]
    plot.add_layout(Legend(items=items, visible=False, **_LEGEND), "above")
    done: Plot = plot
    return done


def _rate(source: ColumnDataSource) -> Plot:
    """Draw rows a second, and on the right axis what they are in decoded bytes."""
    plot = figure(
        name="rate",
        title="Rows a second",
        x_axis_label=_PASSES,
        tools=TOOLS,
        y_range=Range1d(0, 1),
        x_range=DataRange1d(start=0, range_padding=0),
    )
    plot.extra_y_ranges = {"megabytes": Range1d(0, 1)}
    plot.add_layout(
        LinearAxis(
            y_range_name="megabytes",
            axis_label="MB/s decoded",
            minor_tick_line_color=None,
            axis_label_text_font_style="normal",
            formatter=NumeralTickFormatter(format="0,0.[0]"),
            ticker=BasicTicker(desired_num_ticks=5),
        ),
        "right",
    )
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
    plot.add_tools(HoverTool(renderers=[bars], tooltips=tips))
    return styled(plot)


def scale_rates(plot: Plot, source: ColumnDataSource, row_bytes: float) -> None:
    """Set both axes of the rates, so that one bar is right on either."""
    top = 1.1 * max(source.data["rows"], default=0) or 1.0
    plot.y_range.end = top
    plot.extra_y_ranges["megabytes"].end = top * row_bytes / 1e6 or 1.0


def _time(source: ColumnDataSource) -> Plot:
    """Draw the shares of the workers' time, on top of one another."""
    plot = figure(
        name="time",
        title="Time of the workers",
        x_axis_label=_PASSES,
        tools=TOOLS,
        y_range=Range1d(0, 1.18),
        x_range=DataRange1d(start=0, range_padding=0),
    )
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
        plot.add_tools(HoverTool(renderers=[bars], tooltips=tips))
    plot.yaxis.formatter = NumeralTickFormatter(format="0%")
    plot.yaxis.ticker = [0, 0.25, 0.5, 0.75, 1]
    legend = plot.legend[0]
    legend.location = "top_left"
    legend.update(**_LEGEND)
    return styled(plot)


def _memory(source: ColumnDataSource) -> Plot:
    """Draw what each worker uses in front of its limit."""
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
    plot.add_tools(
        HoverTool(
            renderers=[bars],
            tooltips=[("worker", "@worker"), ("uses", "@used{0.0 ib}"), ("of", "@limit{0.0 ib}")],
        )
    )
    return styled(plot)


def memory_color(fullness: float) -> str:
    """Return the color of a worker, by what share of its limit it uses: as in Dask's pages."""
    if fullness >= 0.8:
        return "#c0392b"
    return "#e5a04b" if fullness >= 0.6 else BLUE
