"""Callbacks that watch a fit, stop it, or disturb it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from distributed import Client

from dsoftmax.events import CheckpointWritten, Event, RowsDone, StepEnded


class StopError(Exception):
    """The job ends here."""


@dataclass
class StopAfter:
    """Raises an error at every event of these kinds but the first `events`."""

    events: int
    error: type[BaseException] = StopError
    kinds: tuple[type[Event], ...] = (RowsDone, StepEnded, CheckpointWritten)

    def on_event(self, event: Event) -> None:
        if isinstance(event, self.kinds):
            self.events -= 1
            if self.events < 0:
                raise self.error


@dataclass
class Once:
    """Calls a function at the first event of a kind, or at a later one."""

    kind: type[Event]
    action: Callable[[], Any]
    number: int = 1
    seen: int = 0

    def on_event(self, event: Event) -> None:
        if isinstance(event, self.kind):
            self.seen += 1
            if self.seen == self.number:
                self.action()

    @property
    def done(self) -> bool:
        return self.seen >= self.number


@dataclass
class Recorder:
    """Remembers all events, or those of one kind."""

    kind: type[Any] = Event
    events: list[Any] = field(default_factory=list)

    def on_event(self, event: Event) -> None:
        if isinstance(event, self.kind):
            self.events.append(event)

    @property
    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def kill_a_worker(client: Client) -> None:
    """Kill the process of a worker, as the kernel does when memory is short."""
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
