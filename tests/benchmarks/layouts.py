"""Codec pipelines of Zarr, by how a store is laid out: seconds of one process, interleaved.

    python -m tests.benchmarks.layouts [ROWS]

zarr: rows as Zarr reads them. dsoftmax: as a worker does. zarrs: as a worker does with the Rust
pipeline of the package of that name, which has to be installed. Each with one thread to decode.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from dsoftmax import open_data
from dsoftmax.runtime.environment import KEEP_MEMORY
from dsoftmax.runtime.spans import cut_spans

FEATURES, CHUNK, ROUNDS = 784, 8192, 5
CODECS = {"none": None, "zstd": ZstdCodec(level=1), "blosc": BloscCodec(cname="lz4")}
CHUNKS: dict[str, dict[str, Any]] = {
    "chunks": {"chunks": (CHUNK, FEATURES)},
    "shards, large chunks": {"shards": (4 * CHUNK, FEATURES), "chunks": (CHUNK, FEATURES)},
    "shards, small chunks": {"shards": (CHUNK, FEATURES), "chunks": (CHUNK // 32, FEATURES)},
}
PIPELINES = {
    "zarr": "zarr.core.codec_pipeline.BatchedCodecPipeline",
    "dsoftmax": "zarr.core.codec_pipeline.BatchedCodecPipeline",
    "zarrs": "zarrs.ZarrsCodecPipeline",
}


def build(path: str, rows: int, codec: Any, chunks: dict[str, Any]) -> None:
    """Write image-like rows: a fifth of the pixels are lit."""
    rng = np.random.default_rng(0)
    X = zarr.create_array(
        path, shape=(rows, FEATURES), dtype="u1", compressors=codec, overwrite=True, **chunks
    )
    lit = rng.integers(1, 256, (4 * CHUNK, FEATURES), dtype="u1")
    lit[rng.random(lit.shape) > 0.2] = 0
    for start in range(0, rows, len(lit)):
        X[start : start + len(lit)] = lit[: rows - start]


def read_by_zarr(path: str) -> None:
    array = zarr.open_array(path, mode="r")
    for start in range(0, array.shape[0], CHUNK):
        array[start : start + CHUNK]


def read_as_worker(path: str) -> None:
    source = open_data(path)
    for start, stop in cut_spans(source.chunks, source.row_bytes):
        source.read(start, stop)


def read(name: str, path: str) -> None:
    """Read all rows by a pipeline, which an array has from when it is opened."""
    with zarr.config.set({"codec_pipeline.path": PIPELINES[name]}):
        (read_by_zarr if name == "zarr" else read_as_worker)(path)


def measured(path: str) -> dict[str, tuple[float, float]]:
    """Return wall and processor seconds of each pipeline, medians."""
    zarr.config.set({"async.concurrency": 1, "threading.max_workers": 1})
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in PIPELINES}
    for number, name in itertools.product(range(ROUNDS + 1), PIPELINES):
        wall, cpu = time.perf_counter(), time.process_time()
        read(name, path)
        if number > 0:
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: (statistics.median(w for w, _ in own), statistics.median(c for _, c in own))
        for name, own in taken.items()
    }


def main(rows: int) -> None:
    os.environ.update(KEEP_MEMORY)
    print(f"{rows:,} rows x {FEATURES} uint8; us a row, wall (processor)")
    print(f"{'codec':<8}{'layout':<24}" + "".join(f"{name:>18}" for name in PIPELINES))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for (codec, own), (layout, chunks) in itertools.product(CODECS.items(), CHUNKS.items()):
            with tempfile.TemporaryDirectory() as folder:
                build(f"{folder}/X", rows, own, chunks)
                found = pool.apply(measured, (f"{folder}/X",))
            each = [f"{1e6 * w / rows:.2f} ({1e6 * c / rows:.2f})" for w, c in found.values()]
            print(f"{codec:<8}{layout:<24}" + "".join(f"{text:>18}" for text in each), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 16 * CHUNK)
