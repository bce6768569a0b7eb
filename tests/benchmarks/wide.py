"""Mini-batches of a model of many coefficients, against processes that decode and compute only.

    python -m tests.benchmarks.wide [ROWS [BATCH [SOLVER]]]

1,000 classes x 2,048 features: points of 8 MB travel to workers, and sums of 16 MB come back.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import warnings

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from dsoftmax import SoftmaxRegression, open_data
from dsoftmax.objective.kernel import loss_gradient
from dsoftmax.runtime.connect import local_workers
from dsoftmax.runtime.environment import KEEP_MEMORY
from tests.benchmarks.bare import PROCESSES
from tests.benchmarks.measure import ROUNDS, compared, timed

CLASSES, FEATURES, CHUNK = 1000, 2048, 2048


def build(folder: str, rows: int) -> None:
    rng = np.random.default_rng(0)
    X = zarr.create_array(
        f"{folder}/X",
        shape=(rows, FEATURES),
        chunks=(CHUNK, FEATURES),
        dtype="u1",
        compressors=ZstdCodec(level=1),
    )
    for start in range(0, rows, CHUNK):
        X[start : start + CHUNK] = rng.integers(0, 256, (min(CHUNK, rows - start), FEATURES), "u1")
    y = (np.arange(rows) * 7 % CLASSES).astype("i2")
    zarr.create_array(f"{folder}/y", data=y, chunks=(rows,))


def bare(job: tuple[str, int]) -> float:
    """Return the largest entry of the gradient over every other chunk."""
    folder, own = job
    source = open_data(f"{folder}/X", f"{folder}/y").with_classes(np.arange(CLASSES))
    points, largest = np.zeros((1, FEATURES + 1, CLASSES), "f4"), 0.0
    for start in range(own * CHUNK, source.n_samples, PROCESSES * CHUNK):
        chunk = source.read(start, min(start + CHUNK, source.n_samples))
        largest = max(largest, float(np.abs(loss_gradient(chunk, points).gradient).max()))
    return largest


def epoch(folder: str, batch: int, solver: str) -> float:
    """Return the seconds of an epoch, by its steps but the first, which has the reads before it."""
    model = SoftmaxRegression(
        solver=solver,
        max_iter=2,
        tol=0,
        batch_size=batch,
        learning_rate=1e-4,
        random_state=0,
        classes=np.arange(CLASSES),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(f"{folder}/X", f"{folder}/y")
    ends = [record["seconds"] for record in model.history_ if record["kind"] == "step"]
    return (ends[-1] - ends[0]) * len(ends) / (len(ends) - 1)


def main(rows: int, batch: int, solver: str) -> None:
    os.environ.update(KEEP_MEMORY, OPENBLAS_NUM_THREADS="1")
    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(PROCESSES) as pool,
        local_workers(PROCESSES),
    ):
        build(folder, rows)
        jobs = [(folder, own) for own in range(PROCESSES)]
        pool.map(bare, jobs, 1)
        limit, taken = [], []
        for _ in range(ROUNDS):
            limit.append(timed(lambda: pool.map(bare, jobs, 1)))
            taken.append(epoch(folder, batch, solver))
    step = 1000 * sorted(taken)[ROUNDS // 2] * batch / rows
    name = f"{solver}, batches of {batch:,}, 1,000 x 2,048"
    print(compared(name, limit, taken, note=f"{step:.0f} ms a step").line())


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        int(given[0]) if given else 65_536,
        int(given[1]) if len(given) > 1 else 8192,
        given[2] if len(given) > 2 else "adam",
    )
