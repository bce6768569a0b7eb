"""New Zarr arrays and groups, which get their name only when they are complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from dsoftmax.errors import DataError
from dsoftmax.storage.atomic_folder import missing_folders, remove_empty
from dsoftmax.storage.credentials import public_errors, public_url
from dsoftmax.storage.urls import absolute_url, error_text, locate, open_raw, storage_options

COMPLETE = "dsoftmax_complete"  # attribute of arrays of which every chunk was written


@public_errors()
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
    attributes : of the array, beside the one that dsoftmax sets
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


@contextmanager
def new_group(
    destination: Path | str, overwrite: bool, attributes: Mapping[str, Any] | None = None
) -> Iterator[zarr.Group]:
    """Open a new group (Zarr format 3) at a place of `new_node`, with attributes from the start."""
    with public_errors(), new_node(destination, overwrite) as place:
        # Mode "w" empties whatever folder a URL names, so it is never used on one that is no store.
        replace = overwrite and _is_store(place)
        try:
            group = zarr.open_group(
                place,
                mode="w" if replace else "w-",
                zarr_format=3,
                storage_options=storage_options(str(place)),
                attributes=dict(attributes or {}),
            )
        except FileExistsError as error:
            raise _exists_error(place) from error
        yield group


@contextmanager
def new_node(
    destination: Path | str, overwrite: bool, *, resumable: bool = False
) -> Iterator[Path | str]:
    """Yield where to write: a URL itself, or a place beside a local destination.

    What is written beside a local destination is moved there at the end, and removed on any
    error; if it is `resumable`, it stays there, with ".partial" added to its name.

    Raises
    ------
    DataError
        If the destination exists, and either `overwrite` is not set or it is no Zarr store. A
        resumable node at a URL is not checked: the caller has to tell whether it is unfinished.
    """
    if isinstance(destination, Path) or not resumable:
        require_free(destination, overwrite)
    if isinstance(destination, str):
        yield destination
        return
    path = destination.resolve()
    partial = path.with_name(f"{path.name}.partial")
    if not resumable:
        partial = path.with_name(f"{partial.name}-{uuid4().hex[:8]}")
    missing = missing_folders(path.parent)  # Zarr makes them
    try:
        yield partial
        _move(partial, path, overwrite)
    finally:
        if not resumable:
            shutil.rmtree(partial, ignore_errors=True)
        remove_empty(missing)


@public_errors()
def require_free(destination: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise DataError if a destination exists, and may not or must not be replaced."""
    place = locate(destination)
    exists = os.path.lexists(place) if isinstance(place, Path) else _is_store(place)
    if exists and not (overwrite and _is_store(place)):
        raise _exists_error(place)
    if isinstance(place, Path):
        require_writable(place.resolve().parent)


def require_writable(folder: Path) -> None:
    """Raise DataError unless a folder can be written to, or made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise DataError(f"{folder} cannot be written to; choose another destination")


def require_apart(destination: str | os.PathLike[str], *sources: str | None) -> None:
    """Raise DataError if a destination overlaps a source: is it, holds it, or lies in it."""
    place = absolute_url(destination).rstrip("/")
    for source in filter(None, sources):
        other = absolute_url(source).rstrip("/")
        if f"{place}/".startswith(f"{other}/") or f"{other}/".startswith(f"{place}/"):
            raise DataError(
                f"{public_url(place)} would be written over {public_url(other)}, which is read for "
                "it; choose a destination apart from it"
            )


def _move(folder: Path, path: Path, overwrite: bool) -> None:
    # The old node is removed last: if this process is killed before, it is still there under
    # its other name.
    replaced = folder.with_name(f"{folder.name}-replaced")
    if overwrite and os.path.lexists(path):
        path.rename(replaced)
    folder.rename(path)
    shutil.rmtree(replaced, ignore_errors=True)


def _is_store(place: Path | str) -> bool:
    try:
        open_raw(absolute_url(place))
    except (ValueError, OSError):
        return False
    except Exception as error:
        if "://" not in os.fspath(place):  # whatever damaged metadata make Zarr raise
            return False
        raise DataError(  # of a driver, which has classes of its own
            f"{public_url(place)} cannot be opened: {error_text(error)}; check the address, and "
            "the credentials in the environment or in the Dask setting dsoftmax.storage-options"
        ) from error
    return True


def _exists_error(place: Path | str) -> DataError:
    contents = (
        "a Zarr store: pass overwrite=True (--overwrite) to replace it, or"
        if _is_store(place)
        else "something other than a Zarr store, which is never replaced:"
    )
    return DataError(f"{public_url(place)} already holds {contents} choose another destination")
