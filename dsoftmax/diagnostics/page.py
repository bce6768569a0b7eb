"""The page itself, in Bokeh: what a browser shows of the runs of a scheduler."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, Div, Select
from jinja2 import Environment, FileSystemLoader

from dsoftmax.diagnostics import charts
from dsoftmax.diagnostics.history import Message
from dsoftmax.diagnostics.runs import ENDED, FAILED, LOST, RUNNING, Run, Runs
from dsoftmax.diagnostics.style import (
    ACTIVITIES,
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    SLATE,
    duration,
)
from dsoftmax.diagnostics.verdict import shares_of, verdict

TEMPLATES = Path(__file__).with_name("templates")

_REFRESH_MILLISECONDS = 500
_MAX_STEPS = 1000  # of a run, sent to a browser
_MAX_WORKERS = 24
_NEWEST = "newest"
_NO_CANDIDATES = dict.fromkeys(
    ("alphas", "l1_ratios", "losses", "errors", "accuracies", "running", "ruled_out"), ()
) | {"best": 0}

_log = logging.getLogger(__name__)

Columns = dict[str, Any]


class WorkerMemory(NamedTuple):
    """Bytes that a worker uses, and its limit; 0 without one."""

    name: str
    used: int
    limit: int


def _load_texts() -> Any:
    """Return the macros of runs.html, which escape all that comes from a run."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "duration": duration,
        "number": lambda value: f"{value:.6f}" if math.isfinite(value) else str(value),
        "strip_zeros": lambda text: text.rstrip("0").rstrip("."),
        "thousands": lambda value: f"{value:,.0f}",
    }
    colors = {"BLUE": BLUE, "GREY": GREY, "INK": INK, "SLATE": SLATE}
    state_colors = {RUNNING: BLUE, ENDED: GREEN, FAILED: RED, LOST: ORANGE}
    environment.globals |= colors | {
        "STATE_COLORS": state_colors,
        "now": time.time,
        "verdict": verdict,
    }
    return environment.get_template("runs.html").module


_TEXTS = _load_texts()


def title(run: Run) -> str:
    """Return the name of a run: that of its tasks, its solver, and when it began."""
    began = time.strftime("%H:%M:%S", time.localtime(run.started_at))
    return f"{run.key[:8]}: {run.facts.get('solver', 'fit')}, {began}"


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
        empty = {"memory": _memory_columns(()), **_run_columns(Run("", "", 0.0), ())}
        self._sources = {
            name: ColumnDataSource(columns, name=f"{name}-data") for name, columns in empty.items()
        }
        self._plots = charts.build(self._sources)

    def show_in(self, document: Any) -> None:
        """Add the page to a Bokeh document, and keep it up to date."""
        line = row(self._choice, self._status, sizing_mode="stretch_width")
        head = column(line, self._cards, sizing_mode="stretch_width", name="head")
        # Both charts take the second place of the page; only one of them is visible.
        both = self._plots["gradient_norm"], self._plots["candidates"]
        second = column(*both, sizing_mode="stretch_both", name="second")
        others = [self._plots[name] for name in ("loss", "rate", "time", "memory")]
        for root in (head, second, *others, self._list):
            document.add_root(root)
        self._update()
        document.add_periodic_callback(self._update, _REFRESH_MILLISECONDS)

    def _update(self) -> None:
        """Refresh; an error is shown, and stops neither the scheduler nor other pages."""
        try:
            self.refresh()
        except Exception as error:
            _log.exception("dsoftmax: the page failed; the scheduler goes on")
            self._status.text = _TEXTS.failure(type(error).__name__)

    def refresh(self) -> None:
        """Show the current state of the runs."""
        run = self._chosen()
        self._choice.options = [
            (_NEWEST, "newest run"),
            *((each.key, title(each)) for each in self._runs),
        ]
        self._status.text = _TEXTS.status(run)
        self._cards.text = _TEXTS.cards(run)
        self._list.text = _TEXTS.table(list(self._runs)[::-1], run)
        self._set("memory", _memory_columns(self._memory()))
        charts.set_workers(self._plots["memory"], self._sources["memory"])
        # Only what has changed is sent: new data make the browser draw the charts again.
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
        for name, columns in _run_columns(run, self._runs).items():
            self._set(name, columns)
        self._plots["loss"].legend.visible = run.validation is not None
        for name in ("loss", "gradient_norm"):
            self._plots[name].select_one({"name": charts.JOINED}).visible = not run.mini_batch
        self._plots["candidates"].visible = run.candidates is not None
        self._plots["gradient_norm"].visible = run.candidates is None
        row_bytes = run.totals.bytes / max(run.totals.rows, 1)
        charts.scale_rates(self._plots["rate"], self._sources["samples"], row_bytes)

    def _set(self, name: str, columns: Columns) -> None:
        """Send columns to the browser if they have changed."""
        source = self._sources[name]
        if any(not np.array_equal(source.data[key], columns[key]) for key in columns):
            source.data = columns


