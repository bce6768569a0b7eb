"""Options that several commands share: what to read, and where to run.

Their values are kept in click's context, by group, and do not pass through the signatures of the
commands: `Reading.from_options` and `active_cluster` take them from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from dask.utils import parse_bytes

from dsoftmax.errors import DataError, quoted
from dsoftmax.runtime.connect import connected, local_workers
from dsoftmax.storage.credentials import public_url
from dsoftmax.storage.urls import locate

if TYPE_CHECKING:
    from dsoftmax.data.source import Source

Command = Callable[..., None]
Decorator = Callable[[Command], Command]

_MIN_WORKER_MEMORY = 200 * 2**20  # Python and its libraries take half of it


class PlacePath(click.Path):
    """A path that a system can follow: click raises other errors where there is a NUL, say."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        locate(value)
        return super().convert(value, param, ctx)


def option_of(group: str) -> Callable[..., Decorator]:
    """Return `click.option` for options whose values `values_of` returns."""
    return partial(click.option, expose_value=False, callback=partial(_keep, group))


def _keep(group: str, ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    # click calls this for every option, given or not, so that a group is always complete.
    ctx.meta.setdefault(f"dsoftmax.{group}", {})[parameter.name] = value


def values_of(group: str, *, given: bool = False) -> dict[str, Any]:
    """Return the values of a group for the current command, or those on its command line."""
    ctx = click.get_current_context()
    values: dict[str, Any] = ctx.meta.get(f"dsoftmax.{group}", {})
    return {name: value for name, value in values.items() if not given or is_given(ctx, name)}


def is_given(ctx: click.Context, name: str) -> bool:
    """Return whether a parameter is on the command line."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def all_of(*options: Decorator) -> Decorator:
    """Return the decorator that adds all the options to a command."""

    def add(command: Command) -> Command:
        # Python applies decorators from the bottom up, and --help lists options from the top down.
        for option in reversed(options):
            command = option(command)
        return command

    return add


def n_bytes(text: str | int, minimum: int = 1) -> int:
    """Return a number of bytes, or a text such as 2GiB, as bytes: the type of an option."""
    try:
        size = int(parse_bytes(text))
    except ValueError:
        raise click.BadParameter(f"{quoted(text)} is no size such as 2GiB or 500MB") from None
    if size < minimum:
        raise click.BadParameter(f"{quoted(text)} is less than {minimum:,} bytes")
    return size


def worker_limit(text: str | int) -> int:
    """Return the memory limit of a worker in bytes, 0 for none, as `dask worker` takes it."""
    return n_bytes(text, 0) and worker_bytes(text)


def worker_bytes(text: str | int) -> int:
    """Return the memory of a worker in bytes, which is enough for one to start."""
    return n_bytes(text, _MIN_WORKER_MEMORY)


data_option = option_of("data")
decode_option = data_option(
    "--decode/--no-decode",
    default=None,
    help="Read numbers as the attributes of their array say (_FillValue, scale_factor, ...): the "
    "default, but for a model that was trained without.",
)
data_options = all_of(
    data_option("--x", default="X", show_default=True, help="Array of the features in DATA."),
    data_option("--y", default="y", show_default=True, help="Array of the labels in DATA."),
    data_option("--sample-weight", metavar="NAME", help="Array of the weights in DATA."),
    data_option("--ignore-label", metavar="LABEL", help="Leave out the rows with this label."),
    data_option("--drop-missing", is_flag=True, help="Leave out rows with a missing value."),
    decode_option,
    data_option("--dtype", type=click.Choice(["float32", "float64"]), help="What to compute in."),
)


@dataclass(frozen=True)
class Reading:
    """What to read of a Zarr group, as the data options say.

    Attributes
    ----------
    x, y, sample_weight : names of arrays in the group
    ignore_label : rows with this label are left out
    drop_missing : whether rows with missing values are left out
    decode : whether numbers are read as the attributes of their array say; None for the default
    dtype : what to compute in
    max_bad_chunks : how many unreadable chunks are left out; None raises for the first
    """

    x: str
    y: str
    sample_weight: str | None
    ignore_label: str | None
    drop_missing: bool
    decode: bool | None
    dtype: str | None
    max_bad_chunks: int | None = None

    @classmethod
    def from_options(cls) -> Reading:
        """Return what the options of the current command say."""
        return cls(**values_of("data"))

    def open(self, group: str, *, decode: bool = True) -> Source:
        """Return the rows of a Zarr group; `decode` is the default."""
        from dsoftmax.data.opening import open_data

        y, weight = array_in(group, self.y), self.sample_weight
        return open_data(
            array_in(group, self.x),
            y,
            None if weight is None else array_in(group, weight),
            dtype=self.dtype,
            missing="drop" if self.drop_missing else "raise",
            decode=decode if self.decode is None else self.decode,
            ignore_label=None if self.ignore_label is None else _label(self.ignore_label, y),
            on_bad_chunk="raise" if self.max_bad_chunks is None else "skip",
            max_bad_chunks=self.max_bad_chunks or 0,
        )

    def open_validation(self, group: str | None) -> Source | None:
        """Return the validation rows of a Zarr group, of which no chunk may be left out."""
        return None if group is None else replace(self, max_bad_chunks=None).open(group)


def array_in(group: str, name: str) -> str:
    """Return the path or URL of an array in a group."""
    return f"{group.rstrip('/')}/{name}"


def _label(text: str, labels: str) -> Any:
    """Return a label in the type of the array of labels."""
    from dsoftmax.data.opening import row_array

    dtype = row_array("y", labels).dtype
    if dtype.kind not in "biuf":
        return text
    try:
        return float(text) if dtype.kind == "f" else int(text)
    except ValueError:
        raise DataError(
            f"--ignore-label is {quoted(text)}, and {public_url(labels)} holds {dtype}; expected a "
            "number"
        ) from None


_cluster_option = option_of("cluster")
cluster_options = all_of(
    _cluster_option(
        "--scheduler", metavar="ADDRESS", help="Run on the Dask cluster at this address."
    ),
    _cluster_option(
        "--scheduler-file",
        type=PlacePath(dir_okay=False, path_type=Path),
        help="Run on the Dask cluster whose scheduler writes this file, now or soon.",
    ),
    _cluster_option(
        "--certs",
        type=PlacePath(exists=True, file_okay=False, path_type=Path),
        help="Connect to it by TLS, with the certificate that `dsoftmax certs` made there.",
    ),
    _cluster_option(
        "--workers",
        type=click.IntRange(min=1),
        help="Start so many local workers; by default one a core, if the data are large.",
    ),
    _cluster_option(
        "--memory-limit",
        metavar="SIZE",
        type=worker_limit,
        help='Memory of a local worker, such as "2 GiB"; 0 is no limit.',
    ),
    _cluster_option(
        "--threads-per-worker",
        metavar="N",
        type=click.IntRange(min=1),
        help="Tasks that a local worker runs at once; by default 1.",
    ),
)
_LOCAL = ("workers", "memory_limit", "threads_per_worker")


def given_workers() -> dict[str, Any] | None:
    """Return what the options of the current command say of local workers, None if nothing."""
    values = _cluster_values()
    local = {name: values[name] for name in _LOCAL if values[name] is not None}
    if local and (values["scheduler"] or values["scheduler_file"]):
        raise click.UsageError(
            "--workers, --memory-limit and --threads-per-worker start a local cluster; drop them"
        )
    return {"n_workers" if name == "workers" else name: local[name] for name in local} or None


@contextmanager
def active_cluster() -> Iterator[None]:
    """Make the cluster that the options of the current command name the active one."""
    values, workers = _cluster_values(), given_workers()
    scheduler, file, certs = (values[name] for name in ("scheduler", "scheduler_file", "certs"))
    if scheduler and file:
        raise click.UsageError("give --scheduler or --scheduler-file, not both")
    if certs and not (scheduler or file):
        raise click.UsageError("--certs is for --scheduler or --scheduler-file")
    if file and not file.exists():
        click.echo(f"waiting for a scheduler to write {file}", err=True)
    with ExitStack() as stack:
        if scheduler or file:
            stack.enter_context(connected(scheduler, file, certs))
        elif workers:
            stack.enter_context(local_workers(**workers))
        yield


def _cluster_values() -> dict[str, Any]:
    """Return the values of the options; a cluster on the command line replaces the file's."""
    values, given = values_of("cluster"), values_of("cluster", given=True)
    replaced: set[str] = set()
    if given.keys() & {"scheduler", "scheduler_file"}:
        replaced = {"scheduler", "scheduler_file", *_LOCAL}
    elif given.keys() & set(_LOCAL):
        replaced = {"scheduler", "scheduler_file", "certs"}
    return values | dict.fromkeys(replaced) | given
