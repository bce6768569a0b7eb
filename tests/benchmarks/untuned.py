"""Untuned mini-batches against the best of nine learning rates of plain Adam and plain SGD.

    python tests/benchmarks/untuned.py mnist.npz [NAME ...]

NAMEs: mnist (which runs the rivals too, and takes minutes), standardised, digits, tabular, sorted,
shifted (1.2 million rows in a temporary Zarr store, through two local workers), as in passes.py.
Distances are of the penalised objective, relative to the optimum, which newton finds. Rivals are
constant rates on x / 255, with the same batches; SGD is without momentum.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from typing import Any

import numpy as np

from dsoftmax import SoftmaxRegression
from tests.benchmarks.passes import PROBLEMS, Problem, images, shifted

EPOCHS = (1, 2, 5, 10)
RATES = {
    "adam": (1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 3e-2, 1e-1),
    "sgd": (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0),
}


def optimum(problem: Problem) -> float:
    model = SoftmaxRegression(
        solver="newton", tol=1e-7, max_iter=60, random_state=0, **problem.params
    )
    return float(model.fit(problem.X, problem.y).loss_)


def above(problem: Problem, best: float, epochs: int, **params: Any) -> float:
    """The distance after so many epochs, which one more pass evaluates."""
    model = SoftmaxRegression(
        max_iter=epochs + 1, tol=0, random_state=0, **{"solver": "sgd"} | problem.params | params
    )
    return float(model.fit(problem.X, problem.y).loss_) / best - 1


def line(values: list[float]) -> str:
    return "  ".join(f"{value:>9.2%}" for value in values)


def rivals(archive: str, best: float) -> None:
    X, y = images(archive)
    problem = Problem(X / np.float32(255), y, {"alpha": 1e-4, "momentum": 0.0}, {})
    for solver, rates in RATES.items():
        found = [
            [above(problem, best, n, solver=solver, learning_rate=rate) for n in EPOCHS]
            for rate in rates
        ]
        print(f"{'best ' + solver:14}{line(np.min(found, axis=0).tolist())}", flush=True)


def compare(name: str, problem: Problem, archive: str) -> None:
    best = optimum(problem)
    print(f"\n{name}: optimum {best:.7f}\n{'epochs':14}" + "  ".join(f"{n:>9}" for n in EPOCHS))
    print(f"{'untuned sgd':14}{line([above(problem, best, n) for n in EPOCHS])}", flush=True)
    untuned = [above(problem, best, n, solver="adam") for n in EPOCHS]
    print(f"{'untuned adam':14}{line(untuned)}", flush=True)
    if name == "mnist":
        rivals(archive, best)


def main(archive: str, names: list[str]) -> None:
    for name in names or [*PROBLEMS, "shifted"]:
        if name != "shifted":
            compare(name, PROBLEMS[name](archive), archive)
            continue
        with tempfile.TemporaryDirectory() as folder:
            compare(name, shifted(archive, folder), archive)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], sys.argv[2:])
