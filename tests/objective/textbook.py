"""The loss of softmax regression as a textbook writes it, and random rows to try it on."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax, softmax

from dsoftmax.objective.kernel import compute_dtype
from dsoftmax.objective.reduction import Chunk
from dsoftmax.typing import Array


def problem(
    rows: int, d: int, K: int, *, models: int = 1, dtype: str = "f8", classes: int | None = None
) -> tuple[Chunk, Array]:
    """Rows of the first `classes` of K classes, and a stack of random points."""
    rng = np.random.default_rng((rows, d, K))
    X = rng.normal(size=(rows, d)) if dtype in ("f4", "f8") else rng.integers(0, 4, (rows, d))
    y = rng.integers(0, classes or K, rows)
    points = rng.normal(size=(models, d + 1, K if K > 2 else 1))
    return Chunk(X.astype(dtype), y, None, 0), points.astype(compute_dtype(dtype))


def oracle(chunk: Chunk, points: Array) -> tuple[Array, Array]:
    """The loss and gradient of the textbook, in float64."""
    X = np.column_stack([chunk.X.astype(np.float64), np.ones(len(chunk.X))])
    weight = np.ones(len(X)) if chunk.sample_weight is None else chunk.sample_weight
    losses, gradients = [], []
    for m, point in enumerate(points.astype(np.float64)):
        w = weight if weight.ndim == 1 else weight[:, m]
        full = point if point.shape[1] > 1 else np.column_stack([np.zeros(len(point)), point])
        one_hot = np.eye(full.shape[1])[chunk.codes]
        losses.append(-(w * log_softmax(X @ full, axis=1)[one_hot == 1]).sum())
        gradient = X.T @ (w[:, None] * (softmax(X @ full, axis=1) - one_hot))
        gradients.append(gradient[:, -point.shape[1] :])
    return np.array(losses), np.stack(gradients)


def close(actual: Array, expected: Array, tolerance: float) -> None:
    scale = max(float(np.abs(expected).max()), 1e-300)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale)
