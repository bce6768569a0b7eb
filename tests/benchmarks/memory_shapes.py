"""Shapes of data and of work, and what a fresh worker or process takes for them at its peak."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import zarr

from dsoftmax import SoftmaxRegression, SoftmaxRegressionCV, open_data
from dsoftmax.cli.demo import peak_memory
from dsoftmax.data.source import Source
from dsoftmax.estimators.plan import plan_at
from dsoftmax.estimators.predict_to import _demand, _evenly_chunked, _spans
from dsoftmax.runtime.connect import local_workers
from dsoftmax.runtime.memory import Location, needed_bytes
from dsoftmax.runtime.select import current_location
from dsoftmax.runtime.spans import cut_spans, most_rows
from dsoftmax.runtime.working_set import metrics_demand


@dataclass(frozen=True)
class Shape:
    """Data, and what is done with them.

    Attributes
    ----------
    dtype, rows, features, classes, chunks : of X, with the rows of a chunk, and how many there are
    columns : features of a chunk, 0 for all
    codec : "zstd", "blosc" or "none"
    shard : chunks in a shard, 0 for none
    strings, weights, missing : whether there are such labels, weights, missing values
    few_values : whether the values compress well
    dask : whether X is a Dask array
    does : "fit", "search", "predict_to" or "evaluate"
    solver : of the fit or search
    early_stopping : whether rows are held out
    threads : of the worker; 0 for this process
    limit : of the memory of the worker
    cache : whether decoded rows are cached
    """

    dtype: str = "f4"
    rows: int = 10_000
    features: int = 784
    classes: int = 10
    chunks: int = 6
    columns: int = 0
    codec: str = "zstd"
    shard: int = 0
    strings: bool = False
    weights: bool = False
    missing: bool = False
    few_values: bool = False
    dask: bool = False
    does: str = "fit"
    solver: str = "lbfgs"
    early_stopping: bool = False
    threads: int = 1
    limit: str = "4 GiB"
    cache: bool = False


SHAPES = {
    "tiny": Shape(rows=100, features=4, classes=2),
    "one feature": Shape("u1", 1_000_000, 1, 2, chunks=4),
    "small chunks": Shape(rows=100, chunks=300),
    "uint8": Shape("u1", 40_000),
    "uint8, blosc": Shape("u1", 40_000, codec="blosc"),
    "uint8, not compressed": Shape("u1", 40_000, codec="none"),
    "uint8, large": Shape("u1", 150_000, chunks=4),
    "int16": Shape("i2", 20_000),
    "float16": Shape("f2", 20_000),
    "float32": Shape(),
    "float32, few values": Shape(few_values=True),
    "float32, not compressed": Shape(codec="none"),
    "float64": Shape("f8", 5_000),
    "20,000 features, 2 classes": Shape(rows=400, features=20_000, classes=2),
    "2,000 features, 200 classes": Shape(rows=2_000, features=2_000, classes=200),
    "5,000 classes": Shape(rows=4_000, features=128, classes=5_000, chunks=8),
    "1,000 classes, merged chunks": Shape(rows=1_000, features=1_000, classes=1_000, chunks=16),
    "chunks along features": Shape(columns=98),
    "shards": Shape(rows=500, shard=20, chunks=80),
    "large shards": Shape(rows=1_000, shard=60, chunks=120),
    "strings": Shape("u1", 100_000, 16, strings=True, chunks=8),
    "weights": Shape(weights=True),
    "missing values": Shape(missing=True),
    "2 threads": Shape(threads=2, chunks=10),
    "4 threads": Shape(threads=4, chunks=16),
    "4 threads, not compressed": Shape(threads=4, chunks=16, codec="none"),
    "cached": Shape(cache=True, chunks=8),
    "cached, little room": Shape(cache=True, limit="400 MiB", chunks=10),
    "newton": Shape(solver="newton"),
    "sgd": Shape(solver="sgd", cache=True),
    "adam": Shape(solver="adam", cache=True),
    "sgd, little room": Shape(solver="sgd", cache=True, limit="400 MiB", chunks=10),
    "fista": Shape(solver="fista"),
    "held-out rows": Shape(early_stopping=True),
    "search": Shape("u1", 20_000, does="search"),
    "search, newton": Shape("u1", 20_000, does="search", solver="newton"),
    "Dask array": Shape(dask=True),
    "predict_to": Shape(does="predict_to"),
    "predict_to, 1,000 classes": Shape(rows=4_000, classes=1_000, does="predict_to"),
    "evaluate": Shape(does="evaluate"),
    "evaluate, 1,000 classes": Shape(rows=4_000, classes=1_000, does="evaluate"),
    "in process": Shape(rows=2_000, threads=0),
    "in process, 300 classes": Shape(rows=2_000, classes=300, threads=0),
}


def measured(shape: Shape) -> tuple[int, int, int]:
    """Return the memory of a fresh process before it works, its peak, and what is planned."""
    with tempfile.TemporaryDirectory() as folder:
        _write(folder, shape)
        if shape.threads == 0:
            call = "from tests.benchmarks.memory_shapes import measured_here; measured_here()"
            arguments = [sys.executable, "-c", call, folder, json.dumps(vars(shape))]
            output = subprocess.run(arguments, capture_output=True, check=True, text=True).stdout
            idle, peak, planned = json.loads(output.splitlines()[-1])
            return idle, peak, planned
        settings = {} if shape.cache else {"dsoftmax.cache": 0}
        workers = local_workers(1, shape.limit, shape.threads)
        with dask.config.set(settings), workers as client:
            client.run(peak_memory)  # which imports this
            (idle,) = client.run(peak_memory).values()
            planned = _work(folder, shape)
            (peak,) = client.run(peak_memory).values()
    return idle, peak, planned


def measured_here() -> None:
    """Print what `measured` returns, for the process that runs this."""
    shape, idle = Shape(**json.loads(sys.argv[2])), peak_memory()
    planned = _work(sys.argv[1], shape)
    print(json.dumps([idle, peak_memory(), planned]))


def _write(folder: str, shape: Shape) -> None:
    group, rng = zarr.open_group(folder, mode="w"), np.random.default_rng(0)
    size, n_rows = (shape.rows, shape.features), shape.rows * shape.chunks
    part = rng.normal(size=size) if shape.dtype[0] == "f" else rng.integers(0, 200, size)
    part = (np.round(part) if shape.few_values else part).astype(shape.dtype)
    if shape.missing:
        part[::100] = np.nan
    codecs = {"zstd": "auto", "none": None, "blosc": zarr.codecs.BloscCodec(cname="lz4")}
    X = group.create_array(
        "X",
        shape=(n_rows, shape.features),
        chunks=(shape.rows, shape.columns or shape.features),
        shards=(shape.rows * shape.shard, shape.features) if shape.shard else None,
        dtype=shape.dtype,
        compressors=codecs[shape.codec],
    )
    part = np.tile(part, (max(shape.shard, 1), 1))
    for start in range(0, n_rows, len(part)):
        X[start : start + len(part)] = part
    labels = np.arange(n_rows) % shape.classes
    y = np.array([f"class {number}" for number in range(shape.classes)])[labels]
    if shape.strings:
        group.create_array("y", shape=y.shape, dtype="string", chunks=(n_rows // 2,))[:] = y
    else:
        group.create_array("y", data=labels)
    if shape.weights:
        group.create_array("weights", data=np.ones(n_rows))


def _work(folder: str, shape: Shape) -> int:
    """Do what the shape says, and return what was planned for it."""
    X: Any = f"{folder}/X"
    if shape.dask:
        X = da.from_zarr(X) * np.float32(2)
    weights = f"{folder}/weights" if shape.weights else None
    missing = "drop" if shape.missing else "raise"
    source = open_data(X, f"{folder}/y", weights, missing=missing)
    params: dict[str, Any] = {"solver": shape.solver, "tol": 0, "random_state": 0}
    if shape.solver == "fista":
        params |= {"solver": "sgd", "batch_size": source.n_samples, "l1_ratio": 0.5}
    model: Any = SoftmaxRegression(**params, max_iter=2, early_stopping=shape.early_stopping)
    if shape.does == "search":
        model = SoftmaxRegressionCV(20, cv=5, **params | {"tol": "auto"}, max_iter=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        location = current_location(source)
        if shape.does in ("fit", "search"):
            planned = plan_at(location, source, model).peak_memory
            model.fit(source)
            return planned
        few = np.zeros((shape.classes, shape.features), shape.dtype)
        model.fit(few, np.arange(shape.classes))
        if shape.does == "evaluate":
            model.evaluate(X, f"{folder}/y")
        else:
            model.predict_to(X, f"{folder}/out", method="predict_proba")
        return _planned(model, source, shape, location)


def _planned(model: Any, source: Source, shape: Shape, location: Location) -> int:
    """Return what a prediction or an evaluation checks the memory for."""
    if shape.does == "evaluate":
        rows = most_rows(cut_spans(source.chunks, source.row_bytes))
        return needed_bytes(source, location, rows, metrics_demand(source, shape.classes))
    work = model._model(), *_evenly_chunked(source.features_only()), "predict_proba"
    linear, source, _, method = work
    rows = most_rows(_spans(*work))
    return needed_bytes(source, location, rows, _demand(linear, source, method))
