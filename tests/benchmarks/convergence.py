"""How far each solver is from the optimum after so many passes, on MNIST.

    python tests/benchmarks/convergence.py mnist.npz

The optimum is found by lbfgs at tol=1e-7; distances are relative, of the penalised objective
with alpha = 1e-4 on x / 255. The mini-batch solvers are run once for each budget, untuned.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import SoftmaxRegression

ALPHA = 1e-4 * 255**2
DISTANCES = (1e-2, 1e-3, 1e-4, 1e-6)
BUDGETS = (2, 4, 12, 24)


def main(archive: str) -> None:
    data = np.load(archive)
    X, y = data["X_train"], data["y_train"]
    exact = SoftmaxRegression(alpha=ALPHA, tol=1e-7, max_iter=2000).fit(X, y)
    losses = np.array([record["loss"] for record in exact.history_])
    reached = [int(np.argmax(losses <= exact.loss_ * (1 + d))) + 1 for d in DISTANCES]
    print(f"optimum {exact.loss_:.7f}, {exact.n_iter_} passes, {exact.stop_reason_}")
    print(f"test accuracy {exact.score(data['X_test'], data['y_test']):.4f}")
    print(
        "lbfgs: " + ", ".join(f"{d:g} after {n}" for d, n in zip(DISTANCES, reached, strict=True))
    )
    for solver in ("sgd", "adam"):
        above = []
        for budget in BUDGETS:
            model = SoftmaxRegression(
                alpha=ALPHA, solver=solver, max_iter=budget, tol=0, random_state=0
            ).fit(X, y)
            above.append(f"{model.loss_ / exact.loss_ - 1:.1%} after {budget}")
        print(f"{solver}: " + ", ".join(above))


if __name__ == "__main__":
    warnings.simplefilter("ignore", ConvergenceWarning)
    main(sys.argv[1])
