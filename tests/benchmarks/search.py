"""How many fits a search takes, in seconds of the same run.

    python -m tests.benchmarks.search mnist.npz [NAME ...]

NAMEs: path, best, folds (of MNIST enlarged twenty times, 1.2 million rows in a temporary Zarr
store, on two workers that remember nothing), classes (100 of them, 300,000 rows), grid (those 1.2
million rows in memory, against scikit-learn's GridSearchCV over the same candidates). Each is a
ratio of seconds, and in brackets of the CPU seconds of all processes, which other load changes
less.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import dask
import numpy as np
import psutil
import zarr
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from dsoftmax import SoftmaxRegression, SoftmaxRegressionCV
from dsoftmax.runtime.connect import local_workers
from tests.benchmarks.passes import shifted, sorted_labels

TOL = 5e-3  # the first alpha below is then within 1e-3 of its minimum
Taken = tuple[float, float]


def cpu_seconds() -> float:
    """CPU seconds of this process and those that it has started."""
    total = time.process_time()
    for child in psutil.Process().children(recursive=True):
        times = child.cpu_times()
        total += times.user + times.system
    return total


def taken(name: str, fit: Callable[[], Any]) -> Taken:
    started, cpu = time.perf_counter(), cpu_seconds()
    model = fit()
    seconds, cpu = time.perf_counter() - started, cpu_seconds() - cpu
    chosen = f", alpha {model.alpha_:.3g}" if hasattr(model, "alpha_") else ""
    passes = f", {model.n_iter_} passes" if hasattr(model, "n_iter_") else ""
    print(f"{name:<34}{seconds:8.1f} s {cpu:8.1f} s of CPU{passes}{chosen}", flush=True)
    return seconds, cpu


def tell(name: str, one: Taken, many: Taken, goal: str) -> None:
    ratio, by_cpu = (b / a for a, b in zip(one, many, strict=True))
    print(f"{name:<34}{ratio:8.2f}   ({by_cpu:.2f})   goal {goal}", flush=True)


def on_a_store(archive: str, names: list[str]) -> None:
    X_test = np.load(archive)["X_test"].reshape(-1, 784)
    validation = {"X_val": X_test, "y_val": np.load(archive)["y_test"]}
    with tempfile.TemporaryDirectory() as folder, local_workers(2):
        problem = shifted(archive, folder)
        X, y = problem.X, problem.y
        common: dict[str, Any] = {"random_state": 0, "tol": TOL}
        one = taken("one fit", lambda: SoftmaxRegression(**problem.params, **common).fit(X, y))
        if "path" in names:
            path = SoftmaxRegressionCV(20, cv=None, prune=False, **common)
            many = taken("path of 20 alphas", lambda: path.fit(X, y, **validation))
            tell("path of 20 / one fit", one, many, "4")
        if "best" in names:
            best = SoftmaxRegressionCV(20, cv=None, **common)
            many = taken("best of 20 alphas", lambda: best.fit(X, y, **validation))
            tell("best of 20 / one fit", one, many, "2.5")
            winner = SoftmaxRegression(best.alpha_, **common)
            alone = taken("one fit of the winner", lambda: winner.fit(X, y))
            tell("best of 20 / one fit of the winner", alone, many, "")
        if "folds" in names:
            folds = SoftmaxRegressionCV(10, cv=5, **common)
            many = taken("10 alphas x 5 folds", lambda: folds.fit(X, y))
            tell("10 alphas x 5 folds / one fit", one, many, "6")


def many_classes(archive: str) -> None:
    problem = sorted_labels(archive)
    common: dict[str, Any] = {"random_state": 0, "tol": TOL}
    X, y = problem.X, problem.y
    one = taken("K = 100, one fit", lambda: SoftmaxRegression(**problem.params, **common).fit(X, y))
    path = SoftmaxRegressionCV(20, cv=2, prune=False, refit=False, **common)
    many = taken("K = 100, 20 alphas x 2 folds", lambda: path.fit(X, y))
    tell("K = 100, 40 models / one fit", one, many, "")


def against_grid_search(archive: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        problem = shifted(archive, folder)
        X, y = (zarr.open_array(path)[:] for path in (problem.X, problem.y))
    common: dict[str, Any] = {"random_state": 0, "tol": TOL}
    search = SoftmaxRegressionCV(10, cv=5, **common)
    ours = taken("10 alphas x 5 folds", lambda: search.fit(X, y))
    grid = GridSearchCV(
        SoftmaxRegression(**common), {"alpha": search.alphas_}, scoring="neg_log_loss", cv=5
    )
    theirs = taken("GridSearchCV over the same", lambda: grid.fit(X, y))
    print(f"its choice: alpha {grid.best_params_['alpha']:.3g}")
    tell("GridSearchCV / search", ours, theirs, "at least 10")


def main() -> None:
    archive, *names = sys.argv[1:]
    names = names or ["path", "best", "folds", "classes", "grid"]
    warnings.simplefilter("ignore", ConvergenceWarning)
    with dask.config.set({"dsoftmax.cache": 0}):
        if {"path", "best", "folds"} & set(names):
            on_a_store(archive, names)
        if "classes" in names:
            many_classes(archive)
        if "grid" in names:
            against_grid_search(archive)


if __name__ == "__main__":
    main()
