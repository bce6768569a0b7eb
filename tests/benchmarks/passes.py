"""How many passes, and seconds, each full-batch solver takes to come near the optimum.

    python tests/benchmarks/passes.py mnist.npz [NAME ...]
    python tests/benchmarks/passes.py mnist.npz --picture FILE

The second draws the objective on MNIST against passes, of all solvers. NAMEs: mnist, standardised,
digits, tabular, sorted, shifted (the last streams 1.2 million rows from a temporary Zarr store
through two local workers, and takes minutes). Distances are relative, of the penalised objective;
the optimum is the lowest that any of the runs found. A pass is counted when the objective was
evaluated; a model that is returned at the end of its budget is one step further, which the line
"returned" shows: the distance of the model with that `max_iter`.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import zarr
from sklearn.datasets import load_digits

from dsoftmax import SoftmaxRegression

DISTANCES = (1e-2, 1e-3, 1e-4, 1e-6)
BUDGETS = (1, 2, 3, 4)
BATCH_BUDGETS = (2, 3, 4, 6, 11, 21)
COLORS = ("#2f6db3", "#3a424d", "#2c8a63", "#e5a04b")


class Problem(NamedTuple):
    X: Any
    y: Any
    params: dict[str, Any]
    most: dict[str, int]  # passes a solver may take


def images(archive: str) -> tuple[np.ndarray, np.ndarray]:
    data = np.load(archive)
    return data["X_train"], data["y_train"]


def mnist(archive: str) -> Problem:
    return Problem(*images(archive), {"alpha": 1e-4 * 255**2}, {"newton": 25, "lbfgs": 600})


def standardised(archive: str) -> Problem:
    params = {"alpha": 1e-5, "standardize": True}
    return Problem(*images(archive), params, {"newton": 60, "lbfgs": 1000})


def digits(archive: str) -> Problem:
    X, y = load_digits(return_X_y=True)
    return Problem(X, y, {"alpha": 1e-3}, {"newton": 25, "lbfgs": 1000})


def tabular(archive: str) -> Problem:
    """54 columns of scales from 1e-3 to 1e3, ten of them nearly constant, and 7 unequal classes."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500_000, 54)).astype("f4")
    X[:, 44:] = X[:, 44:] > 2.3
    raw = X @ rng.normal(size=(54, 7)) * 0.5 + np.array([2, 2.3, 0, -2, -1, 0, 0])
    y = (raw + rng.gumbel(size=raw.shape)).argmax(axis=1)
    return Problem(X * np.geomspace(1e-3, 1e3, 54), y, {"alpha": 0.0}, {"newton": 25, "lbfgs": 600})


def sorted_labels(archive: str) -> Problem:
    """100 classes x 512 features, rows in the order of their labels."""
    rng = np.random.default_rng(0)
    y = np.sort(rng.integers(0, 100, 300_000))
    X = rng.normal(size=(len(y), 512)).astype("f4")
    X += 0.25 * rng.normal(size=(100, 512)).astype("f4")[y]
    return Problem(X, y, {"alpha": 1e-4}, {"newton": 25, "lbfgs": 400})


def shifted(archive: str, folder: str) -> Problem:
    """MNIST twenty times, each time shifted by up to two pixels: 1.2 million rows in a store."""
    X, y = images(archive)
    rng = np.random.default_rng(0)
    root = zarr.open_group(f"{folder}/data.zarr", mode="w")
    zx = root.create_array("X", shape=(20 * len(X), 784), chunks=(8192, 784), dtype="u1")
    for copy in range(20):
        by = tuple(rng.integers(-2, 3, 2)) if copy else (0, 0)
        rows = np.roll(X.reshape(-1, 28, 28), by, axis=(1, 2)).reshape(-1, 784)
        zx[copy * len(X) : (copy + 1) * len(X)] = rows
    zy = root.create_array("y", shape=(20 * len(X),), chunks=(1 << 20,), dtype="u1")
    zy[:] = np.tile(y, 20)
    params = {"alpha": 1e-4 * 255**2}
    path = f"{folder}/data.zarr"
    return Problem(f"{path}/X", f"{path}/y", params, {"newton": 20, "lbfgs": 260})


PROBLEMS: dict[str, Callable[[str], Problem]] = {
    "mnist": mnist,
    "standardised": standardised,
    "digits": digits,
    "tabular": tabular,
    "sorted": sorted_labels,
}


