"""Fits that are disturbed at random, against the same fits left alone: how many differ in a bit?

Each trial draws a solver, data, and what happens: reads that fail for a while, workers that are
killed, stops in the middle of passes, each followed by going on somewhere else, on one of
several clusters or in this process.

    python tests/benchmarks/chaos.py [trials] [first seed]
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import dask
import numpy as np
import zarr
from distributed import Client, LocalCluster
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import OutageError, SoftmaxRegression, open_data
from dsoftmax.events import ChunkQuarantined, Event, RowsDone, StepEnded
from dsoftmax.runtime import spans

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.faulty import with_faults

SOLVERS = {
    "newton": {"solver": "newton", "max_iter": 6, "sample_size": 400},
    "lbfgs": {"solver": "lbfgs", "max_iter": 8},
    "fista": {"solver": "sgd", "batch_size": 10**6, "l1_ratio": 0.5, "max_iter": 8},
    "sgd": {"solver": "sgd", "batch_size": 170, "max_iter": 5},
    "adam": {"solver": "adam", "batch_size": 120, "max_iter": 5, "standardize": True},
}
CLUSTERS = {"1 x 1": (1, 1), "2 x 1": (2, 1), "3 x 2": (3, 2), "8 x 1": (8, 1)}  # workers x threads
MOST_KILLS = 3  # of workers in a row that Dask forgives a task
Bits = tuple[bytes, ...]


class StopError(Exception):
    """The job ends here."""


@dataclass
class Disturb:
    """Kills workers and stops the fit, at events drawn in advance."""

    rng: np.random.Generator
    client: Client | None
    kills: int
    may_stop: bool
    counts: Counter[str] = field(default_factory=Counter)

    def on_event(self, event: Event) -> None:
        if not isinstance(event, RowsDone | StepEnded | ChunkQuarantined):
            return
        drawn = self.rng.random()
        if drawn < 0.05 and self.kills > 0 and self.client is not None:
            self.kills -= 1
            self._kill()
        elif drawn > 0.93 and self.may_stop:
            raise StopError

    def _kill(self) -> None:
        assert self.client is not None
        pids = sorted(self.client.run(os.getpid, on_error="ignore").values())
        if pids:
            os.kill(pids[int(self.rng.integers(len(pids)))], signal.SIGKILL)
            self.counts["kills"] += 1


class Pool:
    """Clusters that are started when first needed, and again when one has died."""

    def __init__(self, sizes: dict[str, tuple[int, int]]) -> None:
        self.sizes = sizes
        self.names = ["in-process", *sizes]
        self._clients: dict[str, Client] = {}

    def client(self, name: str) -> Client | None:
        if name in self.sizes and name not in self._clients:
            workers, threads = self.sizes[name]
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=threads, dashboard_address="127.0.0.1:0"
            )
            self._clients[name] = Client(cluster, set_as_default=False)
        return self._clients.get(name)

    def close(self, *names: str) -> None:
        """Stop some clusters, or all."""
        for name in names or tuple(self._clients):
            client = self._clients.pop(name, None)
            if client is not None:
                client.close()
                client.cluster.close()


@cache
def stored(folder: Path, rows: int, dtype: str) -> Path:
    """Return a store of digits in chunks of so many rows."""
    X, y = load_digits(return_X_y=True)
    path = folder / f"{rows}-{dtype}.zarr"
    group = zarr.open_group(path, mode="w")
    group.create_array("X", shape=X.shape, dtype=dtype, chunks=(rows, 40))[...] = X
    group.create_array("y", shape=y.shape, dtype="int64", chunks=(500,))[...] = y
    return path


def bits(model: SoftmaxRegression) -> Bits:
    """Return all that must not differ."""
    numbers = [[r["loss"], r["accuracy"], r["gradient_norm"], r["rows"]] for r in model.history_]
    facts = [model.loss_, model.n_iter_, model.n_steps_]
    return (
        model.coef_.tobytes(),
        model.intercept_.tobytes(),
        np.array(numbers).tobytes(),
        np.array(facts).tobytes(),
    )


@cache
def undisturbed(path: Path, solver: str) -> Bits:
    """Return the bits of a fit in this process that nothing happens to."""
    model = SoftmaxRegression(tol=0, random_state=0, **SOLVERS[solver])
    return bits(model.fit(f"{path}/X", f"{path}/y"))


def trial(seed: int, folder: Path, pool: Pool) -> tuple[bool, Counter[str]]:
    """Return whether a disturbed fit has the bits of the undisturbed one, and what happened."""
    rng = np.random.default_rng(seed)
    solver = list(SOLVERS)[seed % len(SOLVERS)]
    rows = int(rng.choice([97, 150, 224]))
    path = stored(folder, rows, str(rng.choice(["uint8", "float32", "float64"])))
    starts = rng.choice(np.arange(0, 1797, rows), size=2, replace=False)
    script = {
        int(row): [*rng.choice(["ok", "timeout", "reset", "busy"], 3), "ok"] for row in starts
    }
    counts: Counter[str] = Counter({solver: 1})
    kills = int(rng.integers(MOST_KILLS + 1))
    for attempt in range(100):
        where = str(rng.choice(pool.names))
        client = pool.client(where)
        counts[where] += 1
        disturb = Disturb(rng, client, kills, attempt < 12, counts)
        log = folder / f"log-{seed}-{attempt}"
        source = with_faults(open_data(f"{path}/X", f"{path}/y"), script, log)
        model = SoftmaxRegression(
            tol=0,
            random_state=0,
            checkpoint=folder / f"state-{seed}",
            callbacks=[disturb],
            **SOLVERS[solver],
        )
        try:
            with client.as_current() if client else nullcontext():
                model.fit(source)
        except (StopError, OutageError) as error:
            kills = disturb.kills
            if isinstance(error, StopError):
                counts["stops"] += 1
            else:  # its last worker was killed while it was being started again
                counts["outages"] += 1
                pool.close(where)
            continue
        counts["retries"] += sum(r["retries"] for r in model.history_ if r["kind"] == "pass")
        return bits(model) == undisturbed(path, solver), counts
    raise AssertionError(f"trial {seed} never ends")


@contextmanager
def eager() -> Iterator[None]:
    """Make every chunk a span, retry at once, and write checkpoints whenever there is news."""
    before, spans._SPAN_BYTES = spans._SPAN_BYTES, 1
    settings = {
        "dsoftmax.retry-delay": 0.001,
        "dsoftmax.checkpoint-interval": 0,
        "dsoftmax.worker-timeout": "10s",
    }
    with dask.config.set(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
    spans._SPAN_BYTES = before


def main(trials: int, first: int) -> None:
    """Run the trials and print what happened in them."""
    total: Counter[str] = Counter()
    diverged = []
    started = time.perf_counter()
    pool = Pool(CLUSTERS)
    with tempfile.TemporaryDirectory() as name, eager(), closing(pool):
        for seed in range(first, first + trials):
            same, counts = trial(seed, Path(name), pool)
            total += counts
            if not same:
                diverged.append(seed)
                print(f"trial {seed} diverged: {dict(counts)}", flush=True)
            elif (seed - first) % 20 == 19:
                seconds = time.perf_counter() - started
                print(f"{seed - first + 1} trials in {seconds:.0f} s", file=sys.stderr, flush=True)
    print(f"{trials} trials in {time.perf_counter() - started:.0f} s, seeds from {first} on")
    print("fits      " + ", ".join(f"{name} {total[name]}" for name in SOLVERS))
    print("jobs      " + ", ".join(f"{name} {total[name]}" for name in ("in-process", *CLUSTERS)))
    print(
        "happened  "
        + ", ".join(f"{total[name]} {name}" for name in ("stops", "kills", "outages", "retries"))
    )
    print(f"diverged  {len(diverged)} {diverged or ''}")
    sys.exit(bool(diverged))


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    main(*(numbers + [200, 0][len(numbers) :]))
