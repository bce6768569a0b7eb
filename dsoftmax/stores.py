"""New Zarr groups that are there when they are complete, and not before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zarr
from zarr.codecs import ZstdCodec

from dsoftmax.errors import DataError


def checksummed() -> ZstdCodec:
    """Return the codec of everything dsoftmax writes.

    Zstd alone lets most flipped bits pass as other numbers; its checksum catches them.
    """
    return ZstdCodec(level=3, checksum=True)


def locate(place: str | os.PathLike[str]) -> Path | str:
    """Return a local place as a path, and any other as the URL it is."""
    url = os.fspath(place).removeprefix("file://")
    return url if "://" in url else Path(url)


@contextmanager
def new_group(destination: Path | str, overwrite: bool) -> Iterator[zarr.Group]:
    """Open a group at a URL, or beside a local destination, moved there when it is complete."""
    if isinstance(destination, str):
        yield _remote_group(destination, overwrite)
        return
    path = destination.resolve()
    if os.path.lexists(path) and not (overwrite and _is_store(path)):
        raise _taken(path)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        yield zarr.open_group(partial, mode="w", zarr_format=3)
        _move(partial, path, overwrite)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remote_group(url: str, overwrite: bool) -> zarr.Group:
    try:
        # Mode "w" empties whatever folder the URL names, so never one that is no store.
        replace = overwrite and _is_store(url)
        return zarr.open_group(url, mode="w" if replace else "w-", zarr_format=3)
    except FileExistsError as error:
        raise _taken(url) from error


def _move(folder: Path, path: Path, overwrite: bool) -> None:
    # What is replaced is only removed last: until then it can be found under its other name.
    replaced = folder.with_name(f"{folder.name}-replaced")
    if overwrite and os.path.lexists(path):
        path.rename(replaced)
    folder.rename(path)
    shutil.rmtree(replaced, ignore_errors=True)


def _is_store(place: Path | str) -> bool:
    try:
        zarr.open(place, mode="r")
    except (ValueError, OSError):
        return False
    return True


def _taken(place: Path | str) -> DataError:
    held = (
        "a Zarr store: pass overwrite=True to replace it, or"
        if _is_store(place)
        else "something other than a Zarr store, which is never replaced:"
    )
    return DataError(f"{place} already holds {held} choose another destination")
