"""The plugin of the scheduler that shows runs: the page /dsoftmax of its dashboard, /metrics.

A fit installs the plugin. To have it from the start::

    dask scheduler --preload dsoftmax.diagnostics.dashboard
"""

from __future__ import annotations

import functools
import logging
import time
from typing import Any

from distributed import Scheduler, SchedulerPlugin

from dsoftmax.diagnostics.runs import PLUGIN, TOPIC, Runs

_log = logging.getLogger(__name__)
_LONGEST_LINE = 300  # characters of a line of the log


class RunsPlugin(SchedulerPlugin):  # type: ignore[misc]  # distributed is untyped here
    """Remembers the events of fits, and shows them.

    An error in here is logged, and does not stop the scheduler.

    Attributes
    ----------
    runs : Runs
    """

    name = PLUGIN
    idempotent = True

    def __init__(self) -> None:
        self.runs = Runs()

    async def start(self, scheduler: Scheduler) -> None:
        """Add the page to the dashboard and the figures to /metrics, where they exist."""
        for show in (_add_page, _add_metrics):
            # An exception in a plugin's start would keep the scheduler from starting.
            try:
                show(scheduler, self.runs)
            except Exception:
                _log.exception("dsoftmax: %s failed; the scheduler goes on", show.__name__)

    def log_event(self, topic: str, msg: Any) -> None:
        """Receive the messages that a fit has sent."""
        if topic != TOPIC:
            return
        try:
            self.runs.receive(msg["run"], msg["client"], msg["messages"], time.time())
        except Exception as error:
            what = f"{type(error).__name__}: {error}"[:_LONGEST_LINE]
            _log.warning("dsoftmax: ignored what is no message of a fit (%r)", what)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Mark the fits of a client that has disconnected."""
        self.runs.client_left(client)


def dask_setup(scheduler: Scheduler) -> None:
    """Add the plugin to a scheduler with `--preload`; the scheduler starts it a little later."""
    scheduler.add_plugin(RunsPlugin(), name=PLUGIN, idempotent=True)


def _add_page(scheduler: Scheduler, runs: Runs) -> None:
    application: Any = getattr(scheduler, "http_application", None)
    boards = [app for app in getattr(application, "applications", ()) if hasattr(app, "app_paths")]
    if not boards:  # the dashboard is off
        return
    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables
    from tornado.ioloop import IOLoop

    variables = template_variables(scheduler)
    if PLUGIN not in variables["pages"]:
        variables["pages"].append(PLUGIN)  # the list behind the navigation of every page
    pages = {f"/{PLUGIN}": functools.partial(_document, runs)}
    # A board of its own: Dask's has a fixed list of pages, which it built at its start.
    board = BokehApplication(pages, scheduler, boards[0].prefix, variables)
    for earlier in filter(_is_ours, boards):  # of a plugin that was removed
        application.applications.remove(earlier)
    application.add_application(board)
    board.initialize(IOLoop.current())
    board.start()


def _is_ours(board: Any) -> bool:
    return any(path.endswith(f"/{PLUGIN}") for path in board.app_paths)


def _document(runs: Runs, scheduler: Scheduler, extra: dict[str, Any], document: Any) -> None:
    """Build the page for a browser that opens it."""
    from distributed.dashboard.components.scheduler import BOKEH_THEME, env

    # Imported here, since every client imports this module, and needs no Bokeh.
    from dsoftmax.diagnostics.page import TEMPLATES, Page, WorkerMemory

    def memory() -> list[WorkerMemory]:
        return [
            WorkerMemory(_short(w.name), w.metrics.get("memory", 0), w.memory_limit or 0)
            for w in scheduler.workers.values()
        ]

    document.title = "Dask: dsoftmax"
    document.theme = BOKEH_THEME
    document.template = env.from_string((TEMPLATES / "page.html").read_text())
    document.template_variables.update(extra)
    Page(runs, memory).show_in(document)


def _short(name: Any) -> str:
    """Return the name of a worker; where it has none, Dask's is its address, with a protocol."""
    return str(name).rpartition("://")[2]


def _add_metrics(scheduler: Scheduler, runs: Runs) -> None:
    from dsoftmax.diagnostics import prometheus

    prometheus.register(runs)
