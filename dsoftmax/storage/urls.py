"""Opens Zarr stores at paths, in zip files and at URLs.

Credentials never travel: each process takes them from its own environment, or from the Dask
setting `dsoftmax.storage-options`, a mapping from protocols to what fsspec is passed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask
import zarr.errors
from zarr.storage import FsspecStore, LocalStore, ObjectStore, ZipStore

from dsoftmax.errors import DataError, quoted, shortened
from dsoftmax.storage import regular_files
from dsoftmax.storage.bounded_codecs import most_bytes
from dsoftmax.storage.codecs import require_attributes, require_safe
from dsoftmax.storage.digests import short_digest
from dsoftmax.storage.zarr_timing import timed

Node = zarr.Array[Any] | zarr.Group


def locate(place: str | os.PathLike[str]) -> Path | str:
    """Return a local place as a path, and any other as the URL it is.

    Raises
    ------
    DataError
        If it is a path that no system can follow: with a NUL, too long, or a loop of links.
    """
    url = os.fspath(place).removeprefix("file://")
    try:
        if "://" in url and "\0" not in url:
            return url
        path = Path(url).expanduser()
        os.stat(path)
    except (ValueError, RuntimeError) as error:  # a NUL, a surrogate, no home of such a user
        raise _no_path(url, error) from None
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise _no_path(url, error.strerror) from None
    return path


def _no_path(url: str, why: object) -> DataError:
    return DataError(f"{quoted(url)} is no path: {shortened(why)}; pass another one")


def absolute_url(place: str | os.PathLike[str]) -> str:
    """Return a URL as it is, and a path as an absolute one."""
    located = locate(place)
    return located if isinstance(located, str) else str(located.resolve())


def storage_options(url: str) -> dict[str, Any] | None:
    """Return the options with which this process opens a URL, or None.

    Raises
    ------
    DataError
        If the Dask setting is not a mapping.
    """
    protocol, separator, _ = url.partition("://")
    if not separator:
        return None
    options = dask.config.get("dsoftmax.storage-options", {})
    selected = options.get(protocol, {}) if isinstance(options, Mapping) else None
    if not isinstance(selected, Mapping):
        raise DataError(
            "the Dask setting dsoftmax.storage-options is not a mapping from protocols to options; "
            'expected one such as {"s3": {"endpoint_url": "https://..."}}'
        )
    return dict(selected) or None


def open_node(url: str) -> Node:
    """Return the array or group at a URL or path, read-only.

    A path may lead into a zip file: data.zip/X.

    Raises
    ------
    DataError
        If there is nothing there, or nothing that can be opened.
    """
    try:
        return open_raw(url)
    except DataError:
        raise
    except (FileNotFoundError, zarr.errors.NodeNotFoundError):
        raise DataError(_not_there(url)) from None
    except Exception as error:
        raise DataError(
            f"{url} cannot be opened: {error_text(error)}{_advice(url, error)}"
        ) from error


def open_raw(url: str) -> Node:
    """Return the array or group at a URL or path; other errors are those of Zarr and the driver.

    Raises
    ------
    DataError
        If it is an array whose codecs run code.
    """
    node = _open(url)
    require_attributes(url, node)
    if not isinstance(node, zarr.Array):
        return node
    require_safe(url, node)
    if isinstance(node.store, regular_files.LocalStore | regular_files.ZipStore):
        node.store.most_bytes = most_bytes(node)
    return timed(node)


def _open(url: str) -> Node:
    if "://" in url:
        if dask.config.get("dsoftmax.object-store", "fsspec") == "obstore":
            return zarr.open(_by_obstore(url), mode="r")
        return zarr.open(url, mode="r", storage_options=storage_options(url))
    archive = _archive(Path(url))
    if archive is None:
        return zarr.open(regular_files.LocalStore(url, read_only=True), mode="r")
    # `ZipStore` takes the path of the archive and that within it apart.
    inside = Path(url).relative_to(archive).as_posix()
    store = regular_files.ZipStore(archive, mode="r")
    return zarr.open(store, path="" if inside == "." else inside, mode="r")


@lru_cache(maxsize=64)
def reopen(url: str, identity: str, token: str, tick: int) -> zarr.Array[Any]:
    """Return the array at a URL, opened anew for each `token` and `tick`.

    `lru_cache` keeps it open in between, so that a read does not fetch the metadata again.

    Raises
    ------
    DataError
        If its digest is not `identity` any more.
    OSError
        If it is not there (any more): a network disk may come back, so reads are tried again.
    """
    try:
        node = open_raw(url)
    except (FileNotFoundError, zarr.errors.NodeNotFoundError) as error:
        raise OSError(errno.ESTALE, f"the store is away: there is no {url}") from error
    if isinstance(node, zarr.Group) or digest_of(node) != identity:
        current = "a group" if isinstance(node, zarr.Group) else f"{node.shape} {node.dtype}"
        raise DataError(
            f"{url} has changed since it was opened: it is now {current}; do not write to a store "
            "while it is read, and start again"
        )
    return node


def digest_of(array: zarr.Array[Any]) -> str:
    """Return a digest of the metadata of an array."""
    return short_digest(repr(array.metadata.to_dict()))


def _by_obstore(url: str) -> ObjectStore[Any]:
    from obstore.store import from_url

    return ObjectStore(from_url(url, **(storage_options(url) or {})), read_only=True)


def _archive(path: Path) -> Path | None:
    """Return the zip file that a path leads to or into."""
    parts = [part for part in (path, *path.parents) if part.suffix == ".zip"]
    return next((part for part in parts if part.is_file()), None)


def error_text(error: Exception) -> str:
    """Return an error with its class: the message of a KeyError, say, is a name alone."""
    return f"{type(error).__name__}: {shortened(error)}"


# What to do with a file that is none of Zarr's, by the end of its name.
_FILES = {
    ".npy": 'pass np.load(path, mmap_mode="r"), or write it as Zarr with `dsoftmax ingest`',
    ".npz": "pass np.load(path)[name], or write it as Zarr with `dsoftmax ingest`",
    ".csv": "write it as Zarr with `dsoftmax ingest`",
    ".parquet": "write it as Zarr with `dsoftmax ingest`",
    ".h5": 'pass dask.array.from_array(h5py.File(path, "r")[name])',
    ".hdf5": 'pass dask.array.from_array(h5py.File(path, "r")[name])',
    ".h5ad": 'pass dask.array.from_array(h5py.File(path, "r")["X"]), or write it with write_zarr',
    ".nc": "pass xarray.open_dataset(path, chunks={})[name]",
    ".tif": "pass rioxarray.open_rasterio(path, chunks={}), with the bands last",
}


def _not_there(url: str) -> str:
    suffix = Path(url).suffix.lower()
    if ("://" in url or Path(url).is_file()) and suffix in _FILES:
        return f"{url} is a {suffix} file, not a Zarr array; {_FILES[suffix]}"
    if "://" not in url and Path(url).is_file():
        return f"{url} is a file, not a Zarr array; expected the path of one, such as data.zarr/X"
    return (
        f"{url} does not exist or is not a Zarr array; expected the path or URL of an array, "
        "such as data.zarr/X"
    )


def _advice(url: str, error: Exception) -> str:
    if "No Zarr data type" in str(error):
        return (
            "; this version of Zarr does not read that dtype (bfloat16 and int4 are such): install "
            "and import a package that adds it, or write the array as float32 or int8"
        )
    if type(error).__name__ == "UnknownCodecError" or "codec not available" in str(error):
        return "; install the package of that codec, or write the array with another one"
    if "://" not in url:
        return "; restore it, or write it again"
    return (
        "; check the address, and the credentials in the environment or in the Dask setting "
        "dsoftmax.storage-options"
    )


def url_of(node: Node) -> str | None:
    """Return the path where another process finds an open array or group, or None."""
    root = local_root(node.store)
    return None if root is None else str((root / node.path).resolve())


def local_root(store: Any) -> Path | None:
    """Return where a store is on this machine; `dask.array.from_zarr` opens paths by fsspec."""
    if isinstance(store, LocalStore):
        return Path(store.root)
    if isinstance(store, ZipStore):
        return Path(store.path) if store.read_only else None
    if isinstance(store, FsspecStore):
        protocol, _, path = store.fs.unstrip_protocol(store.path).partition("://")
        return Path(path) if protocol == "file" else None
    return None


def travels(url: str | None) -> bool:
    """Whether another process can open a URL: not one of this process's memory."""
    return url is not None and not url.startswith("memory://")


