"""Rows a second of lazy `predict_proba` and of `predict_to`, against the bare loop.

    python -m tests.benchmarks.prediction [ROWS]

The bare loop is two processes that read, decode, multiply and take the softmax, with no Dask;
`predict_proba` is computed to the mean of each class, `predict_to` writes the probabilities
with checksums, as a second bare loop does. All run in turn, five times; medians are printed.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from tests.benchmarks.bare import CHUNK, CLASSES, FEATURES, PROCESSES, build
from tests.benchmarks.measure import ROUNDS, timed


def bare_pass(job: tuple[str, int, bool]) -> Any:
    """Predict every other chunk as plainly as NumPy allows, and add up or write."""
    folder, own, written = job
    X = zarr.open_array(f"{folder}/X", mode="r")
    out = zarr.open_array(f"{folder}/bare", mode="r+") if written else None
    weights, total = np.load(f"{folder}/weights.npy"), np.zeros(CLASSES)
    block = np.empty((512, FEATURES), "f4")
    for start in range(own * CHUNK, X.shape[0], PROCESSES * CHUNK):
        rows = X[start : start + CHUNK]
        p = np.empty((len(rows), CLASSES), "f4")
        for low in range(0, len(rows), 512):
            x = block[: len(rows[low : low + 512])]
            np.copyto(x, rows[low : low + 512])
            z = np.ascontiguousarray((x @ weights).T)
            z -= z.max(axis=0)
            np.exp(z, out=z)
            z /= z.sum(axis=0)
            p[low : low + 512] = z.T
        total += p.sum(axis=0, dtype="f8")
        if out is not None:
            out[start : start + CHUNK] = p
    return total


def main(rows: int) -> None:
    from dsoftmax import SoftmaxRegression
    from dsoftmax.runtime.connect import local_workers
    from dsoftmax.storage.zarr_nodes import create_array

    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(PROCESSES) as pool,
        local_workers(PROCESSES),
    ):
        build(Path(folder), rows)
        rng = np.random.default_rng(0)
        model = SoftmaxRegression().fit(np.eye(CLASSES, FEATURES), np.arange(CLASSES))
        model.coef_ = rng.normal(0, 1e-3, (CLASSES, FEATURES))
        model.intercept_ = np.zeros(CLASSES)
        np.save(f"{folder}/weights.npy", model.coef_.T.astype("f4"))
        create_array(f"{folder}/bare", None, (rows, CLASSES), "f4", (CHUNK, CLASSES))

        def bare(written: bool) -> Any:
            jobs = [(folder, own, written) for own in range(PROCESSES)]
            return sum(pool.map(bare_pass, jobs)) / rows

        def lazy() -> Any:
            return model.predict_proba(f"{folder}/X").mean(axis=0).compute()

        def stored() -> None:
            model.predict_to(f"{folder}/X", f"{folder}/ours", overwrite=True)

        calls = {
            "bare loop": lambda: bare(False),
            "predict_proba": lazy,
            "bare loop, written": lambda: bare(True),
            "predict_to": stored,
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(ROUNDS + 1):
            for name, call in calls.items():
                times[name].append(timed(call))
        np.testing.assert_allclose(lazy(), bare(False), rtol=1e-4)
    print(f"{rows:,} rows x {FEATURES} uint8, zstd; {PROCESSES} processes; medians of {ROUNDS}")
    seconds = {name: statistics.median(taken[1:]) for name, taken in times.items()}
    for name, taken in seconds.items():
        spread = f"{min(times[name][1:]):.2f} to {max(times[name][1:]):.2f}"
        print(f"{name:<20} {rows / taken:>12,.0f} rows/s {taken:>7.2f} s ({spread})")
    for ours, limit in (("predict_proba", "bare loop"), ("predict_to", "bare loop, written")):
        print(f"ratio of {ours:<14} {seconds[limit] / seconds[ours]:>8.2f}")


if __name__ == "__main__":
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 600_000)
