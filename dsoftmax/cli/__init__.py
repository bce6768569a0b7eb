"""The command line: one module per command, imported when the command is called."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from typing import Any

import click

from dsoftmax.errors import DataError, DsoftmaxError

_COMMANDS = ("certs", "demo", "evaluate", "ingest", "inspect", "plan", "predict", "train")
_FAILED, _BAD_USAGE = 1, 2


class _LazyGroup(click.Group):
    """Imports a command's module when the command is called, so that `--help` is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(import_module(f"dsoftmax.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            # It quotes the command line.
            error.message = _public(error.message)  # type: ignore[misc]
            raise


def _public(text: str) -> str:
    from dsoftmax.storage.credentials import public_text  # late, so that `--help` is instant

    return public_text(text)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("dsoftmax"), prog_name="dsoftmax")
def cli() -> None:
    """Train softmax regression on data larger than memory.

    Exit codes: 0 done, 1 failed or interrupted, 2 bad usage or bad data, 75 stopped early with a
    checkpoint.
    """


def main() -> None:
    """Run the command line; errors of dsoftmax become one message and an exit code."""
    try:
        cli(prog_name="dsoftmax")
    except (DsoftmaxError, OSError) as error:  # others are bugs, and worth a traceback
        click.echo(_public(f"Error: {error}"), err=True)
        sys.exit(_BAD_USAGE if isinstance(error, DataError) else _FAILED)