def names_in(target: str) -> tuple[str, ...] | None:
    """Return the names of the arrays in a group, or None for what is an array itself.

    Raises
    ------
    DataError
        If there is neither.
    """
    url = absolute_url(target)
    node = open_node(url)
    try:
        return tuple(sorted(node.array_keys())) if isinstance(node, zarr.Group) else None
    except Exception as error:
        raise DataError(
            f"an array in {url} cannot be opened: {error_text(error)}{_advice(url, error)}"
        ) from error


def arrays_in(name: str, group: zarr.Group) -> str:
    """Return what to do about a group that was given for an array: it lists the arrays in it."""
    kind = str(group.attrs.get("encoding-type", ""))
    if kind in ("csr_matrix", "csc_matrix"):
        return (
            f"{name} is a Zarr group that holds a sparse AnnData matrix ({kind}), which is not "
            "supported yet: write it densely, chunk by chunk, and pass that array"
        )
    try:
        arrays = [f"{name}/{key} {array.shape}" for key, array in sorted(group.arrays())]
        groups = [f"{name}/{key} (a group)" for key in sorted(group.group_keys())]
        contents = ", ".join(arrays + groups) or "it holds none"
    except Exception as error:  # of one of them: its dtype or its codec is unknown, say
        contents = f"they cannot all be opened: {error_text(error)}{_advice(name, error)}"
    return f"{name} is a Zarr group, not an array; pass one of its arrays: {contents}"
