"""Small encoded stores that xarray writes, by kind, and the doors through which they are read."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
import zarr

from dsoftmax import open_data
from dsoftmax.data.source import Source

ROWS, COMPLETE = 150, 60  # rows of X, y and w, and of C, of which no value is missing

# What xarray is told of each array; all others are float64 with NaN, or integers.
KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "fill of floats": {"X": {"_FillValue": -9999.0}},
    "fill of float32": {"X": {"_FillValue": 9.96921e36, "dtype": "f4"}},
    "packed": {
        "X": {"dtype": "i2", "scale_factor": 1e-3, "add_offset": -0.1, "_FillValue": -32768}
    },
    "packed without fill": {"X": {"dtype": "u2", "scale_factor": 1e-3, "add_offset": -20.0}},
    "missing_value": {"X": {"dtype": "i4", "scale_factor": 1e-4, "missing_value": -1}},
    "both": {"X": {"dtype": "i2", "scale_factor": 1e-2, "_FillValue": -9, "missing_value": -9}},
    "unsigned": {
        "X": {
            "dtype": "i1",
            "_Unsigned": "true",
            "_FillValue": -1,
            "scale_factor": 0.05,
            "add_offset": -6.0,
        }
    },
    "fill of labels": {"y": {"dtype": "u1", "_FillValue": 255}},
    "fill of weights": {"w": {"dtype": "f4", "_FillValue": -1.0}},
    "NaN": {},
    "everything": {
        "X": {"dtype": "i2", "scale_factor": 1e-3, "add_offset": -0.1, "_FillValue": -32768},
        "y": {"dtype": "i4", "missing_value": -1},
        "w": {"dtype": "u1", "scale_factor": 0.5, "_FillValue": 0},
    },
}
FORMATS = (2, 3)


class Rows(NamedTuple):
    """X, y, weights, and rows to predict."""

    X: Any
    y: Any
    w: Any
    C: Any

    @property
    def kept(self) -> Any:
        """Which rows lack no value."""
        return ~(np.isnan(self.X).any(axis=1) | np.isnan(self.y) | np.isnan(self.w))


def write(path: Path, kind: str, zarr_format: Any) -> Path:
    """Write a group of X, y, w and C, with chunks cut along features, sharded in format 3."""
    rng = np.random.default_rng(0)
    encoding = KINDS[kind]
    y = rng.integers(0, 3, ROWS)
    X = rng.normal(1.2 * np.eye(3)[y], 1.0).round(3)
    w = rng.integers(1, 5, ROWS) / 2
    C = X[:COMPLETE].copy()
    if kind != "packed without fill":
        X[[3, 50, 51, 100], [0, 1, 2, 2]] = np.nan
    variables = {"X": (("i", "f"), X), "C": (("j", "f"), C)}
    labels, weights = y.astype(float), w.copy()
    labels[[7, 50, 149]], weights[[9, 50, 140]] = np.nan, np.nan
    variables["y"] = ("i", labels if "y" in encoding else y)
    variables["w"] = ("i", weights if "w" in encoding else w)
    encodings: Any = {"y": {"chunks": (60,)}, "w": {"chunks": (33,)}, "C": {"chunks": (40, 3)}}
    encodings["X"] = {"chunks": (40, 2)} | ({"shards": (80, 4)} if zarr_format == 3 else {})
    for name in encodings:
        encodings[name] |= encoding.get("X" if name == "C" else name, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xr.SerializationWarning)
        xr.Dataset(variables).to_zarr(
            path, zarr_format=zarr_format, encoding=encodings, consolidated=False
        )
    return path


@cache
def decoded(path: Path) -> Rows:
    """Return the values as xarray decodes them, in float64."""
    with xr.open_zarr(path, consolidated=False, chunks=None) as opened:
        return Rows(*(opened[name].values.astype("f8") for name in Rows._fields))


@cache
def complete(path: Path) -> Rows:
    """Return the decoded rows of which nothing is missing."""
    rows, kept = decoded(path), decoded(path).kept
    return Rows(rows.X[kept], rows.y[kept].astype(int), rows.w[kept], rows.C)


def _from_zarr(path: Path, name: str) -> Any:
    return da.from_zarr(zarr.open_array(f"{path}/{name}", mode="r"))


def _moved(path: Path, name: str) -> Any:
    array = _from_zarr(path, name)
    return da.concatenate([array[:60], array[60:]]).rechunk((75, *array.shape[1:]))


def _with_xarray(path: Path, name: str) -> Any:
    return xr.open_zarr(path, consolidated=False)[name]


def _decoded_blocks(path: Path, name: str) -> Any:
    """Return a Dask array that decodes what it reads, as some users' own code does."""
    return _from_zarr(path, name).map_blocks(_decode, path, name, dtype="f8")


def _decode(block: Any, path: Path, name: str, block_info: Any = None) -> Any:
    where = tuple(slice(*axis) for axis in block_info[0]["array-location"])
    return getattr(decoded(path), name)[where]


def _masked(path: Path, name: str) -> Any:
    """Return a masked array, with numbers below its mask that would spoil a fit."""
    values = getattr(decoded(path), name)
    mask = np.isnan(values)
    filled = np.where(mask, 9, values)
    return np.ma.masked_array(filled.astype(int) if name == "y" else filled, mask)


def _masked_blocks(path: Path, name: str) -> Any:
    """Return a Dask array with masked blocks, of which its metadata know nothing."""
    values = _masked(path, name)
    array = da.zeros(values.shape, chunks=(60, *values.shape[1:]), dtype=values.dtype)
    meta = np.empty((0,) * values.ndim, values.dtype)
    return array.map_blocks(_block_of, values, meta=meta, dtype=values.dtype)


def _block_of(block: Any, values: Any, block_info: Any = None) -> Any:
    return values[tuple(slice(*axis) for axis in block_info[0]["array-location"])]


# How a user passes an array of a store. Of two doors, the numbers are decoded already.
DOORS: dict[str, Callable[[Path, str], Any]] = {
    "path": lambda path, name: f"{path}/{name}",
    "zarr.Array": lambda path, name: zarr.open_array(f"{path}/{name}", mode="r"),
    "from_zarr": _from_zarr,
    "moved": _moved,
    "decoded blocks": _decoded_blocks,
    "masked blocks": _masked_blocks,
    "DataArray": _with_xarray,
    "NumPy": lambda path, name: getattr(decoded(path), name),
    "masked": _masked,
}


def is_decoded_for_us(door: str) -> bool:
    """Return whether the code of the user has not decoded what its graph reads."""
    return door != "decoded blocks"


def opened(path: Path, door: str, **options: Any) -> Source:
    """Return the rows of a store as a source in float64, without those that lack a value."""
    arrays = (DOORS[door](path, name) for name in ("X", "y", "w"))
    options = {"dtype": "float64", "missing": "drop", **options}
    return open_data(*arrays, decode=is_decoded_for_us(door), **options)
