"""How runs are told in words, for the page: titles, cards and the list, as HTML."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from html import escape

from dsoftmax.diagnostics.durations import duration
from dsoftmax.diagnostics.messages import Message
from dsoftmax.diagnostics.palette import BLUE, GREEN, GREY, INK, ORANGE, SLATE
from dsoftmax.diagnostics.runs import ENDED, FAILED, LOST, RUNNING, Run
from dsoftmax.diagnostics.verdict import verdict

NO_RUN = f"<p style='color:{SLATE}'>No run yet: the next fit on this scheduler will show here.</p>"
_COLORS = {RUNNING: BLUE, ENDED: GREEN, FAILED: "#c0392b", LOST: ORANGE}
_WORDS = {LOST: "its client has gone"}
_FONT = f"font-family:Helvetica,Arial,sans-serif;font-size:13px;color:{INK}"
_SILENT_SECONDS = 30.0  # after which a run that says nothing is told so


def title(run: Run) -> str:
    """Return how a run is called: as its tasks are, with its solver and when it began."""
    began = time.strftime("%H:%M:%S", time.localtime(run.started_at))
    return f"{run.key[:8]}: {run.facts.get('solver', 'fit')}, {began}"


def failure(error: Exception) -> str:
    """Return what to show instead of cards that cannot be shown."""
    return f"<p>This page has failed ({escape(type(error).__name__)}); the run goes on.</p>"


def status(run: Run) -> str:
    """Return in a few words what a run is and how it goes, as HTML."""
    words = run.verdict or verdict(run.totals.time, mini_batch=run.mini_batch)
    return (
        f"<div style='{_FONT};line-height:1.5'>{_badge(run)} {escape(_problem(run))}"
        f"<div style='min-height:1.5em'>{escape(words)}</div></div>"
    )


def cards(run: Run) -> str:
    """Return the figures of a run as HTML."""
    figures = "".join(_card(label, value, note) for label, value, note in _figures(run))
    grid = "display:grid;gap:8px;grid-template-columns:repeat(auto-fit,minmax(104px,1fr))"
    return f"<div style='{_FONT};{grid}'>{figures}</div>"


def table(runs: Iterable[Run], shown: Run | None) -> str:
    """Return the list of runs as HTML, the one that is shown in bold."""
    rows = "".join(_row(run, run is shown) for run in runs)
    head = "".join(
        f"<th style='text-align:{side};padding:2px 10px 4px 0;font-weight:600'>{name}</th>"
        for name, side in (
            ("run", "left"),
            ("solver", "left"),
            ("passes", "right"),
            ("loss", "right"),
            ("time", "right"),
            ("", "left"),
        )
    )
    return (
        f"<div style='{_FONT};padding:4px 8px;"
        "box-sizing:border-box;overflow:auto;height:100%'>"
        "<div style='font-weight:bold;margin-bottom:6px'>Runs</div>"
        f"<table style='border-collapse:collapse'><tr>{head}</tr>{rows}</table></div>"
    )


def _row(run: Run, shown: bool) -> str:
    weight = "bold" if shown else "normal"
    loss = "" if run.last is None else _number(run.last["loss"])
    cells = (
        (run.key[:8], "left"),
        (str(run.facts.get("solver", "")), "left"),
        (f"{run.passes:.4g}", "right"),
        (loss, "right"),
        (duration(run.seconds), "right"),
    )
    style = "padding:2px 10px 2px 0;white-space:nowrap"
    texts = "".join(
        f"<td style='{style};text-align:{side}'>{escape(text)}</td>" for text, side in cells
    )
    return f"<tr style='font-weight:{weight}'>{texts}<td style='{style}'>{_badge(run)}</td></tr>"


def _badge(run: Run) -> str:
    silent = time.time() - run.heard_at
    state = _WORDS.get(run.state, run.state)
    if run.state == RUNNING and silent > _SILENT_SECONDS:
        state = f"running, silent for {duration(silent)}"
    return (
        f"<span style='background:{_COLORS[run.state]};color:white;border-radius:3px;"
        f"padding:1px 7px;font-size:12px;font-weight:normal'>{escape(state)}</span>"
    )


def _problem(run: Run) -> str:
    facts = run.facts
    if not facts:
        return run.reason
    text = (
        f"{facts['n_samples']:,} rows x {facts['n_features']:,} features, "
        f"{facts['n_classes']:,} classes, on {facts['workers']:,} workers"
    )
    return f"{text}. {run.reason}" if run.reason else text


def _figures(run: Run) -> list[tuple[str, str, str]]:
    last, facts, judged = run.last, run.facts, run.validation
    most = facts.get("max_iter", 0)
    sample = next(reversed(list(run.samples)), None)
    left = run.seconds_left
    age = None if run.checkpoint_at is None else time.time() - run.checkpoint_at
    return [
        ("passes", f"{run.passes:.2f}".rstrip("0").rstrip("."), _bar(run.passes, most)),
        ("time", duration(run.seconds), "" if left is None else f"{duration(left)} left at most"),
        ("loss", _number(last["loss"]) if last else "-", ""),
        ("accuracy", f"{last['accuracy']:.4f}" if last else "-", ""),
        *(_validation_figures(judged) if judged else ()),
        *(_search_figures(run.candidates) if run.candidates else ()),
        ("gradient norm", f"{last['gradient_norm']:.2e}" if last else "-", ""),
        ("rows/s", f"{sample.rows:,.0f}" if sample else "-", ""),
        ("MB/s decoded", f"{sample.bytes / 1e6:,.0f}" if sample else "-", ""),
        ("checkpoint", "none" if age is None else f"{duration(age)} ago", ""),
        ("retries", f"{run.totals.retries:,}", ""),
        ("skipped chunks", f"{run.skipped:,}", ""),
    ]


def _validation_figures(judged: Message) -> Iterator[tuple[str, str, str]]:
    yield "validation loss", _number(judged["validation_loss"]), ""
    yield "validation accuracy", f"{judged['validation_accuracy']:.4f}", ""


def _search_figures(found: Message) -> Iterator[tuple[str, str, str]]:
    alpha, ratio = (found[name][found["best"]] for name in ("alphas", "l1_ratios"))
    yield "best alpha", f"{alpha:.3g}", f"l1_ratio {ratio:g}" if any(found["l1_ratios"]) else ""
    yield (
        "models running",
        f"{sum(found['running']):,}",
        f"of {len(found['alphas']):,} penalties",
    )


def _number(value: float) -> str:
    return f"{value:.6f}" if math.isfinite(value) else str(value)


def _bar(done: float, most: float) -> str:
    share = min(1.0, done / most) if most else 0.0
    return (
        f"of {most:,} at most<div style='background:{GREY};height:4px;margin-top:3px'>"
        f"<div style='background:{BLUE};height:4px;width:{share:.1%}'></div></div>"
    )


def _card(label: str, value: str, note: str) -> str:
    """Return a figure as HTML; the note is HTML already."""
    return (
        "<div style='background:white;border:1px solid #e4e4e4;padding:6px 10px'>"
        f"<div style='font-size:11px;color:{SLATE}'>{escape(label)}</div>"
        f"<div style='font-size:19px;white-space:nowrap'>{escape(value)}</div>"
        f"<div style='font-size:11px;color:{SLATE}'>{note}</div></div>"
    )
