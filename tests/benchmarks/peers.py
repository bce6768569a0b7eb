"""Seconds to a model within 1% of the optimum, against those who do the same otherwise.

On scikit-learn's digits, enlarged, and all on the same objective: pixels from 0 to 1, the same
penalty. Seconds begin with the store: who needs the rows in memory, as float32, has to read them.
The time that it takes to judge a model is not counted. SGDClassifier and dask-ml's Incremental fit
one class against the rest: theirs is another objective, whose minimum they may reach and still be
far from this one.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import dask.array as da
import numpy as np
import zarr
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression, SGDClassifier

from dsoftmax import SoftmaxRegression
from dsoftmax.cli.demo_data import BLOCK_ROWS, enlarge, load_split
from dsoftmax.runtime.connect import local_workers
from dsoftmax.runtime.threads import ThreadExecutor
from tests.benchmarks.measure import Result

ALPHA, WHITE, NEAR, PATIENCE = 1e-4, 255, 1.01, 60.0
CLASSES = np.arange(10)
Model = tuple[np.ndarray, np.ndarray]  # coef (K, d) of pixels from 0 to 1, intercept (K,)
Peer = Callable[[str], Iterator[tuple[float, Model]]]  # with the seconds that each has taken


class Stopwatch:
    """Counts the seconds that a peer computes, and not those in which its model is judged."""

    def __init__(self) -> None:
        self._spent, self._since = 0.0, time.perf_counter()

    def stop(self) -> float:
        self._spent += time.perf_counter() - self._since
        return self._spent

    def go(self) -> None:
        self._since = time.perf_counter()


def objective(X: np.ndarray, y: np.ndarray, model: Model) -> float:
    coef, intercept = (part.astype("f4") for part in model)
    losses = [
        -log_softmax(X[i : i + BLOCK_ROWS] @ coef.T + intercept, axis=1)[
            np.arange(len(y[i : i + BLOCK_ROWS])), y[i : i + BLOCK_ROWS]
        ].sum()
        for i in range(0, len(y), BLOCK_ROWS)
    ]
    return float(np.sum(losses) / len(y) + ALPHA / 2 * (coef**2).sum())


def ours(path: str, tol: float = 5e-3) -> Iterator[tuple[float, Model]]:
    watch = Stopwatch()
    model = SoftmaxRegression(alpha=ALPHA * WHITE**2, tol=tol, random_state=0)
    model.fit(f"{path}/X", f"{path}/y")
    yield watch.stop(), (model.coef_ * WHITE, model.intercept_)


def scikit_learn(path: str) -> Iterator[tuple[float, Model]]:
    """Fit anew with more and more iterations; each counts as if it were the only one."""
    watch, group = Stopwatch(), zarr.open_group(path, mode="r")
    X, y = group["X"][:].astype("f4") / np.float32(WHITE), group["y"][:]
    read = watch.stop()
    for iterations in (10, 20, 40, 80, 160, 320):
        watch = Stopwatch()
        model = LogisticRegression(C=1 / (len(y) * ALPHA), tol=0, max_iter=iterations).fit(X, y)
        yield read + watch.stop(), (model.coef_, model.intercept_)


def scikit_learn_streamed(path: str) -> Iterator[tuple[float, Model]]:
    watch, group = Stopwatch(), zarr.open_group(path, mode="r")
    model = SGDClassifier("log_loss", alpha=ALPHA, random_state=0)
    while True:
        for start in range(0, group["X"].shape[0], BLOCK_ROWS):
            own = slice(start, start + BLOCK_ROWS)
            model.partial_fit(group["X"][own] / np.float32(WHITE), group["y"][own], classes=CLASSES)
        yield watch.stop(), (model.coef_, model.intercept_)
        watch.go()


def dask_ml_incremental(path: str) -> Iterator[tuple[float, Model]]:
    from dask_ml.wrappers import Incremental

    watch = Stopwatch()
    X = da.from_zarr(f"{path}/X").astype("f4") / np.float32(WHITE)
    y = da.from_zarr(f"{path}/y")
    own = SGDClassifier("log_loss", alpha=ALPHA, random_state=0)
    model = Incremental(own, shuffle_blocks=False)
    while True:
        model.partial_fit(X, y, classes=CLASSES)
        yield watch.stop(), (model.estimator_.coef_, model.estimator_.intercept_)
        watch.go()


class OutOfPatienceError(Exception):
    """The minute is over."""


def by_hand(path: str) -> Iterator[tuple[float, Model]]:
    """L-BFGS of SciPy over a gradient that is written down in dask.array."""
    watch = Stopwatch()
    X = da.from_zarr(f"{path}/X").astype("f4") / np.float32(WHITE)
    y = da.from_zarr(f"{path}/y")
    onehot, n, d = (y[:, None] == CLASSES).astype("f4"), len(y), X.shape[1]
    found: list[tuple[float, Model]] = []

    def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta = flat.reshape(10, d + 1)
        coef, intercept = theta[:, :-1], theta[:, -1]
        raw = X @ coef.T.astype("f4") + intercept.astype("f4")
        p = raw.map_blocks(softmax, axis=1, dtype="f4")
        loss = -(raw.map_blocks(log_softmax, axis=1, dtype="f4") * onehot).sum()
        residual = p - onehot
        value, slope, bias = da.compute(loss, residual.T @ X, residual.sum(axis=0))
        gradient = np.column_stack([slope / n + ALPHA * coef, bias / n])
        found.append((watch.stop(), (coef.copy(), intercept.copy())))
        watch.go()
        if found[-1][0] > PATIENCE:
            raise OutOfPatienceError
        return value / n + ALPHA / 2 * (coef**2).sum(), gradient.ravel().astype("f8")

    with suppress(OutOfPatienceError):
        minimize(evaluate, np.zeros(10 * (d + 1)), jac=True, method="L-BFGS-B")
    yield from found


def pytorch(path: str) -> Iterator[tuple[float, Model]]:
    """Adam at 3e-3, falling over 6 passes, in batches of 512, from the store."""
    import torch

    torch.set_num_threads(2)
    watch, group, passes = Stopwatch(), zarr.open_group(path, mode="r"), 6
    layer = torch.nn.Linear(group["X"].shape[1], 10)
    adam = torch.optim.Adam(layer.parameters(), 3e-3)
    steps = passes * -(-group["X"].shape[0] // 512)
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.01, steps)
    for _ in range(passes):
        for start in range(0, group["X"].shape[0], BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            labels = torch.from_numpy(group["y"][block]).long()
            order = torch.randperm(len(labels))
            X = (torch.from_numpy(group["X"][block]).float() / WHITE)[order]
            y = labels[order]
            for low in range(0, len(y), 512):
                penalty = ALPHA / 2 * (layer.weight**2).sum()
                own = slice(low, low + 512)
                loss = torch.nn.functional.cross_entropy(layer(X[own]), y[own])
                adam.zero_grad()
                (loss + penalty).backward()
                adam.step()
                schedule.step()
        coef, intercept = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        yield watch.stop(), (coef.copy(), intercept.copy())
        watch.go()


PEERS: dict[str, Peer] = {
    "scikit-learn lbfgs, in memory": scikit_learn,
    "scikit-learn SGDClassifier, streamed": scikit_learn_streamed,
    "dask-ml Incremental": dask_ml_incremental,
    "dask.array by hand, L-BFGS": by_hand,
    "PyTorch Adam, streamed": pytorch,
}


def seconds_to(peer: Peer, path: str, judge: Callable[[Model], float], goal: float) -> float | None:
    """Return the seconds until a peer has reached a value, None if it has not in a minute."""
    for seconds, model in peer(path):
        if judge(model) <= goal:
            return seconds
        if seconds > PATIENCE:
            break
    return None


def measure(rows: int) -> Iterator[Result]:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, local_workers(2):
        path = f"{folder}/digits.zarr"
        with ThreadExecutor() as executor:
            enlarge(load_split(0)[0], Path(path), max(1, rows // BLOCK_ROWS), 0, executor)
        group = zarr.open_group(path, mode="r")
        X = group["X"][:].astype("f4") / np.float32(WHITE)
        judge = partial(objective, X, group["y"][:])
        goal = NEAR * judge(next(ours(path, tol=1e-5))[1])
        own = sorted(_taken(ours, path, judge, goal) for _ in range(3))
        for name, peer in PEERS.items():
            yield _against(name, peer, path, judge, goal, own[1])


def _taken(peer: Peer, path: str, judge: Callable[[Model], float], goal: float) -> float:
    found = seconds_to(peer, path, judge, goal)
    assert found is not None, "dsoftmax itself must get there"
    return found


def _against(
    name: str, peer: Peer, path: str, judge: Callable[[Model], float], goal: float, own: float
) -> Result:
    try:
        taken = seconds_to(peer, path, judge, goal)
    except ImportError:
        return Result(name, np.nan, np.nan, np.nan, note="not installed")
    if taken is None:
        least = PATIENCE / own
        note = f"not within a minute, dsoftmax {own:.1f} s"
        return Result(f"{name} / dsoftmax", least, least, np.inf, note=note)
    note = f"{taken:.1f} s, dsoftmax {own:.1f} s"
    return Result(f"{name} / dsoftmax", taken / own, taken / own, taken / own, note=note)
