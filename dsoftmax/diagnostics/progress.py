"""Progress in a terminal or a batch log: a row a pass, and a live line within it."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from dsoftmax.events import (
    ChunkQuarantined,
    Event,
    FitEnded,
    FitResumed,
    FitStarted,
    PassEnded,
    RowsDone,
)

_HEADER = (
    f"{'pass':>5}{'loss':>13}{'accuracy':>10}{'gradient':>11}{'rows/s':>12}{'MB/s':>8}{'s':>8}"
)
_REFRESH_SECONDS = 0.2


@dataclass
class Progress:
    """Prints a table row for every pass.

    Attributes
    ----------
    stream : where to; standard error by default
    live : whether the line of the pass under way is redrawn; by default on a terminal
    """

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    live: bool | None = None
    _started: float = 0.0
    _drawn: float = 0.0
    _passes: int = 0
    _max_iter: int = 0
    _left_out: int = 0

    def on_event(self, event: Event) -> None:
        """Print what there is to say about an event."""
        if isinstance(event, FitStarted):
            self._begin(event)
        elif isinstance(event, RowsDone):
            self._draw(event)
        elif isinstance(event, PassEnded):
            self._passes = round(event.passes)
            self._started = time.perf_counter()
            self._print(_row(event))
        elif isinstance(event, FitResumed):
            self._passes = event.passes
            self._print(_resumed(event))
        elif isinstance(event, ChunkQuarantined):
            self._left_out += 1
            self._print(f"rows {event.start} to {event.stop - 1} are left out: {event.reason}")
        elif isinstance(event, FitEnded):
            self._print(f"{event.reason}\n{_summary(event, self._left_out)}")

    def _begin(self, event: FitStarted) -> None:
        self._started, self._max_iter = time.perf_counter(), event.max_iter
        where = f"{event.workers} Dask workers" if event.dashboard else "this process"
        self._print(
            f"{event.n_samples:,} rows x {event.n_features:,} features, {event.n_classes} classes; "
            f"{event.pass_bytes / 1e6:,.0f} MB a pass in {event.n_chunks:,} chunks; "
            f"{event.solver} on {where}"
        )
        if event.dashboard:
            self._print(f"dashboard: {event.dashboard}")
        self._print(_HEADER)

    def _draw(self, event: RowsDone) -> None:
        now = time.perf_counter()
        if not self._is_live or now - self._drawn < _REFRESH_SECONDS:
            return
        self._drawn = now
        rate = event.rows / max(now - self._started, 1e-9)
        done = event.rows / event.total
        self.stream.write(
            f"\r\x1b[2K{self._passes + 1:>5}  {done:4.0%} of pass, {rate:,.0f} rows/s"
        )
        self.stream.flush()

    def _print(self, line: str) -> None:
        self.stream.write(("\r\x1b[2K" if self._is_live else "") + line + "\n")
        self.stream.flush()

    @property
    def _is_live(self) -> bool:
        return self.stream.isatty() if self.live is None else self.live


def _row(event: PassEnded) -> str:
    seconds = max(event.pass_seconds, 1e-9)
    return (
        f"{event.passes:>5.0f}{event.loss:>13.6f}{event.accuracy:>10.4f}"
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
    if event.retries:
        text += f", {event.retries} reads tried again"
    return text + (f"; {left_out} chunks left out" if left_out else "")
