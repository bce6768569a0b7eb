"""Progress in a terminal, a notebook or a batch log: a row a pass, and a line within it."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from dsoftmax.diagnostics.style import duration
from dsoftmax.diagnostics.verdict import verdict
from dsoftmax.events import (
    CandidatesJudged,
    ChunkQuarantined,
    Event,
    FitEnded,
    FitResumed,
    FitStarted,
    PassEnded,
    RowsDone,
    StepEnded,
)

_REFRESH_SECONDS = 0.2  # where the line is redrawn
_LOG_SECONDS = 60.0  # where each line stays


@dataclass
class Progress:
    """Prints a table row for every pass; "at most" is the time left until the budget is spent.

    The row of a search is of the candidate that is the best so far: its alpha, the means over its
    models, and how many models of all candidates go on.

    Within a pass, a line tells how far it is: redrawn in a terminal or notebook, and printed
    once a minute to anything else.

    Attributes
    ----------
    stream : where to; standard error by default
    live : whether the line of the pass under way is redrawn; by default in terminals and notebooks
    """

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    live: bool | None = None
    _course: _Course = field(default_factory=lambda: _Course(0, 0))
    _told: float = 0.0
    _width: int = 0  # of the line that is redrawn
    _loss: float | None = None
    _seconds: float = 0.0  # of the fit, at its last step
    _left_out: int = 0
    _judged: bool = False
    _candidates: CandidatesJudged | None = None
    _refits: bool = False  # the winner of a search

    def on_event(self, event: Event) -> None:
        """Print what there is to say about an event."""
        if isinstance(event, FitStarted):
            self._begin(event)
        elif isinstance(event, RowsDone):
            self._within(event.rows / event.total, event.rows / max(event.seconds, 1e-9))
        elif isinstance(event, CandidatesJudged):
            before, self._candidates = self._candidates, event
            self._refits = before is not None and not any(before.running)
        elif isinstance(event, PassEnded):
            self._end_pass(event)
        elif isinstance(event, StepEnded):
            seconds = max(event.seconds - self._seconds, 1e-9)
            self._loss, self._seconds = event.loss, event.seconds
            self._within(event.passes - self._course.whole, event.rows / seconds)
        elif isinstance(event, FitResumed):
            self._course = _Course(event.passes, self._course.most)
            self._print(_resumed(event))
        elif isinstance(event, ChunkQuarantined):
            self._left_out += 1
            self._print(f"rows {event.start} to {event.stop - 1} are left out: {event.reason}")
        elif isinstance(event, FitEnded):
            self._end(event)

    def _begin(self, event: FitStarted) -> None:
        self._course = _Course(0, event.max_iter)
        self._told = time.perf_counter()
        where = f"{event.workers} Dask workers" if event.dashboard else "this process"
        self._print(
            f"{event.n_samples:,} rows x {event.n_features:,} features, {event.n_classes} classes; "
            f"{event.pass_bytes / 1e6:,.0f} MB a pass in {event.n_chunks:,} chunks; "
            f"{event.solver} on {where}"
            + (f"; {event.n_models:,} models" if event.n_models else "")
        )
        if event.dashboard:
            self._print(f"dashboard: {event.dashboard}")
        self._judged = event.n_validation > 0
        self._print(_header(judged=self._judged, searching=event.n_models > 0))

    def _within(self, done: float, rate: float) -> None:
        """Tell how far the pass under way is, but not too often."""
        now = time.perf_counter()
        if now - self._told < (_REFRESH_SECONDS if self._is_live else _LOG_SECONDS):
            return
        self._told = now
        loss = "" if self._loss is None else f", loss {self._loss:.6f}"
        line = f"{self._course.whole + 1:>5}  {done:4.0%} of pass, {rate:,.0f} rows/s{loss}"
        if left := self._course.left(self._course.whole + done):
            line += f", at most {left} left"
        if self._is_live:
            self.stream.write(self._blank() + line)
            self.stream.flush()
            self._width = len(line)
        else:
            self._print(line)

    def _end_pass(self, event: PassEnded) -> None:
        self._course.whole = round(event.passes)
        self._loss, self._seconds = event.loss, event.seconds
        standing = _standing(self._candidates, self._refits) if self._candidates else ""
        row = _row(event, standing, judged=self._judged)
        self._print(f"{row}{self._course.left(event.passes):>9}")
        self._told = time.perf_counter()

    def _end(self, event: FitEnded) -> None:
        self._print(f"{event.reason}\n{_summary(event, self._left_out)}")
        if words := verdict(event.time, mini_batch=event.mini_batch):
            self._print(words)

    def _print(self, line: str) -> None:
        self.stream.write((self._blank() if self._is_live else "") + line + "\n")
        self.stream.flush()
        self._width = 0

    def _blank(self) -> str:
        """Return what empties the line: notebooks know no escape sequence for it."""
        return "\r\x1b[2K" if self.stream.isatty() else f"\r{' ' * self._width}\r"

    @property
    def _is_live(self) -> bool:
        if self.live is not None:
            return self.live
        return self.stream.isatty() or type(self.stream).__module__.startswith("ipykernel")


class _Course:
    """Estimates how long a fit still takes, from how long it took here.

    Parameters
    ----------
    whole : passes that have ended, before now
    most : the budget
    """

    def __init__(self, whole: int, most: int) -> None:
        self.whole, self.most = whole, most
        self._first, self._started = whole, time.perf_counter()

    def left(self, passes: float) -> str:
        """Return at most how long it takes from there, or nothing if that is not known."""
        if passes <= self._first:
            return ""
        pace = (time.perf_counter() - self._started) / (passes - self._first)
        return duration(pace * max(0.0, self.most - passes))


def _header(*, judged: bool, searching: bool) -> str:
    candidates = f"{'alpha':>10}{'models':>8}" if searching else ""
    validation = f"{'val. loss':>13}{'val. acc.':>10}" if judged else ""
    return (
        f"{'pass':>5}{candidates}{'loss':>13}{'accuracy':>10}{validation}{'gradient':>11}{'rows/s':>12}"
        f"{'MB/s':>8}{'s':>8}{'left':>9}"
    )


def _standing(found: CandidatesJudged, refits: bool) -> str:
    models = "refit" if refits else f"{sum(found.running):,}"
    return f"{found.alphas[found.best]:>10.3g}{models:>8}"


def _row(event: PassEnded, standing: str, *, judged: bool) -> str:
    seconds, scores = max(event.pass_seconds, 1e-9), event.validation
    validation = " " * 23 if judged else ""
    if scores is not None:
        validation = f"{scores.loss:>13.6f}{scores.accuracy:>10.4f}"
    return (
        f"{event.passes:>5.0f}{standing}{event.loss:>13.6f}{event.accuracy:>10.4f}{validation}"
        f"{event.gradient_norm:>11.2e}{event.rows / seconds:>12,.0f}"
        f"{event.bytes / seconds / 1e6:>8,.0f}{event.seconds:>8.1f}"
    )


def _resumed(event: FitResumed) -> str:
    how = "is finished" if event.finished else "goes on"
    return (
        f"the fit in {event.place} {how}, after {event.passes} passes, {event.steps} steps, "
        f"{event.seconds:.1f} s"
    )


def _summary(event: FitEnded, left_out: int) -> str:
    text = (
        f"loss {event.loss:.6f} after {event.passes} passes, {event.steps} steps, "
        f"{event.seconds:.1f} s"
    )
    if event.best_pass is not None:
        text += f"; the model of pass {event.best_pass} is kept"
    if event.gap is not None:
        text += f"; by estimate {event.gap:.1g} above the minimum"
    if event.retries:
        text += f", {event.retries} reads tried again"
    return text + (f"; {left_out} chunks left out" if left_out else "")
