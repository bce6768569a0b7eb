"""The kernel against the two matrix products of its blocks, of a call each.

With few columns the kernel makes them in panels, which is faster: the note has those apart.
"""

from __future__ import annotations

import statistics
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from dsoftmax.objective.kernel import block_length, loss_gradient
from dsoftmax.objective.matmul import by_column, by_row, panel_length
from dsoftmax.objective.reduction import Chunk
from tests.benchmarks.measure import Result, compared, in_turn

ROWS, FEATURES = 8192, 784
GOALS = {10: 1 / 1.5, 100: 0.85, 1000: 0.85}


def two_products(X: np.ndarray, weights: np.ndarray) -> None:
    """Multiply blocks of rows that are there as float32, forth and back."""
    length = block_length(FEATURES, weights.shape[1], 4)
    product = np.empty((length, weights.shape[1]), "f4")
    residual = np.full((weights.shape[1], length), 1e-3, "f4")
    gradient = np.empty((weights.shape[1], FEATURES), "f4")
    for start in range(0, ROWS, length):
        block = X[start : start + length]
        np.matmul(block, weights, out=product)
        np.matmul(residual, block, out=gradient)


def in_panels(X: np.ndarray, coef: np.ndarray) -> None:
    """Do the same as the kernel does."""
    length = block_length(FEATURES, len(coef), 4)
    panel = panel_length(FEATURES, len(coef), length)
    products = np.empty((length // panel, *coef.shape), "f4")
    residual = np.full((len(coef), length), 1e-3, "f4")
    for start in range(0, ROWS, length):
        by_row(X[start : start + length], coef, panel)
        by_column(residual, X[start : start + length], panel, products)


def measure() -> list[Result]:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (ROWS, FEATURES)).astype("u1")
    found = []
    for classes, goal in GOALS.items():
        chunk = Chunk(X, rng.integers(0, classes, ROWS), None, 0)
        points = rng.normal(0, 1e-3, (1, FEATURES + 1, classes)).astype("f4")
        weights = np.ascontiguousarray(points[0, :-1])
        calls = {
            "products": partial(two_products, X.astype("f4"), weights),
            "panels": partial(in_panels, X.astype("f4"), np.ascontiguousarray(weights.T)),
            "kernel": partial(loss_gradient, chunk, points),
        }
        with threadpool_limits(1):
            seconds = in_turn(calls, rounds=25 if classes < 1000 else 9)
        each = {name: 1e6 * statistics.median(taken) / ROWS for name, taken in seconds.items()}
        note = f"{each['kernel']:.2f} us a row, products {each['products']:.2f}"
        length = block_length(FEATURES, classes, 4)
        if panel_length(FEATURES, classes, length) < length:
            note += f", in panels {each['panels']:.2f}"
        name = f"two products / kernel, {classes:,} classes"
        found.append(compared(name, seconds["products"], seconds["kernel"], goal, note=note))
    return found
