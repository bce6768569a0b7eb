"""Functions with a known minimum, and the trail of a mini-batch solver on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.penalty import ElasticNet
from dsoftmax.solvers.base import RowSelection, Status
from dsoftmax.solvers.minibatch import MiniBatch, MiniBatchState
from dsoftmax.typing import Array

NONE = ElasticNet(0.0, 0.0, np.ones((1, 1)))

Function = Callable[[Array], tuple[float, Array]]


def quadratic(eigenvalues: Array, floor: float = 0.5) -> Function:
    """A rotated bowl around one."""
    size = len(eigenvalues)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0]
    hessian = rotation * eigenvalues @ rotation.T

    def f(point: Array) -> tuple[float, Array]:
        gradient = hessian @ (point - 1)
        return floor + 0.5 * float(np.vdot(point - 1, gradient)), gradient

    return f


def evaluated(f: Function, points: Array, batches: int, step: int) -> Evaluation:
    with np.errstate(over="ignore", invalid="ignore"):
        values, gradients = zip(*map(f, points), strict=True)
    last = step % batches == batches - 1
    return Evaluation(
        np.array(values), np.stack(gradients), np.zeros(len(points)), 1, 1 / batches, last
    )


def states(
    solver: MiniBatch, f: Function, zero: Array, *, batches: int = 1, most: int = 10_000
) -> list[MiniBatchState]:
    known = evaluated(f, zero[None], 1, 0)
    trail, step = [solver.start(zero, known, zero)], 0
    while trail[-1].status is Status.RUNNING and step < most:
        request = solver.ask(trail[-1])
        trail.append(solver.tell(trail[-1], evaluated(f, request.points, batches, step)))
        step += request.rows is RowSelection.BATCH
    return trail
