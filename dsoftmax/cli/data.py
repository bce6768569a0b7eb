"""How commands name their data, and sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from dask.utils import parse_bytes

from dsoftmax.errors import DataError

if TYPE_CHECKING:
    from dsoftmax.data.source import Source

_LEAST_MEMORY = 200 * 2**20  # Python and its libraries take half of it


def array_in(group: str, name: str) -> str:
    """Return the path or URL of an array in a group."""
    return f"{group.rstrip('/')}/{name}"


def in_bytes(_: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """Return a number of bytes, or a text such as 2GiB, as bytes: a callback of an option."""
    try:
        size = None if value is None else int(parse_bytes(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no size such as 2GiB or 500MB") from None
    least = _LEAST_MEMORY if option.name == "memory_limit" else 1
    if size is not None and size < least:
        raise click.BadParameter(f"{value!r} is less than {least:,} bytes")
    return size


_OPTIONS = (
    click.option("--x", default="X", show_default=True, help="Array of the features in DATA."),
    click.option("--y", default="y", show_default=True, help="Array of the labels in DATA."),
    click.option("--sample-weight", metavar="NAME", help="Array of the weights in DATA."),
    click.option("--ignore-label", metavar="LABEL", help="Leave out the rows with this label."),
    click.option("--drop-missing", is_flag=True, help="Leave out rows with a NaN or an infinity."),
    click.option("--dtype", type=click.Choice(["float32", "float64"]), help="What to compute in."),
)


def data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what to read of DATA, as `opened` takes them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def opened(
    data: str,
    x: str,
    y: str,
    sample_weight: str | None,
    ignore_label: str | None,
    drop_missing: bool,
    dtype: str | None,
    max_bad_chunks: int | None = None,
) -> Source:
    """Return the source that the options name."""
    from dsoftmax.data.opening import open_data

    arrays = [None if name is None else array_in(data, name) for name in (x, y, sample_weight)]
    return open_data(
        *arrays,
        dtype=dtype,
        missing="drop" if drop_missing else "raise",
        ignore_label=None if ignore_label is None else _label(ignore_label, arrays[1]),
        on_bad_chunk="raise" if max_bad_chunks is None else "skip",
        max_bad_chunks=max_bad_chunks or 0,
    )


def _label(text: str, labels: str | None) -> Any:
    """Return a label as the array of the labels holds it."""
    from dsoftmax.data.opening import row_array

    dtype = row_array("y", labels).dtype
    if dtype.kind not in "biuf":
        return text
    try:
        return float(text) if dtype.kind == "f" else int(text)
    except ValueError:
        raise DataError(
            f"--ignore-label is {text!r}, and {labels} holds {dtype}; expected a number"
        ) from None
