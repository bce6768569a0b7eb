"""The folder of a run: model, history, plan, log and configuration, enough to repeat the run."""

from __future__ import annotations

import io
import json
import logging
import platform
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import tomli_w

from dsoftmax.errors import DataError, DsoftmaxError
from dsoftmax.events import CandidatesJudged, Event, FitStarted, PassEnded
from dsoftmax.storage.atomic_folder import open_folder
from dsoftmax.storage.credentials import public_text

if TYPE_CHECKING:
    from dsoftmax.data.source import Source
    from dsoftmax.runtime.memory import Location

_LOGGER = logging.getLogger("dsoftmax.run")
_LIBRARIES = ("dsoftmax", "numpy", "zarr", "dask", "distributed")


@dataclass(frozen=True)
class RunFolder:
    """The folder that `--run-folder` names."""

    path: Path

    @property
    def model(self) -> str:
        """Path of the model, unless the command names another."""
        return str(self.path / "model.zarr")

    @property
    def checkpoint(self) -> str:
        """Path of the checkpoint, unless the command names another."""
        return str(self.path / "state")

    def begin(self, configuration: dict[str, Any]) -> None:
        """Make the folder, and write the configuration.

        Raises
        ------
        DataError
            If the folder cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._write("config.toml", _as_text(configuration))
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be written to ({error}); give another folder"
            ) from error

    def end(
        self, configuration: dict[str, Any], seed: int, history: Sequence[dict[str, Any]]
    ) -> None:
        """Write the history, and the configuration with the seed that was given or drawn."""
        model = {**configuration.get("model", {}), "random_state": seed}
        self._write("config.toml", _as_text({**configuration, "model": model}))
        self._write("history.json", json.dumps(list(history), indent=1) + "\n")

    def plan(self, text: str) -> None:
        """Write the plan."""
        self._write("plan.txt", text + "\n")

    @contextmanager
    def log_to_file(self, *, to_stderr: bool) -> Iterator[None]:
        """Write log lines and warnings to log.txt, and if asked to standard error."""
        handlers: list[logging.Handler] = [logging.FileHandler(self.path / "log.txt")]
        if to_stderr:
            handlers.append(logging.StreamHandler(sys.stderr))
        for handler in handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
            _LOGGER.addHandler(handler)
        _LOGGER.setLevel(logging.INFO)
        _LOGGER.propagate = False  # the root logger would print the lines a second time
        try:
            with warnings.catch_warnings():
                # Python calls it with positional arguments only.
                warnings.showwarning = _log_warning  # type: ignore[assignment]
                yield
        except (DsoftmaxError, OSError) as error:
            for handler in handlers[1:]:  # `main` prints it on standard error
                _LOGGER.removeHandler(handler)
            write_log(f"Error: {error}")
            raise
        finally:
            for handler in handlers:
                _LOGGER.removeHandler(handler)
                handler.close()

    def _write(self, name: str, text: str) -> None:
        open_folder(self.path).write(name, text.encode())


@dataclass
class PlanFile:
    """A callback that keeps the plan of a run in its folder: of the workers that it runs on.

    They may come one by one, some of them after the run has started.
    """

    folder: RunFolder
    source: Source
    model: Any
    site: Location | None = None

    def on_event(self, event: Event) -> None:
        """Write the plan when the run starts, and after a pass if there are other workers."""
        from dsoftmax.estimators.plan import plan_at
        from dsoftmax.runtime.select import current_location

        if not isinstance(event, FitStarted | PassEnded | CandidatesJudged):
            return
        site = current_location(self.source)
        if site != self.site:
            self.site = site
            with suppress(DsoftmaxError):  # a worker that has come may be too small
                self.folder.plan(str(plan_at(site, self.source, self.model)))


def write_log(text: str) -> None:
    """Write lines to the log of the current run, if it has one."""
    for line in public_text(text).splitlines():
        _LOGGER.info("%s", line)


def log_and_print(text: str) -> None:
    """Write lines to the log of the current run, and to standard error in any case."""
    write_log(text)
    streams = [getattr(handler, "stream", None) for handler in _LOGGER.handlers]
    if sys.stderr not in streams:
        click.echo(text, err=True)


class LogLines(io.StringIO):
    """A stream that writes to the log of the current run."""

    def write(self, text: str) -> int:
        """Write whole lines."""
        write_log(text)
        return len(text)


def environment() -> str:
    """Return machine, Python and libraries in a line."""
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return f"{socket.gethostname()}, Python {platform.python_version()}, {libraries}"


def _log_warning(message: Warning | str, *_: Any) -> None:
    write_log(f"warning: {message}")


def _as_text(configuration: dict[str, Any]) -> str:
    return f"# {environment()}\n\n{tomli_w.dumps(configuration)}"
