"""Adam (Kingma and Ba, Adam: A method for stochastic optimization, 2015), bias-corrected.

The moments see the smooth objective alone. An L1 penalty is met by a proximal step in
Adam's own metric, coordinate by coordinate, since with any other metric the fixed point
would not be the minimiser (Yun, Lozano and Yang, Adaptive proximal gradient methods, 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dsoftmax.solvers.base import SolverParams
from dsoftmax.solvers.minibatch import Memory, MiniBatch, MiniBatchState, tol_for
from dsoftmax.solvers.schedules import schedule_of
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
AUTO_RATE = 0.01  # for features that are scaled alike


@storable
@dataclass(frozen=True)
class Adam(MiniBatch):
    """Mini-batch steps scaled by running moments of the gradient."""

    name: ClassVar[str] = "adam"
    slots: ClassVar[int] = 2

    @classmethod
    def from_params(cls, params: SolverParams) -> Adam:
        """Return the solver for the parameters of a fit."""
        schedule = schedule_of(params)
        return cls(
            params.penalty,
            params.learning_rate or AUTO_RATE,
            schedule,
            params.clip_norm,
            tol_for(schedule, params),
            params.n_iter_no_change,
        )

    def move(
        self, state: MiniBatchState, gradient: Array, rate: float
    ) -> tuple[Memory, Array, Array | float]:
        """Return both moments, the step, and the step length of each coordinate."""
        mean, square = state.memory
        mean = _BETA1 * mean + (1 - _BETA1) * gradient
        square = _BETA2 * square + (1 - _BETA2) * gradient**2
        count = state.step + 1
        length = square / (1 - _BETA2**count)
        np.sqrt(length, out=length)
        length += _EPSILON
        np.divide(rate, length, out=length)
        return (mean, square), length * mean / (1 - _BETA1**count), length
