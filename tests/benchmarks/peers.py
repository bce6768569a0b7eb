"""Seconds to a model within 1% of the optimum, against those who do the same otherwise.

On scikit-learn's digits, enlarged. A peer reports a model after each of its passes; the time that
it takes to judge the model is not counted. SGDClassifier and dask-ml's Incremental fit one class
against the rest: theirs is another objective, whose minimum they may reach and still be far from
this one.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import dask.array as da
import numpy as np
import zarr
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression, SGDClassifier

from dsoftmax import SoftmaxRegression
from dsoftmax.digits import BLOCK_ROWS, enlarge, load_split
from dsoftmax.runtime.connect import local_workers
from dsoftmax.runtime.executors import ThreadExecutor
from tests.benchmarks.measure import Result

ALPHA, NEAR, PATIENCE = 1e-4 * 255**2, 1.01, 60.0  # pixels go to 255
CLASSES = np.arange(10)
Model = tuple[np.ndarray, np.ndarray]  # coef (K, d), intercept (K,)
Peer = Callable[[str], Iterator[Model]]


def objective(X: np.ndarray, y: np.ndarray, model: Model) -> float:
    coef, intercept = (part.astype("f4") for part in model)
    losses = [
        -log_softmax(X[i : i + BLOCK_ROWS] @ coef.T + intercept, axis=1)[
            np.arange(len(y[i : i + BLOCK_ROWS])), y[i : i + BLOCK_ROWS]
        ].sum()
        for i in range(0, len(y), BLOCK_ROWS)
    ]
    return float(np.sum(losses) / len(y) + ALPHA / 2 * (coef**2).sum())


def ours(path: str, tol: float = 5e-3) -> Iterator[Model]:
    model = SoftmaxRegression(alpha=ALPHA, tol=tol, random_state=0)
    model.fit(f"{path}/X", f"{path}/y")
    yield model.coef_, model.intercept_


def scikit_learn(path: str) -> Iterator[Model]:
    group = zarr.open_group(path, mode="r")
    X, y = group["X"][:].astype("f4"), group["y"][:]
    model = LogisticRegression(C=1 / (len(y) * ALPHA), max_iter=5, warm_start=True)
    while True:
        model.fit(X, y)
        yield model.coef_, model.intercept_


def scikit_learn_streamed(path: str) -> Iterator[Model]:
    group = zarr.open_group(path, mode="r")
    model = SGDClassifier("log_loss", alpha=ALPHA / 255**2, random_state=0)
    while True:
        for start in range(0, group["X"].shape[0], BLOCK_ROWS):
            own = slice(start, start + BLOCK_ROWS)
            model.partial_fit(group["X"][own] / np.float32(255), group["y"][own], classes=CLASSES)
        yield model.coef_ / 255, model.intercept_


def dask_ml_incremental(path: str) -> Iterator[Model]:
    from dask_ml.wrappers import Incremental

    X = da.from_zarr(f"{path}/X").astype("f4") / np.float32(255)
    y = da.from_zarr(f"{path}/y")
    own = SGDClassifier("log_loss", alpha=ALPHA / 255**2, random_state=0)
    model = Incremental(own, shuffle_blocks=False)
    while True:
        model.partial_fit(X, y, classes=CLASSES)
        yield model.estimator_.coef_ / 255, model.estimator_.intercept_


def by_hand(path: str) -> Iterator[Model]:
    """L-BFGS of SciPy over a gradient that is written down in dask.array."""
    X, y = da.from_zarr(f"{path}/X").astype("f4"), da.from_zarr(f"{path}/y")
    onehot = (y[:, None] == CLASSES).astype("f4")
    scale, d = 255.0, X.shape[1]
    found: list[Model] = []

    def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta = flat.reshape(10, d + 1)
        coef, intercept = theta[:, :-1] / scale, theta[:, -1]
        raw = X @ coef.T.astype("f4") + intercept.astype("f4")
        p = raw.map_blocks(softmax, axis=1, dtype="f4")
        loss = -(raw.map_blocks(log_softmax, axis=1, dtype="f4") * onehot).sum()
        residual = p - onehot
        value, slope, bias = da.compute(loss, residual.T @ X, residual.sum(axis=0))
        n = len(y)
        gradient = np.column_stack([(slope / n + ALPHA * coef) / scale, bias / n])
        found.append((coef, intercept))
        return value / n + ALPHA / 2 * (coef**2).sum(), gradient.ravel().astype("f8")

    start = np.zeros(10 * (d + 1))
    for passes in (5, 10, 20, 40, 80):
        minimize(evaluate, start, jac=True, method="L-BFGS-B", options={"maxfun": passes})
        start = np.column_stack([found[-1][0] * scale, found[-1][1]]).ravel()
        yield found[-1]


def pytorch(path: str) -> Iterator[Model]:
    """Adam at 3e-3, falling over 6 passes, in batches of 512, from the store."""
    import torch

    torch.set_num_threads(2)
    group, passes = zarr.open_group(path, mode="r"), 6
    layer = torch.nn.Linear(group["X"].shape[1], 10)
    adam = torch.optim.Adam(layer.parameters(), 3e-3)
    steps = passes * -(-group["X"].shape[0] // 512)
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.01, steps)
    for _ in range(passes):
        for start in range(0, group["X"].shape[0], BLOCK_ROWS):
            own = slice(start, start + BLOCK_ROWS)
            order = torch.randperm(len(group["y"][own]))
            X = (torch.from_numpy(group["X"][own]).float() / 255)[order]
            y = torch.from_numpy(group["y"][own]).long()[order]
            for low in range(0, len(y), 512):
                penalty = ALPHA / 255**2 / 2 * (layer.weight**2).sum()
                own = slice(low, low + 512)
                loss = torch.nn.functional.cross_entropy(layer(X[own]), y[own])
                adam.zero_grad()
                (loss + penalty).backward()
                adam.step()
                schedule.step()
        yield layer.weight.detach().numpy() / 255, layer.bias.detach().numpy()


PEERS: dict[str, Peer] = {
    "scikit-learn lbfgs, in memory": scikit_learn,
    "scikit-learn SGDClassifier, streamed": scikit_learn_streamed,
    "dask-ml Incremental": dask_ml_incremental,
    "dask.array by hand, L-BFGS": by_hand,
    "PyTorch Adam, streamed": pytorch,
}


def seconds_to(peer: Peer, path: str, judge: Callable[[Model], float], goal: float) -> float | None:
    """Return the seconds until a peer has reached a value, None if it has not in a minute."""
    spent, started = 0.0, time.perf_counter()
    for model in peer(path):
        spent += time.perf_counter() - started
        if judge(model) <= goal:
            return spent
        if spent > PATIENCE:
            break
        started = time.perf_counter()
    return None


def measure(rows: int) -> Iterator[Result]:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, local_workers(2):
        path = f"{folder}/digits.zarr"
        with ThreadExecutor() as executor:
            enlarge(load_split(0)[0], Path(path), max(1, rows // BLOCK_ROWS), 0, executor)
        group = zarr.open_group(path, mode="r")
        judge = partial(objective, group["X"][:].astype("f4"), group["y"][:])
        goal = NEAR * judge(next(ours(path, tol=1e-5)))
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
        return Result(f"{name} / dsoftmax", least, least, np.inf, note="not within a minute")
    note = f"{taken:.1f} s, dsoftmax {own:.1f} s"
    return Result(f"{name} / dsoftmax", taken / own, taken / own, taken / own, note=note)