def fitted(problem: Problem, solver: str, most: int, tol: float = 1e-8) -> SoftmaxRegression:
    model = SoftmaxRegression(
        solver=solver, max_iter=most, tol=tol, random_state=0, **problem.params
    )
    return model.fit(problem.X, problem.y)


def objective(problem: Problem, model: SoftmaxRegression) -> float:
    """The objective of a model, by one pass of a fit that starts and ends there."""
    again = SoftmaxRegression(solver="lbfgs", max_iter=2, tol=0, warm_start=True, **problem.params)
    for name in ("coef_", "intercept_", "classes_", "n_features_in_"):
        setattr(again, name, getattr(model, name))
    again.fit(problem.X, problem.y)
    return float(again.history_[1]["loss"])


def reached(losses: np.ndarray, seconds: np.ndarray, optimum: float) -> str:
    """When each distance was reached, in passes and seconds."""
    found = []
    for distance in DISTANCES:
        near = np.flatnonzero(losses <= optimum * (1 + distance))
        found.append(f"{near[0] + 1:5d} {seconds[near[0]]:6.1f} s" if len(near) else f"{'-':>13}")
    return "  ".join(found)


def compare(name: str, problem: Problem) -> None:
    models = {solver: fitted(problem, solver, most) for solver, most in problem.most.items()}
    optimum = min(model.loss_ for model in models.values())
    head = "  ".join(f"{distance:>13g}" for distance in DISTANCES)
    print(f"\n{name}: optimum {optimum:.7f}\n{'':10}{head}", flush=True)
    for solver, model in models.items():
        records = [record for record in model.history_ if record["kind"] == "pass"]
        losses, seconds = (np.array([r[key] for r in records]) for key in ("loss", "seconds"))
        print(f"{solver:10}{reached(losses, seconds, optimum)}", flush=True)
    line = []
    for most in BUDGETS:
        started = time.perf_counter()
        model = fitted(problem, "newton", most)
        spent = time.perf_counter() - started
        line.append(f"{most}: {objective(problem, model) / optimum - 1:.2%} in {spent:.1f} s")
    print(f"{'returned':10}{', '.join(line)}", flush=True)


def courses(problem: Problem) -> dict[str, tuple[list[int], list[float]]]:
    """The objective after so many passes: of mini-batches, by a fit of its own for each number."""
    found = {}
    for solver, most in problem.most.items():
        model = fitted(problem, solver, most)
        losses = [record["loss"] for record in model.history_ if record["kind"] == "pass"]
        found[solver] = list(range(1, len(losses) + 1)), losses
    for solver in ("sgd", "adam"):
        models = [fitted(problem, solver, most, tol=0) for most in BATCH_BUDGETS]
        found[solver] = list(BATCH_BUDGETS), [model.loss_ for model in models]
    return found


def draw(problem: Problem, path: str) -> None:
    """Draw how far each solver is from the optimum after so many passes."""
    from matplotlib.figure import Figure

    found = courses(problem)
    optimum = min(min(losses) for _, losses in found.values())
    figure = Figure(figsize=(8, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    for (solver, (passes, losses)), color in zip(found.items(), COLORS, strict=True):
        above = np.array(losses) / optimum - 1
        axes.plot(passes, np.where(above > 1e-7, above, np.nan), "o-", ms=3, color=color)
        last = int(np.flatnonzero(above > 1e-7)[-1])
        axes.annotate(f" {solver}", (passes[last], above[last]), color=color, weight="bold")
    axes.set(
        xscale="log", yscale="log", xlabel="passes over the data", xlim=(0.9, 800), ylim=(1e-7, 20)
    )
    axes.set_xticks(
        [1, 2, 5, 10, 20, 50, 100, 200, 500],
        labels=["1", "2", "5", "10", "20", "50", "100", "200", "500"],
    )
    axes.set_title("Objective above its minimum, as a share of it (MNIST)", loc="left", size=11)
    axes.grid(color="#d3d8de", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main(archive: str, names: list[str]) -> None:
    if names[:1] == ["--picture"]:
        draw(mnist(archive), names[1])
        return
    for name in names or [*PROBLEMS, "shifted"]:
        if name != "shifted":
            compare(name, PROBLEMS[name](archive))
            continue
        with tempfile.TemporaryDirectory() as folder:
            compare(name, shifted(archive, folder))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], sys.argv[2:])