def _text(name: str, sizing_mode: Any) -> Div:
    fill = ":host > .bk-clearfix { width: 100%; height: 100%; }"
    return Div(name=name, sizing_mode=sizing_mode, stylesheets=[fill])


def _run_columns(run: Run, runs: Iterable[Run]) -> dict[str, Columns]:
    """Return what the charts show of a run, by the name of the data source."""
    steps, passes = _records(run, "step"), _records(run, "pass")
    validation = [record.get(charts.VALIDATION, math.nan) for record in passes]
    others = [
        (other, _value_columns(_records(other, "pass"))) for other in runs if other is not run
    ]
    return {
        # Of many steps a browser gets every k-th, as many as its screen has pixels.
        "steps": _value_columns(steps[:: 1 + len(steps) // _MAX_STEPS]),
        "passes": {**_value_columns(passes), charts.VALIDATION: _finite(validation)},
        "others": {
            "title": [title(other) for other, _ in others],
            **{
                key: [values[key].tolist() for _, values in others]
                for key in ("pass", "loss", "gradient_norm")
            },
        },
        "samples": _sample_columns(run),
        **_candidate_columns(run.candidates or _NO_CANDIDATES),
    }


_VALUES = ("pass", "loss", "gradient_norm", "accuracy")


def _records(run: Run, kind: str) -> list[Message]:
    return [record for record in run.records if record["event"] == kind]


def _value_columns(records: Sequence[Message]) -> Columns:
    return {key: _finite([record[key] for record in records]) for key in _VALUES}


def _finite(values: Sequence[float]) -> Any:
    """Return numbers with NaN for infinities, which would spoil the range of an axis."""
    numbers = np.array(values, np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _sample_columns(run: Run) -> Columns:
    samples = [sample for sample in run.samples if sample.time.total > 0]
    stops = [sample.stop for sample in samples]
    columns: Columns = {
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


def _memory_columns(workers: Sequence[WorkerMemory]) -> Columns:
    """Return the workers that are closest to their limits."""

    def fullness(worker: WorkerMemory) -> float:
        return worker.used / worker.limit if worker.limit else 0.0

    fullest = sorted(workers, key=lambda w: (-fullness(w), w.name))[:_MAX_WORKERS]
    return {
        "worker": [worker.name for worker in fullest],
        "used": np.array([worker.used for worker in fullest], np.float64),
        "limit": np.array([worker.limit for worker in fullest], np.float64),
        "color": [_memory_color(fullness(worker)) for worker in fullest],
    }


def _memory_color(fullness: float) -> str:
    """Return the color of a worker by the share of its limit, as Dask's own pages do."""
    if fullness >= 0.8:
        return RED
    return ORANGE if fullness >= 0.6 else BLUE


def _candidate_columns(message: Mapping[str, Any]) -> dict[str, Columns]:
    """Return what is shown of a message of the kind "candidates", by the name of the source."""
    alphas, ratios = np.array(message["alphas"]), np.array(message["l1_ratios"])
    loss, error = (np.array(message[name], np.float64) for name in ("losses", "errors"))
    position, distinct = _positions(alphas), sorted(set(ratios.tolist()))
    color_of = dict(zip(distinct, cycle(CYCLE), strict=False))
    colors = [
        GREY if ruled_out else color_of[ratio]
        for ruled_out, ratio in zip(message["ruled_out"], ratios.tolist(), strict=True)
    ]
    lines = [ratios == ratio for ratio in distinct]
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
            "position": [position[line].tolist() for line in lines],
            "loss": [loss[line].tolist() for line in lines],
            "color": [color_of[ratio] for ratio in distinct],
            "name": [f"{ratio:g}" for ratio in distinct],
        },
        "best": {"position": position[best], "loss": loss[best]},
    }


def _positions(alphas: Any) -> Any:
    """Return where the alphas are on a logarithmic axis: zero is a decade below the others."""
    positive = alphas[alphas > 0]
    zero = positive.min() / 10 if len(positive) else 1.0
    return np.where(alphas > 0, alphas, zero)
