"""Rows a second of a full gradient pass, against the bare loop.

    python tests/benchmarks/throughput.py [ROWS]

The bare loop is two processes that read, decode and multiply, with no Dask and no tree.
Both run in turn, five times each; the medians and their ratio are printed.
"""

from __future__ import annotations

import multiprocessing
import operator
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

FEATURES, CLASSES, CHUNK, PROCESSES, ROUNDS = 784, 10, 8192, 2, 5


def build(folder: Path, rows: int) -> None:
    """Write image-like rows: a fifth of the pixels are lit, as in MNIST."""
    rng = np.random.default_rng(0)
    group = zarr.open_group(folder, mode="w")
    X = group.create_array(
        "X", shape=(rows, FEATURES), chunks=(CHUNK, FEATURES), dtype="u1",
        compressors=ZstdCodec(level=1),
    )  # fmt: skip
    lit = rng.integers(1, 256, (CHUNK, FEATURES), dtype="u1")
    lit[rng.random((CHUNK, FEATURES)) > 0.2] = 0
    for start in range(0, rows, CHUNK):
        X[start : start + CHUNK] = np.roll(lit, start // CHUNK, axis=1)[: rows - start]
    y = group.create_array("y", shape=(rows,), chunks=(1 << 20,), dtype="u1")
    y[:] = rng.integers(0, CLASSES, rows)


def bare_pass(job: tuple[str, int]) -> float:
    """Compute the gradient of every other chunk as plainly as NumPy allows."""
    folder, own = job
    X, y = zarr.open_array(f"{folder}/X", mode="r"), zarr.open_array(f"{folder}/y", mode="r")[:]
    weights, gradient = np.zeros((FEATURES, CLASSES), "f4"), np.zeros((CLASSES, FEATURES))
    block = np.empty((512, FEATURES), "f4")
    for start in range(own * CHUNK, len(y), PROCESSES * CHUNK):
        rows, labels = X[start : start + CHUNK], y[start : start + CHUNK]
        for low in range(0, len(rows), 512):
            part = rows[low : low + 512]
            x = block[: len(part)]
            np.copyto(x, part)
            z = np.ascontiguousarray((x @ weights).T)
            z -= z.max(axis=0)
            np.exp(z, out=z)
            z /= z.sum(axis=0)
            z[labels[low : low + 512], np.arange(len(x))] -= 1
            gradient += z @ x
    return float(np.abs(gradient).max())


def full_pass(model_source: Any, executor: Any) -> float:
    """Compute the same gradient through dsoftmax."""
    from dsoftmax.objective import partial_gradient
    from dsoftmax.reduction import Reduction
    from dsoftmax.runtime import reduce as runtime
    from dsoftmax.runtime.spans import cut_spans

    points = np.zeros((1, FEATURES + 1, CLASSES), "f4")
    kernel = partial(partial_gradient, points=points, shift=None)
    reduction = Reduction("partial_gradient", kernel, operator.add)
    spans = cut_spans(model_source.chunks, model_source.row_bytes)
    sums, _ = runtime.reduce(executor, model_source, reduction, runtime.full_pass(spans))
    return float(np.abs(sums.gradient[0, :-1]).max())


def timed(call: Any, *arguments: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - start, result


def main(rows: int) -> None:
    from dsoftmax import open_data
    from dsoftmax.runtime.connect import local_workers
    from dsoftmax.runtime.executors import executor_for

    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(PROCESSES) as pool,
        local_workers(PROCESSES),
    ):
        build(Path(folder), rows)
        source = open_data(f"{folder}/X", f"{folder}/y").with_classes(np.arange(CLASSES))
        jobs = [(folder, own) for own in range(PROCESSES)]
        bare, ours = [], []
        with executor_for(source) as executor:
            for _ in range(ROUNDS + 1):
                bare.append(timed(pool.map, bare_pass, jobs)[0])
                ours.append(timed(full_pass, source, executor)[0])
    limit, got = statistics.median(bare[1:]), statistics.median(ours[1:])
    print(f"{rows:,} rows x {FEATURES} uint8, zstd; {PROCESSES} processes; medians of {ROUNDS}")
    for name, seconds, all_of in (("bare loop", limit, bare), ("dsoftmax", got, ours)):
        spread = f"{min(all_of[1:]):.2f} to {max(all_of[1:]):.2f}"
        print(f"{name:<10} {rows / seconds:>12,.0f} rows/s {seconds:>7.2f} s a pass ({spread})")
    print(f"ratio      {limit / got:>12.2f}")


if __name__ == "__main__":
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 600_000)
