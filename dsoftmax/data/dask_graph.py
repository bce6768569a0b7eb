"""What the graph of a Dask array reads: Zarr arrays and memory maps."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import dask
import dask.array as da
import numpy as np
import zarr
from dask.array.core import getter, getter_inline, getter_nofancy, slices_from_chunks
from dask.core import flatten
from dask.task_spec import DataNode, Task, TaskRef
from dask.utils import key_split

from dsoftmax.data.anndata_column import column_at, from_node
from dsoftmax.data.cf_encoding import CFEncoding, cf_encoding
from dsoftmax.data.row_array import RowArray
from dsoftmax.errors import DataError
from dsoftmax.storage.codecs import require_safe
from dsoftmax.storage.urls import travels, url_of

Graph = Mapping[Any, Any]
_GETTERS = (getter, getter_inline, getter_nofancy)
# Layers that move stored numbers, and leave them as they are.
_MOVES = frozenset(("from-zarr", "original-from-zarr", "array", "original-array", "getitem")) | {
    *("blocks", "ravel", "reshape", "transpose", "stack", "concatenate"),
    *("rechunk-split", "rechunk-merge"),
}
# Others that compute the same values each time.
_REPEATABLE = frozenset(("original", "astype", "ones_like"))


def zarr_behind(array: Any, *, decode: bool) -> RowArray | None:
    """Return the local Zarr array of which a Dask array is `from_zarr` and no more.

    Other stores stay in the graph, which has what the user gave to open them.
    """
    graph = array.__dask_graph__()
    stored = None
    indices = slices_from_chunks(array.chunks)
    for key, index in zip(flatten(array.__dask_keys__()), indices, strict=True):
        task = graph.get(key)
        if not isinstance(task, Task) or task.func not in _GETTERS:
            return None
        target, where = (_value(graph, argument) for argument in task.args[:2])
        if where != index or (stored is not None and target is not stored):
            return None
        stored = target
    if not isinstance(stored, zarr.Array) or stored.shape != array.shape:
        return None
    if not travels(url_of(stored)):
        return None
    source = from_node("X", stored, decode=decode)
    return source if source.portable else None


def encoding_behind(role: str, array: Any, *, stacklevel: int) -> CFEncoding | None:
    """Return what the attributes of the Zarr arrays in a graph say of the numbers of the array.

    `dask.array.from_zarr` reads stored numbers as they are. Slices, stacks and other chunks of them
    are still those; what else has been computed from them is not.

    Parameters
    ----------
    role : what messages call it
    array : dask.array.Array
    stacklevel : as of `warnings.warn`, called from the caller of this function

    Raises
    ------
    DataError
        If the array is of several Zarr arrays with different attributes.

    Warns
    -----
    UserWarning
        If the array is computed from stored numbers whose attributes say what they stand for.
    """
    graph = array.__dask_graph__()
    found: dict[str, CFEncoding | None] = {}
    leaves = {id(leaf): leaf for leaf in _leaves(graph)}.values()
    for stored in leaves:
        if isinstance(stored, zarr.Array):
            name = url_of(stored) or stored.path or role
            require_safe(name, stored)
            if (column := column_at(stored)) is not None:
                raise DataError(
                    f"{role} is made of {name}, a part of an AnnData column with missing values or "
                    f"categories, which Dask does not know; pass the path {column.name}"
                )
            found[name] = cf_encoding(name, stored)
    encodings = set(found.values()) - {None}
    if not encodings:
        return None
    name, encoding = next((name, each) for name, each in found.items() if each is not None)
    layers = {key_split(layer) for layer in graph.layers}
    if not (layers <= _MOVES and all(isinstance(leaf, zarr.Array) for leaf in leaves)):
        warnings.warn(
            f"{role} is computed with Dask from {name}, of which the attributes say: {encoding}. "
            "Dask has read the stored numbers as they are. Open the array with xarray.open_zarr, "
            "which decodes it; if your own code does, pass open_data(decode=False)",
            stacklevel=stacklevel + 1,
        )
        return None
    if len(encodings) > 1 or None in found.values():
        raise DataError(
            f"{role} is made of Zarr arrays whose attributes differ ({', '.join(found)}); open "
            "them with xarray.open_zarr, which decodes each by its own"
        )
    return encoding


def _leaves(graph: Graph) -> Iterator[Any]:
    """Yield the arrays that a graph begins with, also those within tasks that slice them."""
    for node in graph.values():
        leaf = getattr(node, "value", node)
        if isinstance(node, Task) and node.func in _GETTERS:
            leaf = _value(graph, node.args[0])
        if isinstance(leaf, zarr.Array | np.ndarray):
            yield leaf


def only_moves(array: Any) -> bool:
    """Whether a graph only fetches stored values, by Dask's own names of its layers.

    An array that xarray has opened is named after its variable.
    """
    layers = array.__dask_graph__().layers
    return all(
        key_split(layer) in _MOVES | _REPEATABLE
        or layer.removeprefix("original-").startswith(("open_dataset-", "xarray-"))
        for layer in layers
    )


def holds_open_file(graph: Graph) -> bool:
    """Whether a graph has an HDF5 file that is open for writing, so that it cannot travel."""
    stored: Iterator[Any] = (getattr(node, "value", None) for node in graph.values())
    return any(
        type(value).__module__.startswith("h5py.") and value.file.mode != "r" for value in stored
    )


def optimised(array: Any) -> dict[Any, Any]:
    """Return the optimised graph of an array, in which memory maps are cut into their blocks."""
    graph = dict(dask.optimize(array)[0].__dask_graph__())
    if any(isinstance(getattr(node, "value", None), np.memmap) for node in graph.values()):
        return dict(dask.optimize(_split_memmaps(array))[0].__dask_graph__())
    return graph


def _split_memmaps(array: Any) -> Any:
    """Return the array with the memory maps in its graph cut into their blocks.

    Dask copies a memory map into memory and keeps that in one piece, for every part to carry.
    """
    graph = dict(array.__dask_graph__())
    for key, task in graph.items():
        if isinstance(task, Task) and task.func in _GETTERS:
            values, where = (_value(graph, argument) for argument in task.args[:2])
            if isinstance(values, np.memmap):
                graph[key] = DataNode(key, np.asarray(values[where]))
    return da.Array(graph, array.name, array.chunks, array.dtype, array._meta)


def _value(graph: Graph, argument: Any) -> Any:
    node = graph[argument.key] if isinstance(argument, TaskRef) else argument
    return node.value if isinstance(node, DataNode) else node
