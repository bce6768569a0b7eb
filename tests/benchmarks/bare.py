"""The bare loops: processes that read, decode and multiply in plain NumPy, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

FEATURES, CLASSES, CHUNK, PROCESSES = 784, 10, 8192, 2

Rows = tuple[np.ndarray, np.ndarray]


def build(folder: Path, rows: int) -> None:
    """Write image-like rows: a fifth of the pixels are lit, as in MNIST."""
    rng = np.random.default_rng(0)
    group = zarr.open_group(folder, mode="w")
    X = group.create_array(
        "X",
        shape=(rows, FEATURES),
        chunks=(CHUNK, FEATURES),
        dtype="u1",
        compressors=ZstdCodec(level=1),
    )
    lit = rng.integers(1, 256, (CHUNK, FEATURES), dtype="u1")
    lit[rng.random((CHUNK, FEATURES)) > 0.2] = 0
    for start in range(0, rows, CHUNK):
        X[start : start + CHUNK] = np.roll(lit, start // CHUNK, axis=1)[: rows - start]
    y = group.create_array("y", shape=(rows,), chunks=(1 << 20,), dtype="u1")
    y[:] = rng.integers(0, CLASSES, rows)


def _chunks(folder: str, own: int) -> Iterator[Rows]:
    """Decode every other chunk."""
    X, y = zarr.open_array(f"{folder}/X", mode="r"), zarr.open_array(f"{folder}/y", mode="r")[:]
    for start in range(own * CHUNK, len(y), PROCESSES * CHUNK):
        yield X[start : start + CHUNK], y[start : start + CHUNK]


@cache
def _in_memory(folder: str, own: int) -> list[Rows]:
    return list(_chunks(folder, own))


def bare_pass(job: tuple[str, int, bool]) -> Any:
    """Return the largest entry of the gradient over every other chunk, decoded now or before."""
    folder, own, in_memory = job
    weights, gradient = np.zeros((FEATURES, CLASSES), "f4"), np.zeros((CLASSES, FEATURES))
    block = np.empty((512, FEATURES), "f4")
    for rows, labels in _in_memory(folder, own) if in_memory else _chunks(folder, own):
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
