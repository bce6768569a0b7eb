"""What it costs to be safe: checkpoints, and a worker that is killed in the middle of a pass.

    python tests/benchmarks/resilience.py [rows]

Fits random uint8 rows through two local workers, with and without a checkpoint or a kill, in turn.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np
import zarr
from distributed import Client
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import SoftmaxRegression
from dsoftmax.events import Callback, CheckpointWritten, Event, PassEnded, RowsDone
from dsoftmax.runtime.connect import local_workers

SIZES = {"d*K = 8,000": (800, 10, 1.0), "d*K = 1,000,000": (2000, 500, 0.05)}
REPEATS = 5


class Written:
    """Remembers the checkpoints."""

    def __init__(self) -> None:
        self.events: list[CheckpointWritten] = []

    def on_event(self, event: Event) -> None:
        if isinstance(event, CheckpointWritten):
            self.events.append(event)


class Kill:
    """Kills a worker in the middle of the fourth pass."""

    def __init__(self, client: Client) -> None:
        self.pids = sorted(client.run(os.getpid).values())
        self.passes = 0

    def on_event(self, event: Event) -> None:
        self.passes += isinstance(event, PassEnded)
        if self.passes == 3 and isinstance(event, RowsDone) and event.rows > event.total / 3:
            self.passes += 1
            os.kill(self.pids[0], signal.SIGKILL)


def store(folder: str, rows: int, features: int, classes: int) -> str:
    rng = np.random.default_rng(0)
    group = zarr.open_group(f"{folder}/data.zarr", mode="w")
    X = group.create_array("X", shape=(rows, features), dtype="u1", chunks=(8192, features))
    y = rng.integers(classes, size=rows)
    group.create_array("y", shape=(rows,), dtype="i8", chunks=(1 << 20,))[...] = y
    for start in range(0, rows, 8192):
        labels = y[start : start + 8192]
        block = rng.integers(0, 60, size=(len(labels), features), dtype=np.uint8)
        block[np.arange(len(labels)), labels] += 180
        X[start : start + 8192] = block
    return f"{folder}/data.zarr"


def fit(path: str, place: Path | None, callback: Callback | None = None) -> list[float]:
    """Return the seconds of each of 7 passes, from the end of the one before to its own."""
    callbacks = [] if callback is None else [callback]
    model = SoftmaxRegression(max_iter=8, tol=0, checkpoint=place, callbacks=callbacks)
    model.fit(f"{path}/X", f"{path}/y")
    return list(np.diff([record["seconds"] for record in model.history_]))


def checkpoints(path: str, name: str, folder: str) -> None:
    """Print what checkpoints cost."""
    written, plain, kept = Written(), [], []
    for repeat in range(REPEATS):
        plain += fit(path, None)
        kept += fit(path, Path(folder) / f"state-{repeat}", written)
    size = max(event.bytes for event in written.events)
    seconds = sum(event.seconds for event in written.events)
    print(
        f"{name:<18}{size / 1e6:>7.1f} MB{seconds / len(written.events) * 1e3:>7.0f} ms"
        f"{len(written.events):>8} of {len(kept) + REPEATS:<2}{median(kept):>10.2f}"
        f"{seconds / sum(kept):>8.1%}   (without: {median(plain):.2f} s a pass)"
    )


def kills(path: str, client: Client) -> None:
    """Print how much longer a pass takes in which one of two workers is killed."""
    lost = []
    for _ in range(REPEATS):
        passes = fit(path, None, Kill(client))
        lost.append(passes[2] - median(passes[:2] + passes[4:]))
        while len(client.run(os.getpid, on_error="ignore")) < 2:
            time.sleep(0.5)
    print(f"a killed worker costs a pass {median(lost):.2f} s ({min(lost):.2f} to {max(lost):.2f})")


def main(rows: int) -> None:
    """Print a table, a row for each size of model."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(f"{'model':<18}{'size':>10}{'write':>10}{'checkpoints':>13}{'s a pass':>10}{'share':>8}")
    for name, (features, classes, part) in SIZES.items():
        with tempfile.TemporaryDirectory() as folder, local_workers(2) as client:
            path = store(folder, int(part * rows), features, classes)
            checkpoints(path, name, folder)
            if part == 1.0:
                kills(path, client)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_200_000)
