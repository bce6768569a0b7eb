"""Small fits, and what must not differ between two of them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import SoftmaxRegression

SOLVERS = ("newton", "lbfgs", "fista", "sgd", "adam")


def model_of(solver: str, **changes: Any) -> SoftmaxRegression:
    """Return a model of a few passes; "fista" is what "sgd" becomes if one batch is all rows."""
    full_batch = solver == "fista"
    params: dict[str, Any] = {
        "solver": "sgd" if full_batch else solver,
        "batch_size": 10**6 if full_batch else 170,
        "sample_size": 300,
        "l1_ratio": 0.5 if full_batch else 0.0,
        "max_iter": 6,
        "random_state": 0,
        "tol": 0,
    }
    return SoftmaxRegression(**params | changes)


def fitted(path: str, solver: str, **changes: Any) -> SoftmaxRegression:
    """Fit the arrays X and y of a Zarr group, however few the passes are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model_of(solver, **changes).fit(f"{path}/X", f"{path}/y")


def bits(model: SoftmaxRegression) -> tuple[bytes, ...]:
    """Return the bytes of a fit: its coefficients, and the losses of all its passes."""
    records = [record for record in model.history_ if record["kind"] != "quarantined"]
    losses = np.array([[r["loss"], r["accuracy"], r["gradient_norm"]] for r in records])
    return model.coef_.tobytes(), model.intercept_.tobytes(), losses.tobytes()
