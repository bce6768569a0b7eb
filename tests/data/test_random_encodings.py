"""Stores of random encodings, written by xarray: what is read is what xarray reads."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from dsoftmax import SoftmaxRegression, open_data
from dsoftmax.data.source import Source

N_EXAMPLES, N_QUICK = 300, 15
INTEGERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
FLOATS = ("f2", "f4", "f8")
AXES = ("time", "y", "x")


def random_numbers(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> Any:
    """Return stored numbers of a dtype, at times at the ends of its range."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return rng.normal(0, 30, shape).round(2).astype(dtype)
    low = max(np.iinfo(dtype).min, -100)
    values = rng.integers(low, 101, shape).astype(dtype)
    if rng.random() < 0.3:
        values[(0,) * len(shape)] = np.iinfo(dtype).max
        values[(-1,) * len(shape)] = np.iinfo(dtype).min
    return values


def random_attributes(rng: np.random.Generator, stored: Any, *, packed: bool) -> dict[str, Any]:
    """Return attributes that some of the stored numbers fit."""
    attributes: dict[str, Any] = {}
    if packed and rng.random() < 0.6:
        attributes["scale_factor"] = float(rng.choice([1e-4, 0.1, 2.0, -0.5]))
    if packed and rng.random() < 0.6:
        attributes["add_offset"] = float(rng.choice([-0.1, 7.0, 273.15]))
    fill = rng.choice(stored.ravel())
    if rng.random() < 0.3:  # of floats too, NaN is what xarray writes by itself
        fill = np.dtype(stored.dtype).type(np.nan if stored.dtype.kind == "f" else 77)
    kind = rng.choice(["none", "_FillValue", "missing_value", "both", "two"])
    if kind in ("_FillValue", "both", "two"):
        attributes["_FillValue"] = fill
    if kind in ("missing_value", "both"):
        attributes["missing_value"] = fill
    if kind == "two":
        attributes["missing_value"] = rng.choice(stored.ravel())
    if stored.dtype.kind in "iu" and "missing_value" not in attributes and rng.random() < 0.25:
        attributes["_Unsigned"] = "true" if stored.dtype.kind == "i" else "false"
    return attributes


def random_layout(rng: np.random.Generator, shape: tuple[int, ...], zarr_format: int) -> Any:
    """Return chunks of any shape, in shards at times."""
    chunks = tuple(int(rng.integers(1, length + 1)) for length in shape)
    chunks = tuple(max(size, -(-length // 3)) for size, length in zip(chunks, shape, strict=True))
    if zarr_format == 2 or rng.random() < 0.6:
        return {"chunks": chunks}
    return {"chunks": chunks, "shards": tuple(size * int(rng.integers(1, 3)) for size in chunks)}


def write(rng: np.random.Generator, path: Path) -> None:
    """Write X, y and weights with xarray, and make some attributes lists of one number."""
    zarr_format = int(rng.choice([2, 3]))
    axes = AXES[: int(rng.integers(1, 4))]
    shape = tuple(
        int(rng.integers(*bounds))
        for bounds in {1: [(40, 90)], 2: [(5, 10)] * 2, 3: [(3, 6)] * 3}[len(axes)]
    )
    dims, sizes = {"y": axes, "w": axes}, {"y": shape, "w": shape}
    dims["X"], sizes["X"] = (*axes, "band"), (*shape, int(rng.integers(1, 5)))
    variables, encodings = {}, {}
    for name in ("X", "y", "w"):
        dtype = rng.choice(INTEGERS if name == "y" else (*INTEGERS, *FLOATS))
        stored = random_numbers(rng, dtype, sizes[name])
        if name == "y":
            stored = rng.integers(0, 4, sizes[name]).astype(dtype)
        if name == "w":
            stored = np.abs(rng.integers(1, 9, sizes[name])).astype(dtype)
        attributes = random_attributes(rng, stored, packed=name == "X")
        if name != "X":
            attributes.pop("_Unsigned", None)
        encodings[name] = random_layout(rng, sizes[name], zarr_format)
        variables[name] = (dims[name], stored, attributes)
        if (
            name == "X"
            and stored.dtype.kind in "iu"
            and "_Unsigned" not in attributes
            and rng.random() < 0.4
            and not {"_FillValue", "missing_value"} <= set(attributes)
        ):
            # What it stands for, for xarray to encode.
            decoded = stored.astype("f8") * attributes.get("scale_factor", 1) + attributes.get(
                "add_offset", 0
            )
            if set(attributes) & {"_FillValue", "missing_value"}:
                fill = attributes.get("_FillValue", attributes.get("missing_value"))
                decoded[stored == fill] = np.nan
            if stored.dtype.itemsize < 8:
                encodings[name] |= {"dtype": stored.dtype, **attributes}
                variables[name] = (dims[name], decoded)
    xr.Dataset(variables).to_zarr(
        path, zarr_format=zarr_format, encoding=encodings, consolidated=False
    )
    group = zarr.open_group(path, mode="r+")
    for name in variables:
        for key in ("scale_factor", "add_offset", "missing_value"):
            if key in group[name].attrs and rng.random() < 0.2:
                group[name].attrs[key] = [group[name].attrs[key]]


def expected(path: Path) -> tuple[Any, Any, Any, float]:
    """Return X, y and weights as xarray reads them, in float64, and how exact it is."""
    with xr.open_zarr(path, consolidated=False, chunks=None) as opened:
        arrays = [opened[name].values for name in ("X", "y", "w")]
    exact = 4 * np.finfo(arrays[0].dtype if arrays[0].dtype.kind == "f" else "f8").eps
    X, y, w = (array.astype("f8") for array in arrays)
    return X, y, w, float(exact)


def as_rows(source: Source, values: Any) -> Any:
    return values if source.grid is None else source.grid.flattened(values)


def check(seed: int, path: Path) -> str:
    rng = np.random.default_rng(seed)
    write(rng, path)
    X, y, w, rtol = expected(path)
    source = open_data(path / "X", path / "y", path / "w", dtype="float64", missing="drop")
    chunk = replace(source, missing="keep").read(0, source.n_samples)
    rows = as_rows(source, X)
    scale = np.nanmax(np.abs(rows), initial=1e-9)
    np.testing.assert_allclose(chunk.decoded(np.dtype("f8")), rows, rtol=rtol, atol=rtol * scale)
    for got, values in ((chunk.codes, y), (chunk.sample_weight, w)):
        present = np.ones(source.n_samples, bool) if chunk.left_out is None else chunk.left_out == 0
        np.testing.assert_array_equal(got[present], as_rows(source, values)[present])
    missing = np.isnan(as_rows(source, y)) | np.isnan(as_rows(source, w))
    left = np.zeros(source.n_samples, bool) if chunk.left_out is None else chunk.left_out > 0
    np.testing.assert_array_equal(left, missing)
    good = ~missing & np.isfinite(rows).all(axis=1)
    yy = as_rows(source, y)[good]
    if len(set(yy)) < 2:
        return "one class"
    if scale > 1e5:
        return "wide"
    model = SoftmaxRegression(alpha=1.0, solver="newton", tol=1e-9)
    ref = SoftmaxRegression(alpha=1.0, solver="newton", tol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(source)
        ref.fit(open_data(rows[good], yy, as_rows(source, w)[good], dtype="float64"))
    sd = np.nan_to_num(rows[good].std(axis=0))
    np.testing.assert_allclose(
        model.coef_ * sd, ref.coef_ * sd, rtol=1e-5, atol=max(1e-6, 10 * rtol)
    )
    np.testing.assert_array_equal(model.classes_, ref.classes_)
    return "ok"
