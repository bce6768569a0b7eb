"""A linear probe on precomputed embeddings: float16, 1,000 classes, larger than memory.

    python pipelines/linear_probe.py [ROWS] [FOLDER]

The embeddings stay the float16 numbers that they are, on disk and in memory, until a block of
them is multiplied. With 1,000 classes a gradient is large, and a pass for each costs less than
many mini-batches; `max_iter` passes are enough for a probe. The embeddings here are synthetic:
1,000 clusters on a sphere, as those of a good encoder. Of your own you need an array (rows,
features) and one of labels in a Zarr group, or in a file that `dsoftmax.ingest` reads.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import dask.array as da
import numpy as np
from dask_ml.datasets import make_blobs
from distributed import Client, SubprocessCluster
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import SoftmaxRegression
from dsoftmax.diagnostics import plot_scores

FEATURES, CLASSES, CHUNK = 384, 1000, 4096


def write_embeddings(folder: Path, rows: int, held_out: int) -> None:
    """Write unit vectors around 1,000 centres, in random order, and the centre of each."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, FEATURES))
    X, y = make_blobs(rows + held_out, FEATURES, centers=centres, cluster_std=5.0, chunks=CHUNK)
    X = X / da.linalg.norm(X, axis=1, keepdims=True)
    arrays = {"X": X.astype("float16"), "y": y.astype("int16")}
    for name, values in arrays.items():
        # The rows after those for training are new draws; a second call would draw the same.
        da.to_zarr(values[:rows], str(folder / "train.zarr"), component=name, mode="w")
        test = values[rows:].rechunk({0: CHUNK})
        da.to_zarr(test, str(folder / "test.zarr"), component=name, mode="w")


def main(rows: int, folder: Path) -> None:
    """Make the embeddings, fit the probe on two workers of little memory, and evaluate it."""
    train, test = folder / "train.zarr", folder / "test.zarr"
    write_embeddings(folder, rows, held_out=max(rows // 20, CHUNK))
    cluster = SubprocessCluster(
        n_workers=2,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        worker_kwargs={"nthreads": 1, "memory_limit": "350 MiB"},
    )
    with cluster, Client(cluster):
        probe = SoftmaxRegression(alpha=1e-8, solver="lbfgs", max_iter=16, verbose=1)
        probe.fit(f"{train}/X", f"{train}/y")
        scores = probe.evaluate(f"{test}/X", f"{test}/y")
    probe.save(folder / "probe.zarr", overwrite=True)
    plot_scores(scores, folder / "scores.png")

    size = rows * FEATURES * 2 / 2**20
    seconds = sum(r["pass_seconds"] for r in probe.history_ if r["kind"] == "pass")
    print(f"{rows:,} embeddings x {FEATURES} float16, {size:,.0f} MiB; {CLASSES:,} classes")
    print(f"{probe.n_iter_} passes in {seconds:.0f} s on 2 workers of 350 MiB")
    print(f"accuracy {scores['accuracy']:.4f}, top 5 {scores['top_k_accuracy'][5]:.4f}")
    print(f"log loss {scores['log_loss']:.4f}, calibration error {scores['ece']:.4f}")


if __name__ == "__main__":
    warnings.simplefilter("ignore", ConvergenceWarning)  # a probe need not be at its optimum
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000,
        Path(sys.argv[2] if len(sys.argv) > 2 else "probe"),
    )
