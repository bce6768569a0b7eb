"""The options by which a command finds its workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from dsoftmax.cli.data import in_bytes
from dsoftmax.runtime.connect import connected, local_workers

_META = "dsoftmax.cluster."


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    if parameter.name == "memory_limit":
        value = in_bytes(ctx, parameter, value)
    ctx.meta[f"{_META}{parameter.name}"] = value


_OPTIONS = (
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        expose_value=False,
        callback=_remember,
        help="Run on the Dask cluster at this address.",
    ),
    click.option(
        "--scheduler-file",
        type=click.Path(dir_okay=False, path_type=Path),
        expose_value=False,
        callback=_remember,
        help="Run on the Dask cluster whose scheduler writes this file, now or soon.",
    ),
    click.option(
        "--certs",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        expose_value=False,
        callback=_remember,
        help="Connect to it by TLS, with the certificate that `dsoftmax certs` made there.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        expose_value=False,
        callback=_remember,
        help="Start so many local workers; by default one a core, if the data are large.",
    ),
    click.option(
        "--memory-limit",
        metavar="SIZE",
        expose_value=False,
        callback=_remember,
        help='Memory of a local worker, such as "2 GiB".',
    ),
)

Command = Callable[..., None]


def cluster_options(command: Command) -> Command:
    """Add the options to a command that calls `active_cluster`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@contextmanager
def active_cluster() -> Iterator[None]:
    """Make the cluster that the options of the current command name the active one."""
    scheduler, file, certs, workers, memory_limit = _chosen(click.get_current_context())
    if scheduler and file:
        raise click.UsageError("give --scheduler or --scheduler-file, not both")
    if (scheduler or file) and (workers or memory_limit):
        raise click.UsageError("--workers and --memory-limit start a local cluster; drop them")
    if certs and not (scheduler or file):
        raise click.UsageError("--certs is for --scheduler or --scheduler-file")
    if file and not file.exists():
        click.echo(f"waiting for a scheduler to write {file}", err=True)
    with ExitStack() as stack:
        if scheduler or file:
            stack.enter_context(connected(scheduler, file, certs))
        elif workers or memory_limit:
            stack.enter_context(local_workers(workers, memory_limit))
        yield


def _chosen(ctx: click.Context) -> list[Any]:
    """Return the values of the options; a cluster on the command line is not that of the file."""
    names = ("scheduler", "scheduler_file", "certs", "workers", "memory_limit")
    values = {name: ctx.meta[f"{_META}{name}"] for name in names}
    here = {n for n in names if ctx.get_parameter_source(n) is ParameterSource.COMMANDLINE}
    replaced: set[str] = set()
    if here & {"scheduler", "scheduler_file"}:
        replaced = {"scheduler", "scheduler_file", "workers", "memory_limit"}
    elif here & {"workers", "memory_limit"}:
        replaced = {"scheduler", "scheduler_file", "certs"}
    return [None if name in replaced - here else values[name] for name in names]
