"""New Zarr groups that are there when they are complete, and not before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from dsoftmax.errors import DataError
from dsoftmax.storage.urls import storage_options


def create_array(
    where: zarr.Group | str,
    name: str | None,
    shape: Sequence[int],
    dtype: Any,
    chunks: Sequence[int],
    attributes: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> zarr.Array[Any]:
    """Create an array of which every chunk will be written, with checksums.

    Parameters
    ----------
    where : a group, or with `name` None the path or URL of the array itself
    name : of the array within the group
    shape, dtype, chunks : of the array
    attributes : of the array, beside our own
    overwrite : whether to replace an array that is there
    """
    in_group = isinstance(where, zarr.Group)
    return zarr.create_array(
        where.store_path if isinstance(where, zarr.Group) else where,
        storage_options=None if in_group else storage_options(str(where)),
        name=name,
        shape=tuple(shape),
        # Zarr 3 has no specification of fixed-length strings, and warns of it.
        dtype="string" if np.dtype(dtype).kind == "U" else dtype,
        chunks=tuple(chunks),
        # Zstd alone lets most flipped bits pass as other numbers; its checksum catches them.
        compressors=ZstdCodec(level=3, checksum=True),
        # With every chunk written, one that is missing is damage, never zeros.
        config={"write_empty_chunks": True},
        attributes={COMPLETE: True, **(attributes or {})},
        overwrite=overwrite,
    )


def locate(place: str | os.PathLike[str]) -> Path | str:
    """Return a local place as a path, and any other as the URL it is."""
    url = os.fspath(place).removeprefix("file://")
    return url if "://" in url else Path(url).expanduser()


@contextmanager
def new_group(destination: Path | str, overwrite: bool) -> Iterator[zarr.Group]:
    """Open a new group (Zarr format 3) at a place of `new_node`."""
    with new_node(destination, overwrite) as place:
        try:
            group = zarr.open_group(
                place,
                mode=_mode(place, overwrite),
                zarr_format=3,
                storage_options=storage_options(str(place)),
            )
        except FileExistsError as error:
            raise _taken(place) from error
        yield group


@contextmanager
def new_node(destination: Path | str, overwrite: bool) -> Iterator[Path | str]:
    """Yield where to write: a URL itself, or a place beside a local destination.

    What is written beside a local destination is moved there at the end, and removed on any error.

    Raises
    ------
    DataError
        If the destination is taken, and either `overwrite` is not set or it is no Zarr store.
    """
    require_free(destination, overwrite)
    if isinstance(destination, str):
        yield destination
        return
    path = destination.resolve()
    partial = path.with_name(f"{path.name}.partial-{uuid4().hex[:8]}")
    try:
        yield partial
        _move(partial, path, overwrite)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def kept_node(destination: Path | str, overwrite: bool) -> Iterator[Path | str]:
    """Yield where to write, as `new_node` does; but what is unfinished stays, to be gone on with.

    It is then at the URL itself, or beside a local destination, with ".partial" to its name.

    Raises
    ------
    DataError
        As `new_node`; at a URL, which may hold an unfinished array, only the caller can tell.
    """
    if isinstance(destination, str):
        yield destination
        return
    require_free(destination, overwrite)
    path = destination.resolve()
    partial = path.with_name(f"{path.name}.partial")
    yield partial
    _move(partial, path, overwrite)


def require_free(destination: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise DataError if a destination is taken, and may not or must not be replaced."""
    place = locate(destination)
    if _is_there(place) and not (overwrite and _is_store(place)):
        raise _taken(place)
    if isinstance(place, Path):
        require_writable(place.resolve().parent)


def require_writable(folder: Path) -> None:
    """Raise DataError unless a folder can be written to, or made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise DataError(f"{folder} cannot be written to; choose another destination")


def require_apart(destination: str | os.PathLike[str], *sources: str | None) -> None:
    """Raise DataError if a destination is, holds, or lies in something that is read for it."""
    place = str(_resolved(destination))
    for source in filter(None, sources):
        other = str(_resolved(source))
        if f"{place}/".startswith(f"{other}/") or f"{other}/".startswith(f"{place}/"):
            raise DataError(
                f"{place} would be written over {other}, which is read for it; choose a "
                "destination apart from it"
            )


def _resolved(place: str | os.PathLike[str]) -> Path | str:
    located = locate(place)
    return located.resolve() if isinstance(located, Path) else located.rstrip("/")


def _is_there(place: Path | str) -> bool:
    return os.path.lexists(place) if isinstance(place, Path) else _is_store(place)


def _mode(place: Path | str, overwrite: bool) -> Literal["w", "w-"]:
    # Mode "w" empties whatever folder a URL names, so it is never used on one that is no store.
    return "w" if overwrite and _is_store(place) else "w-"


def _move(folder: Path, path: Path, overwrite: bool) -> None:
    # What is replaced is only removed last: until then it can be found under its other name.
    replaced = folder.with_name(f"{folder.name}-replaced")
    if overwrite and os.path.lexists(path):
        path.rename(replaced)
    folder.rename(path)
    shutil.rmtree(replaced, ignore_errors=True)


def _is_store(place: Path | str) -> bool:
    try:
        zarr.open(place, mode="r", storage_options=storage_options(str(place)))
    except (ValueError, OSError):
        return False
    return True


def _taken(place: Path | str) -> DataError:
    held = (
        "a Zarr store: pass overwrite=True (--overwrite) to replace it, or"
        if _is_store(place)
        else "something other than a Zarr store, which is never replaced:"
    )
    return DataError(f"{place} already holds {held} choose another destination")


COMPLETE = "dsoftmax_complete"  # attribute of arrays of which every chunk was written
