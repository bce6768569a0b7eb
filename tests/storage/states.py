"""States of real solvers in the middle of a run, what makes two the same, and damaged files."""

from __future__ import annotations

import dataclasses
import struct
from enum import Enum
from typing import Any

import numpy as np

from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.penalty import ElasticNet
from dsoftmax.solvers.adam import Adam
from dsoftmax.solvers.autosgd import AutoSGD
from dsoftmax.solvers.base import State, Status
from dsoftmax.solvers.fista import FISTA
from dsoftmax.solvers.lbfgs import LBFGS
from dsoftmax.solvers.newton import Newton
from dsoftmax.solvers.schedules import Inverse, Settling
from dsoftmax.solvers.sgd import SGD
from dsoftmax.typing import Array

ZERO = np.zeros((4, 3))
NET = ElasticNet(0.1, 0.5, np.ones((3, 1)))
RIDGE = ElasticNet(0.1, 0.0, np.ones((3, 1)))
SOLVERS: dict[str, Any] = {
    "newton": Newton(RIDGE, 1e-9, 1e-12),
    "lbfgs": LBFGS(1e-9, 1e-12),
    "fista": FISTA(NET, 1e-9, 1e-12, 0.1),
    "sgd": SGD(NET, 0.1, Inverse(100), None, 1e-6, 5, 0.9),
    "autosgd": AutoSGD(RIDGE, np.nan, Settling(100), None, 1e-6, 5, 0.9, True),
    "adam": Adam(NET, 0.1, Inverse(100), 1.0, 1e-6, 5),
}


def evaluated(points: Array, ended: bool = False) -> Evaluation:
    """A smooth and convex function that is no parabola."""
    centre = np.random.default_rng(0).normal(size=ZERO.shape)
    values = np.logaddexp(points - centre, centre - points).sum(axis=(1, 2))
    accuracy = np.zeros(len(points))
    return Evaluation(values, np.tanh(points - centre), accuracy, 5, 0.5, ended)


def state_of(name: str, steps: int = 6) -> State:
    solver = SOLVERS[name]
    state = solver.start(ZERO, evaluated(ZERO[None]), ZERO)
    for step in range(steps):
        assert state.status is Status.RUNNING
        request = solver.ask(state)
        result = evaluated(request.points, step % 2 == 1)
        metric = np.eye(4) if request.metric else None
        state = solver.tell(state, dataclasses.replace(result, metric=metric))
    return state  # type: ignore[no-any-return]


def same(a: Any, b: Any) -> bool:
    """Whether two values are of the same types and bits, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        layout = (a.dtype.str, a.shape) == (b.dtype.str, b.shape)
        order = all(a.flags[name] == b.flags[name] for name in ("C_CONTIGUOUS", "F_CONTIGUOUS"))
        return layout and order and a.tobytes() == b.tobytes()
    if isinstance(a, np.generic):
        return a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(same, a.values(), b.values()))
    if dataclasses.is_dataclass(a) and not isinstance(a, Enum):
        return same(vars(a), vars(b))
    return bool(a == b)


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a file with a bit flipped, a byte changed, or its end cut off."""
    result, position = bytearray(content), int(rng.integers(len(content)))
    kind = rng.integers(3)
    if kind == 0:
        return content[:position]
    result[position] ^= 1 << int(rng.integers(8)) if kind == 1 else int(rng.integers(1, 256))
    return bytes(result)
