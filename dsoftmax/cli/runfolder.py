"""The folder of a run: its model, history, plan, log and configuration, enough to repeat it."""

from __future__ import annotations

import io
import json
import logging
import platform
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import click
import tomli_w

from dsoftmax.errors import DataError, DsoftmaxError
from dsoftmax.storage.atomic_folder import open_folder

_LOGGER = logging.getLogger("dsoftmax.run")
_LIBRARIES = ("dsoftmax", "numpy", "zarr", "dask", "distributed")


@dataclass(frozen=True)
class RunFolder:
    """Where the parts of a run are.

    Attributes
    ----------
    path : of the folder
    """

    path: Path

    @property
    def model(self) -> str:
        """Place of the model, where no other is named."""
        return str(self.path / "model.zarr")

    @property
    def checkpoint(self) -> str:
        """Place of the checkpoint, where no other is named."""
        return str(self.path / "state")

    def begin(self, configuration: dict[str, Any]) -> None:
        """Make the folder, and write down what will be done.

        Raises
        ------
        DataError
            If it cannot be written to.
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
        """Write down what was done, with the seed, whether it was given or drawn."""
        model = {**configuration.get("model", {}), "random_state": seed}
        self._write("config.toml", _as_text({**configuration, "model": model}))
        self._write("history.json", json.dumps(list(history), indent=1) + "\n")

    def plan(self, text: str) -> None:
        """Write the plan."""
        self._write("plan.txt", text + "\n")

    @contextmanager
    def log(self, *, to_stderr: bool) -> Iterator[None]:
        """Have `say`, and warnings, go to the end of log.txt, and to standard error if asked."""
        handlers: list[logging.Handler] = [logging.FileHandler(self.path / "log.txt")]
        if to_stderr:
            handlers.append(logging.StreamHandler(sys.stderr))
        for handler in handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
            _LOGGER.addHandler(handler)
        _LOGGER.setLevel(logging.INFO)
        _LOGGER.propagate = False
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _log_warning
                yield
        except (DsoftmaxError, OSError) as error:
            for handler in handlers[1:]:  # it will be told on standard error all the same
                _LOGGER.removeHandler(handler)
            say(f"Error: {error}")
            raise
        finally:
            for handler in handlers:
                _LOGGER.removeHandler(handler)
                handler.close()

    def _write(self, name: str, text: str) -> None:
        open_folder(self.path).write(name, text.encode())


def say(text: str) -> None:
    """Write a line to the log of the run under way, if there is one."""
    for line in text.splitlines():
        _LOGGER.info("%s", line)


def tell(text: str) -> None:
    """Write a line to the log of the run under way, and to standard error in any case."""
    say(text)
    streams = [getattr(handler, "stream", None) for handler in _LOGGER.handlers]
    if sys.stderr not in streams:
        click.echo(text, err=True)


class LogLines(io.StringIO):
    """A stream whose lines go to the log."""

    def write(self, text: str) -> int:
        """Write whole lines."""
        say(text)
        return len(text)


def environment() -> str:
    """Return in a line what computes: machine, Python and libraries."""
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return f"{socket.gethostname()}, Python {platform.python_version()}, {libraries}"


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say(f"warning: {message}")


def _as_text(configuration: dict[str, Any]) -> str:
    return f"# {environment()}\n\n{tomli_w.dumps(configuration)}"
