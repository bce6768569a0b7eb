"""The page itself, in Bokeh: what a browser shows of the runs of a scheduler."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, Div, Select
from bokeh.models.plots import Plot

from dsoftmax.diagnostics import candidates, charts, words
from dsoftmax.diagnostics.palette import ACTIVITIES
from dsoftmax.diagnostics.runs import Run, Runs
from dsoftmax.diagnostics.verdict import shares_of

_REFRESH_MILLISECONDS = 500
_MOST_STEPS = 1000  # of a run, sent to a browser
_MOST_WORKERS = 24
_NEWEST = "newest"

TEMPLATE = """
{% extends "base.html" %}
{% block extra_resources %}
<style>
  body { min-height: 100%; height: auto; }
  .content { height: auto; }
  #runs { display: flex; flex-direction: column; gap: 8px; min-height: calc(100vh - 4.5rem); }
  #charts { flex: 1; display: grid; gap: 8px;
            grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr));
            grid-auto-rows: minmax(240px, 1fr); }
  #charts > div { min-width: 0; position: relative; background: white; border: 1px solid #e4e4e4;
                  padding: 4px; }
  #charts > div > div { position: absolute; inset: 4px; }
</style>
{% endblock %}
{% block content %}
{% from macros import embed %}
<div id="runs">
  <div>{{ embed(roots.head) }}</div>
  <div id="charts">
    {% for name in ["loss", "second", "rate", "time", "memory", "list"] %}
    <div><div>{{ embed(roots[name]) }}</div></div>
    {% endfor %}
  </div>
