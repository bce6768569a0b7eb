"""Sends the events of a fit to the scheduler, for the page at /dsoftmax and Prometheus."""

from __future__ import annotations

import asyncio
import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from dsoftmax.diagnostics.history import Message, as_message
from dsoftmax.diagnostics.runs import PLUGIN, TOPIC
from dsoftmax.events import Callback, Event, FitEnded, FitResumed

_INTERVAL_SECONDS = 0.25
_LAST_SECONDS = 5.0
# Fields that must not reach the dashboard, which anyone may open: a place can be a URL that holds
# credentials, and reasons name places.
_PRIVATE = {
    "started": {"dashboard"},
    "resumed": {"place"},
    "checkpoint": {"place"},
    "quarantined": {"reason"},
}
_log = logging.getLogger(__name__)
_warned: set[str] = set()


@contextmanager
def reporting(client: Any, run: str) -> Iterator[Sequence[Callback]]:
    """Yield the callback that sends the events of a fit to its scheduler, or none in-process.

    Parameters
    ----------
    client : distributed.Client or None
        Where the fit runs; None for this process.
    run : str
        Key of the fit.

    Warns
    -----
    UserWarning
        If the scheduler cannot show runs; once for each scheduler.
    """
    if client is None or not _install_plugin(client):
        yield ()
        return
    report = Report(client, run)
    try:
        yield (report,)
    except BaseException as error:
        report.fail(type(error).__name__)
        raise


class Report:
    """Sends events in batches, from the thread of the client, so that the fit need not wait.

    An error ends the report, and not the fit.

    Parameters
    ----------
    client : distributed.Client
    run : key of the fit
    """

    def __init__(self, client: Any, run: str) -> None:
        self._client, self._run = client, run
        self._pending: list[Message] = []
        self._due = self._broken = False
        self._lock = threading.Lock()  # guards the three above, which two threads change
        self._in_order = asyncio.Lock()  # a batch waits until the one before it has arrived

    def on_event(self, event: Event) -> None:
        """Send an event with the next batch; the last event is sent at once."""
        self._add(public(event))
        if isinstance(event, FitEnded):
            self._send_now()

    def fail(self, reason: str) -> None:
        """Send that the fit has raised an error."""
        self._add({"event": "failed", "reason": reason})
        self._send_now()

    def _add(self, message: Message) -> None:
        with self._lock:
            if self._broken:
                return
            last = self._pending[-1]["event"] if self._pending else None
            if last == message["event"] == "rows":  # only the latest counts
                self._pending.pop()
            self._pending.append(message)
            is_first, self._due = not self._due, True
        if is_first:
            try:
                self._client.loop.add_callback(self._send_soon)
            except Exception:  # the client was closed
                self._give_up()

    async def _send_soon(self) -> None:
        # Events come in bursts, and a message each would keep the scheduler busy.
        await asyncio.sleep(_INTERVAL_SECONDS)
        await self._send()

    async def _send(self) -> None:
        async with self._in_order:
            with self._lock:
                messages, self._pending = self._pending, []
                self._due = False
            if not messages:
                return
            message = {"run": self._run, "client": self._client.id, "messages": messages}
            try:
                await self._client.scheduler.log_event(topic=TOPIC, msg=message)
            except Exception:  # a fit that needs the scheduler notices its loss by itself
                self._give_up()

    def _send_now(self) -> None:
        if self._client.status == "running" and not self._broken:
            with suppress(Exception):
                # The process may end right after the fit, and the event loop with it.
                self._client.sync(self._send, callback_timeout=_LAST_SECONDS)

    def _give_up(self) -> None:
        with self._lock:
            self._broken, self._pending = True, []
        _log.debug("the scheduler does not take events any more", exc_info=True)


def public(event: Event) -> Message:
    """Return an event as a message without what may hold credentials."""
    message = as_message(event)
    for name in _PRIVATE.get(message["event"], ()):
        del message[name]
    if isinstance(event, FitResumed):
        message["records"] = [as_message(earlier) for earlier in event.events]
    return message


def _install_plugin(client: Any) -> bool:
    """Install the plugin on the scheduler, and return whether that worked."""
    # Imported here, since a fit in this process needs no plugin.
    from dsoftmax.diagnostics.dashboard import RunsPlugin

    try:
        client.register_plugin(RunsPlugin(), name=PLUGIN)
    except Exception as error:  # no dsoftmax there, another version, or plugins are refused
        address = client.scheduler.address
        if address not in _warned:
            _warned.add(address)
            warnings.warn(
                f"the scheduler at {address} cannot show this run ({type(error).__name__}: "
                f"{error}); install dsoftmax there for the dashboard page /dsoftmax. The fit goes "
                "on without it",
                stacklevel=2,
            )
        return False
    return True
