"""How commands name their data, and sizes."""

from __future__ import annotations

import click
from dask.utils import parse_bytes

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