</div>
{{ plot_script }}
{% endblock %}
"""

_log = logging.getLogger(__name__)


class WorkerMemory(NamedTuple):
    """What a worker uses, of its limit; 0 without one."""

    name: str
    used: int
    limit: int


class Page:
    """What one browser sees, brought up to date twice a second.

    Parameters
    ----------
    runs : Runs
    memory : returns that of each worker
    """

    def __init__(self, runs: Runs, memory: Callable[[], Sequence[WorkerMemory]]) -> None:
        self._runs, self._memory = runs, memory
        self._seen: tuple[Any, ...] = ()
        self._choice = Select(value=_NEWEST, options=[_NEWEST], width=240, name="choice")
        self._status = _text("status", "stretch_width")
        self._cards = _text("cards", "stretch_width")
        self._list = _text("list", "stretch_both")
        self._sources = {
            name: ColumnDataSource({key: [] for key in columns}, name=f"{name}-data")
            for name, columns in (charts.COLUMNS | candidates.COLUMNS).items()
        }
        self._plots = charts.build(self._sources)
        self._candidates = candidates.chart(self._sources)

    def show_in(self, document: Any) -> None:
        """Add the page to a Bokeh document, and keep it up to date."""
        line = row(self._choice, self._status, sizing_mode="stretch_width")
        head = column(line, self._cards, sizing_mode="stretch_width", name="head")
        plots = self._plots | {"gradient_norm": self._second()}
        for root in (head, *plots.values(), self._list):
            document.add_root(root)
        self._update()
        document.add_periodic_callback(self._update, _REFRESH_MILLISECONDS)

    def _second(self) -> Any:
        """Return the place of the gradient norm, or of the candidates if there are any."""
        return column(
            self._plots["gradient_norm"],
            self._candidates,
            sizing_mode="stretch_both",
            name="second",
        )

    def _update(self) -> None:
        """Refresh; what fails is shown, and harms neither the scheduler nor other pages."""
        try:
            self.refresh()
        except Exception as error:
            _log.exception("dsoftmax: the page failed; the scheduler goes on")
            self._status.text = words.failure(error)

    def refresh(self) -> None:
        """Show how things are now."""
        run = self._chosen()
        self._choice.options = [
            (_NEWEST, "newest run"),
            *((each.key, words.title(each)) for each in self._runs),
        ]
        self._status.text = words.status(run) if run else words.NO_RUN
        self._cards.text = words.cards(run) if run else ""
        self._list.text = words.table(reversed(list(self._runs)), run)
        self._set("memory", _memory_columns(self._memory()))
        _resize(self._plots["memory"], self._sources["memory"])
        news = tuple((each.key, each.version) for each in self._runs), run and run.key
        if run is not None and news != self._seen:
            self._seen = news
            self._show(run)

    def _chosen(self) -> Run | None:
        chosen = self._runs.get(self._choice.value)
        if chosen is None:
            self._choice.value = _NEWEST
        return chosen or self._runs.newest

    def _show(self, run: Run) -> None:
        records = list(run.records)
        steps = [record for record in records if record["event"] == "step"]
        self._set("steps", _course_columns(steps[:: 1 + len(steps) // _MOST_STEPS]))
        passes = [record for record in records if record["event"] == "pass"]
        losses = [record.get(charts.VALIDATION, math.nan) for record in passes]
        self._set("passes", {**_course_columns(passes), charts.VALIDATION: _finite(losses)})
        self._plots["loss"].legend.visible = run.validation is not None
        self._show_candidates(run)
        self._set("others", _other_columns(each for each in self._runs if each is not run))
        self._set("samples", _sample_columns(run))
        for name in ("loss", "gradient_norm"):
            self._plots[name].select_one({"name": charts.JOINED}).visible = not run.mini_batch
        row_bytes = run.totals.bytes / max(run.totals.rows, 1)
        charts.scale_rates(self._plots["rate"], self._sources["samples"], row_bytes)

    def _show_candidates(self, run: Run) -> None:
        self._candidates.visible = run.candidates is not None
        self._plots["gradient_norm"].visible = run.candidates is None
        if run.candidates is not None:
            for name, columns in candidates.columns_of(run.candidates).items():
                self._set(name, columns)

    def _set(self, name: str, columns: dict[str, Any]) -> None:
        source = self._sources[name]
        if any(not np.array_equal(source.data[key], columns[key]) for key in columns):
            source.data = columns


def _text(name: str, sizing_mode: Any) -> Div:
    whole = ":host > .bk-clearfix { width: 100%; height: 100%; }"
    return Div(name=name, sizing_mode=sizing_mode, stylesheets=[whole])


def _course_columns(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        key: _finite([record[key] for record in records])
        for key in ("pass", "loss", "gradient_norm", "accuracy")
    }


def _finite(values: Iterable[float]) -> Any:
    numbers = np.array(list(values), np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _other_columns(runs: Iterable[Run]) -> dict[str, Any]:
    """Return the courses of the other runs, a line each."""
    columns: dict[str, list[Any]] = {key: [] for key in charts.COLUMNS["others"]}
    for run in runs:
        passes = [record for record in run.records if record["event"] == "pass"]
        course = _course_columns(passes)
        columns["pass"].append(course["pass"].tolist())
        columns["loss"].append(course["loss"].tolist())
        columns["gradient_norm"].append(course["gradient_norm"].tolist())
        columns["title"].append(words.title(run))
    return columns


def _sample_columns(run: Run) -> dict[str, Any]:
    samples = [sample for sample in run.samples if sample.time.total > 0]
    stops = [sample.stop for sample in samples]
    columns: dict[str, Any] = {
        "left": np.array([0.0, *stops][: len(stops)]),
        "right": np.array(stops),
        "rows": np.array([sample.rows for sample in samples]),
        "megabytes": np.array([sample.bytes / 1e6 for sample in samples]),
    }
    bottom = np.zeros(len(samples))
    for name in ACTIVITIES:
        shares = np.array([shares_of(sample.time)[name] for sample in samples])
        columns[f"{name}_bottom"], columns[name] = bottom, bottom + shares
        columns[f"{name}_share"], bottom = shares, bottom + shares
    return columns


def _memory_columns(workers: Sequence[WorkerMemory]) -> dict[str, Any]:
    """Return the workers that are nearest to their limits."""

    def fullness(worker: WorkerMemory) -> float:
        return worker.used / worker.limit if worker.limit else worker.used / math.inf

    fullest = sorted(workers, key=lambda w: (-fullness(w), w.name))[:_MOST_WORKERS]
    return {
        "worker": [worker.name for worker in fullest],
        "used": np.array([worker.used for worker in fullest], np.float64),
        "limit": np.array([worker.limit for worker in fullest], np.float64),
        "color": [charts.memory_color(fullness(worker)) for worker in fullest],
    }


def _resize(plot: Plot, source: ColumnDataSource) -> None:
    """Give each worker a line of its own, the fullest first."""
    names = list(reversed(source.data["worker"]))
    if plot.y_range.factors != names:
        plot.y_range.factors = names
