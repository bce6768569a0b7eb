"""What checkpoints cost: seconds to write one, and the share of a pass that they take.

    python tests/benchmarks/checkpoints.py [rows]

Fits random uint8 rows through two local workers, with and without a checkpoint, in turn.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from statistics import median

import numpy as np
import zarr
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import SoftmaxRegression
from dsoftmax.events import CheckpointWritten, Event
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


def fit(path: str, passes: int, place: Path | None, written: Written) -> list[float]:
    """Return the seconds of each pass, from the end of the one before to its own."""
    model = SoftmaxRegression(max_iter=passes, tol=0, checkpoint=place, callbacks=[written])
    model.fit(f"{path}/X", f"{path}/y")
    ends = [record["seconds"] for record in model.history_]
    return list(np.diff(ends))


def main(rows: int) -> None:
    """Print a table, a row for each size of model."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(f"{'model':<18}{'size':>10}{'write':>10}{'checkpoints':>13}{'s a pass':>10}{'share':>8}")
    for name, (features, classes, part) in SIZES.items():
        with tempfile.TemporaryDirectory() as folder, local_workers(2):
            path = store(folder, int(part * rows), features, classes)
            written, plain, kept = Written(), [], []
            for repeat in range(REPEATS):
                plain += fit(path, 8, None, written)
                kept += fit(path, 8, Path(folder) / f"state-{repeat}", written)
            size = max(event.bytes for event in written.events)
            seconds = sum(event.seconds for event in written.events)
            print(
                f"{name:<18}{size / 1e6:>7.1f} MB{seconds / len(written.events) * 1e3:>7.0f} ms"
                f"{len(written.events):>8} of {len(kept) + REPEATS:<2}{median(kept):>10.2f}"
                f"{seconds / sum(kept):>8.1%}   (without: {median(plain):.2f} s a pass)"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_200_000)
