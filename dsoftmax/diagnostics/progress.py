"""Progress in a terminal, notebook or batch log: a table row per pass, and a line within it."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO
from urllib.parse import urlsplit

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

_REFRESH_SECONDS = 0.2  # between lines that replace each other
_LOG_SECONDS = 60.0  # between lines that stay


@dataclass
class Progress:
    """Prints a table row for every pass, with the time left until the budget is spent.

    The row of a search shows the best candidate so far: its alpha, means over its models, and the
    number of models of all candidates that are still being fitted.

    Within a pass, a line says how far it is: redrawn in a terminal or notebook, and printed
    once a minute to anything else.

    Attributes
    ----------
    stream : where to print; standard error by default
    live : whether the line of the current pass is redrawn; by default in terminals and notebooks
    """

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    live: bool | None = None
    _clock: _Clock = field(default_factory=lambda: _Clock(0, 0))
    _printed_at: float = 0.0
    _width: int = 0  # of the line that is redrawn
    _loss: float | None = None
    _seconds: float = 0.0  # of the fit, at its last step
    _skipped_chunks: int = 0
    _has_validation: bool = False
    _candidates: CandidatesJudged | None = None
    _is_refit: bool = False  # of the winner of a search

    def on_event(self, event: Event) -> None:
        """Print the line of an event, if it has one."""
        if isinstance(event, FitStarted):
            self._begin(event)
        elif isinstance(event, RowsDone):
            self._print_pass_so_far(event.rows / event.total, event.rows / max(event.seconds, 1e-9))
        elif isinstance(event, CandidatesJudged):
            earlier, self._candidates = self._candidates, event
            self._is_refit = earlier is not None and not any(earlier.running)
        elif isinstance(event, PassEnded):
            self._end_pass(event)
        elif isinstance(event, StepEnded):
            seconds = max(event.seconds - self._seconds, 1e-9)
            self._loss, self._seconds = event.loss, event.seconds
            self._print_pass_so_far(event.passes - self._clock.passes, event.rows / seconds)
        elif isinstance(event, FitResumed):
            self._clock = _Clock(event.passes, self._clock.max_passes)
            self._print(_resumed(event))
        elif isinstance(event, ChunkQuarantined):
            self._skipped_chunks += 1
            self._print(f"rows {event.start} to {event.stop - 1} are left out: {event.reason}")
        elif isinstance(event, FitEnded):
            self._end(event)

    def _begin(self, event: FitStarted) -> None:
        self._clock = _Clock(0, event.max_iter)
        self._printed_at = time.perf_counter()
        on_cluster = event.dashboard is not None
        where = f"{event.workers} Dask workers" if on_cluster else "this process"
        self._print(
            f"{event.n_samples:,} rows x {event.n_features:,} features, {event.n_classes} classes; "
            f"{event.pass_bytes / 1e6:,.0f} MB a pass in {event.n_chunks:,} chunks; "
            f"{event.solver} on {where}"
            + (f"; {event.n_models:,} models" if event.n_models else "")
        )
        if event.dashboard:
            self._print(f"dashboard: {event.dashboard}")
            if urlsplit(event.dashboard).hostname in _LOOPBACK:
                self._print(_OPEN_TO_ALL)
        self._has_validation = event.n_validation > 0
        self._print(_header(has_validation=self._has_validation, is_search=event.n_models > 0))

    def _print_pass_so_far(self, fraction: float, rate: float) -> None:
        """Print how far the current pass is, but not too often."""
        now = time.perf_counter()
        if now - self._printed_at < (_REFRESH_SECONDS if self._is_live else _LOG_SECONDS):
            return
        self._printed_at = now
        loss = "" if self._loss is None else f", loss {self._loss:.6f}"
        line = f"{self._clock.passes + 1:>5}  {fraction:4.0%} of pass, {rate:,.0f} rows/s{loss}"
        if left := self._clock.left(self._clock.passes + fraction):
            line += f", at most {left} left"
        if self._is_live:
            self.stream.write(self._blank() + line)
            self.stream.flush()
            self._width = len(line)
        else:
            self._print(line)

    def _end_pass(self, event: PassEnded) -> None:
        self._clock.passes = round(event.passes)
        self._loss, self._seconds = event.loss, event.seconds
        search = _search_columns(self._candidates, self._is_refit) if self._candidates else ""
        row = _row(event, search, has_validation=self._has_validation)
        self._print(f"{row}{self._clock.left(event.passes):>9}")
        self._printed_at = time.perf_counter()

    def _end(self, event: FitEnded) -> None:
        self._print(f"{event.reason}\n{_summary(event, self._skipped_chunks)}")
        if words := verdict(event.time, mini_batch=event.mini_batch):
            self._print(words)

    def _print(self, line: str) -> None:
        self.stream.write((self._blank() if self._is_live else "") + line + "\n")
        self.stream.flush()
        self._width = 0

    def _blank(self) -> str:
        """Return what empties the line; notebooks have no escape sequence for it."""
        return "\r\x1b[2K" if self.stream.isatty() else f"\r{' ' * self._width}\r"

    @property
    def _is_live(self) -> bool:
        if self.live is not None:
            return self.live
        return self.stream.isatty() or type(self.stream).__module__.startswith("ipykernel")


_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_OPEN_TO_ALL = (
    "           all users of this machine can watch it; DASK_DSOFTMAX__DASHBOARD=False turns that "
    "of a local cluster off"
)


class _Clock:
    """Estimates the time left from the passes that this process has made.

    Parameters
    ----------
    passes : that have ended, by an earlier process too
    max_passes : the budget
    """

    def __init__(self, passes: int, max_passes: int) -> None:
        self.passes, self.max_passes = passes, max_passes
        self._first, self._started = passes, time.perf_counter()

    def left(self, passes: float) -> str:
        """Return the time until the budget is spent, "" where not known."""
        if passes <= self._first:
            return ""
        pace = (time.perf_counter() - self._started) / (passes - self._first)
        return duration(pace * max(0.0, self.max_passes - passes))


def _header(*, has_validation: bool, is_search: bool) -> str:
    candidates = f"{'alpha':>10}{'models':>8}" if is_search else ""
    validation = f"{'val. loss':>13}{'val. acc.':>10}" if has_validation else ""
    return (
        f"{'pass':>5}{candidates}{'loss':>13}{'accuracy':>10}{validation}{'gradient':>11}{'rows/s':>12}"
        f"{'MB/s':>8}{'s':>8}{'left':>9}"
    )


def _search_columns(candidates: CandidatesJudged, is_refit: bool) -> str:
    models = "refit" if is_refit else f"{sum(candidates.running):,}"
    return f"{candidates.alphas[candidates.best]:>10.3g}{models:>8}"


def _row(event: PassEnded, search: str, *, has_validation: bool) -> str:
    seconds, scores = max(event.pass_seconds, 1e-9), event.validation
    validation = " " * 23 if has_validation else ""
    if scores is not None:
        validation = f"{scores.loss:>13.6f}{scores.accuracy:>10.4f}"
    return (
        f"{event.passes:>5.0f}{search}{event.loss:>13.6f}{event.accuracy:>10.4f}{validation}"
        f"{event.gradient_norm:>11.2e}{event.rows / seconds:>12,.0f}"
        f"{event.bytes / seconds / 1e6:>8,.0f}{event.seconds:>8.1f}"
    )


def _resumed(event: FitResumed) -> str:
    how = "is finished" if event.finished else "goes on"
    return (
        f"the fit in {event.place} {how}, after {event.passes} passes, {event.steps} steps, "
        f"{event.seconds:.1f} s"
    )


def _summary(event: FitEnded, skipped_chunks: int) -> str:
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
    return text + (f"; {skipped_chunks} chunks left out" if skipped_chunks else "")
