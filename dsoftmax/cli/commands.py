"""The commands by name, and how each of them ends."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.metadata import version

import click

from dsoftmax.cli import signals
from dsoftmax.errors import CheckpointError, DataError, DsoftmaxError, OutageError

COMMANDS = ("certs", "demo", "evaluate", "ingest", "inspect", "plan", "predict", "train")
_FAILED, _BAD_USAGE = 1, 2
_PLACES = ("checkpoint", "run_folder", "resume")  # parameters by which a command goes on


class _LazyGroup(click.Group):
    """Imports a command's module when the command is called, so that `--help` is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"dsoftmax.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return _Stoppable(command)


class _Stoppable(click.Command):
    """A command that signals may interrupt once all of its arguments are known."""

    def __init__(self, command: click.Command) -> None:
        self.__dict__.update(vars(command))

    def invoke(self, ctx: click.Context) -> None:
        """Call the command, and say how it ended if it was stopped."""
        named = any(ctx.params.get(name) for name in _PLACES)
        resumable = named and not ctx.params.get("dry_run")
        try:
            signals.interruptible(partial(super().invoke, ctx), resumable=resumable)
        except KeyboardInterrupt:
            raise _stopped() from None
        except (click.ClickException, click.exceptions.Exit, DataError, CheckpointError):
            raise
        except Exception as error:
            # What is interrupted may fail in its own way: a connection that is cut, say.
            if not (signals.received() or (resumable and isinstance(error, OutageError))):
                raise
            say(f"Error: {error}")
            raise _stopped() from error


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("dsoftmax"), prog_name="dsoftmax")
def cli() -> None:
    """Train softmax regression on data larger than memory.

    Exit codes: 0 done, 1 failed, 2 bad usage or bad data, 75 stopped early: run it again to go on,
    130 (Ctrl-C), 143 (SIGTERM) or 129 (SIGHUP) stopped, with nothing to go on from.
    """


def run() -> int:
    """Run the command line, and return its exit code; an error of dsoftmax becomes one message."""
    try:
        code = cli(prog_name="dsoftmax", standalone_mode=False)
    except click.ClickException as error:
        # It quotes the command line.
        error.message = _public(error.message)  # type: ignore[misc]
        error.show()
        return error.exit_code
    except click.Abort:  # of a prompt, or an input that has ended
        return signals.exit_code()
    except (DsoftmaxError, OSError) as error:  # others are bugs, and worth a traceback
        say(f"Error: {error}")
        return _BAD_USAGE if isinstance(error, DataError) else _FAILED
    return code if isinstance(code, int) else 0


def say(text: str) -> None:
    """Print on standard error, which is gone with a terminal that was closed."""
    with suppress(OSError):
        click.echo(_public(text), err=True)


def _public(text: str) -> str:
    from dsoftmax.storage.credentials import public_text  # late, so that `--help` is instant

    return public_text(text)


def _stopped() -> click.exceptions.Exit:
    """Say that the command was stopped, and return what ends it."""
    code = signals.exit_code()
    if code == signals.TEMPORARY_FAILURE:
        say("stopped early; run this again to go on")
    elif code:
        say(f"stopped by {signals.received() or 'an interrupt'}")
    return click.exceptions.Exit(code)
