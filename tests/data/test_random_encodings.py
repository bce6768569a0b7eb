"""Stores of random encodings, written by xarray: what is read is what xarray reads."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from dsoftmax import SoftmaxRegression, open_data
from dsoftmax.data.source import Source

# More of them, all different: RANDOM_ENCODINGS=300 python -m pytest -m "slow or not slow" ...
N_EXAMPLES, N_QUICK = int(os.environ.get("RANDOM_ENCODINGS", "60")), 15
INTEGERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i2", ">u4")
FLOATS = ("f2", "f4", "f8")
AXES = ("time", "y", "x")
SIZES = {1: (40, 90), 2: (5, 10), 3: (3, 6)}  # of each axis, by how many there are
FILLS = {"_FillValue", "missing_value"}
Variable = tuple[Any, Any, dict[str, Any]]


class RandomStore:
    """Draws what xarray writes."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.zarr_format: Any = self.one_of([2, 3])
        self.axes = AXES[: self.rng.integers(1, 4)]
        self.shape = tuple(self.rng.integers(*SIZES[len(self.axes)], len(self.axes)).tolist())

    def one_of(self, choices: Any) -> Any:
        """Return one of them, as Python has it."""
        return choices[self.rng.integers(len(choices))]

    def happens(self, probability: float) -> bool:
        """Return whether something does."""
        return bool(self.rng.random() < probability)

    def numbers(self, shape: tuple[int, ...]) -> Any:
        """Return stored numbers of any dtype, at times at the ends of its range."""
        dtype = np.dtype(self.one_of((*INTEGERS, *FLOATS)))
        if dtype.kind == "f":
            return self.rng.normal(0, 30, shape).round(2).astype(dtype)
        ends = np.iinfo(dtype)
        values = self.rng.integers(max(ends.min, -100), 101, shape).astype(dtype)
        if self.happens(0.3):
            values[(0,) * len(shape)], values[(-1,) * len(shape)] = ends.max, ends.min
        return values

    def fills(self, stored: Any) -> dict[str, Any]:
        """Return which of some stored numbers mean a missing value, if any does."""
        fill = self.one_of(stored.ravel())
        if self.happens(0.3):  # that occurs nowhere, or as xarray writes it of its own accord
            fill = stored.dtype.type(np.nan if stored.dtype.kind == "f" else 77)
        other = self.one_of(stored.ravel())
        choices = [{}, {"_FillValue": fill}, {"missing_value": fill}]
        choices += [{"_FillValue": fill, "missing_value": value} for value in (fill, other)]
        return dict(self.one_of(choices))

    def packing(self) -> dict[str, Any]:
        """Return a scale and an offset, or one of them, or none."""
        scale, offset = self.one_of([1e-4, 0.1, 2.0, -0.5, 3.0]), self.one_of([-0.1, 7.0, 273.15])
        found = {"scale_factor": scale, "add_offset": offset}
        return {key: value for key, value in found.items() if self.happens(0.6)}

    def variable(self, name: str) -> Variable:
        """Return dimensions, stored numbers and their attributes."""
        if name == "X":
            stored = self.numbers((*self.shape, int(self.rng.integers(1, 5))))
            attributes = self.packing() | self.fills(stored)
            # xarray 2026.9 forgets `missing_value` there, and compares 64 bits as floats.
            sign = stored.dtype.kind in "iu" and stored.dtype.itemsize < 8
            if sign and "missing_value" not in attributes and self.happens(0.25):
                attributes["_Unsigned"] = "true" if stored.dtype.kind == "i" else "false"
            return (*self.axes, "band"), stored, attributes
        low, high = (0, 4) if name == "y" else (1, 9)
        stored = self.rng.integers(low, high, self.shape).astype(self.one_of(INTEGERS))
        return self.axes, stored, self.fills(stored)

    def layout(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return chunks of any shape, in shards at times."""
        chunks = tuple(int(self.rng.integers(-(-n // 3), n + 1)) for n in shape)
        if self.zarr_format == 2 or self.happens(0.6):
            return {"chunks": chunks}
        shards = tuple(size * int(self.rng.integers(1, 3)) for size in chunks)
        return {"chunks": chunks, "shards": shards}

    def write(self, path: Path) -> None:
        """Write X, y and weights with xarray, and make some attributes lists of one number."""
        variables = {name: self.variable(name) for name in ("X", "y", "w")}
        encodings = {name: self.layout(stored.shape) for name, (_, stored, _) in variables.items()}
        if is_to_encode(variables["X"]) and self.happens(0.5):
            dims, stored, attributes = variables["X"]
            variables["X"] = (dims, decoded(stored, attributes), {})
            encodings["X"] |= {"dtype": stored.dtype, **attributes}
        xr.Dataset(variables).to_zarr(
            path, zarr_format=self.zarr_format, encoding=encodings, consolidated=False
        )
        for name in variables:
            attrs = zarr.open_array(path / name, mode="r+").attrs
            for key in {"scale_factor", "add_offset", "missing_value"} & set(attrs):
                if self.happens(0.2):
                    attrs[key] = [attrs[key]]


def is_to_encode(variable: Variable) -> bool:
    """Return whether xarray can be given what the numbers stand for, to encode it."""
    _, stored, attributes = variable
    same = attributes.get("_FillValue", 0) == attributes.get("missing_value", 0)
    one_fill = same or not set(attributes) >= FILLS
    small = stored.dtype.kind in "iu" and stored.dtype.itemsize < 8
    return small and one_fill and bool(FILLS & set(attributes)) and "_Unsigned" not in attributes


def decoded(stored: Any, attributes: dict[str, Any]) -> Any:
    """Return what stored numbers stand for."""
    values = stored * attributes.get("scale_factor", 1.0) + attributes.get("add_offset", 0.0)
    fill = next(attributes[key] for key in FILLS if key in attributes)
    return np.where(stored == fill, np.nan, values)


def as_rows(source: Source, path: Path, name: str) -> tuple[Any, float]:
    """Return the rows of an array as xarray reads them, and how exact they are."""
    with xr.open_zarr(path, consolidated=False, chunks=None) as opened:
        values = opened[name].values
    kind = values.dtype if values.dtype.kind == "f" else np.dtype("f8")
    values = values.astype("f8")
    error = 4 * np.finfo(kind).eps
    return values if source.grid is None else source.grid.flattened(values), float(error)


def require_alike(path: Path, source: Source) -> None:
    """Compare what is read, and a short fit, with what xarray reads."""
    X, error = as_rows(source, path, "X")
    (y, _), (w, _) = (as_rows(source, path, name) for name in ("y", "w"))
    size = np.nanmax(np.abs(X), initial=0)
    chunk = replace(source, missing="keep").read(0, source.n_samples)
    got = chunk.decoded(np.dtype("f8"))
    np.testing.assert_allclose(got, X, rtol=error, atol=error * size)
    lacking = np.isnan(y) | np.isnan(w)
    left_out = np.zeros(len(X), bool) if chunk.left_out is None else chunk.left_out > 0
    np.testing.assert_array_equal(left_out, lacking)
    np.testing.assert_array_equal(chunk.codes[~lacking], y[~lacking])
    assert chunk.sample_weight is not None
    np.testing.assert_array_equal(chunk.sample_weight[~lacking], w[~lacking])

    kept = ~lacking & np.isfinite(X).all(axis=1)
    if len(set(y[kept])) < 2 or size > 1e5:  # nothing to learn, or no scale for it
        return
    model = SoftmaxRegression(alpha=1.0, tol=1e-9, max_iter=30)
    expected = SoftmaxRegression(alpha=1.0, tol=1e-9, max_iter=30)
    model.fit(source)
    expected.fit(open_data(X[kept], y[kept], w[kept], dtype="float64"))
    np.testing.assert_array_equal(model.classes_, expected.classes_)
    scale = X[kept].std(axis=0)
    np.testing.assert_allclose(
        model.coef_ * scale, expected.coef_ * scale, rtol=1e-5, atol=max(1e-6, 20 * error)
    )


@pytest.mark.filterwarnings("ignore::xarray.SerializationWarning")
@pytest.mark.filterwarnings("ignore:.* rows are left out")
@pytest.mark.filterwarnings("ignore:.* are not in the store")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(seed, marks=() if seed < N_QUICK else pytest.mark.slow)
        for seed in range(N_EXAMPLES)
    ],
)
def test_what_is_read_and_learned_is_what_xarray_reads(tmp_path: Path, seed: int) -> None:
    RandomStore(seed).write(tmp_path)
    arrays = (tmp_path / name for name in ("X", "y", "w"))
    require_alike(tmp_path, open_data(*arrays, dtype="float64", missing="drop"))
