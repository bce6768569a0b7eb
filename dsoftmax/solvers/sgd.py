"""Stochastic gradient descent with Nesterov's momentum.

The update is that of Sutskever, Martens, Dahl and Hinton (On the importance of initialization
and momentum in deep learning, 2013); an L1 penalty is met by a proximal step (Duchi and
Singer, Efficient online and batch learning using forward backward splitting, 2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dsoftmax.solvers.base import SolverParams
from dsoftmax.solvers.minibatch import Memory, MiniBatch, MiniBatchState, tol_for
from dsoftmax.solvers.schedules import schedule_of
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array


@storable
@dataclass(frozen=True)
class SGD(MiniBatch):
    """Mini-batch gradient descent; `momentum` is from 0 (plain steps) to below 1."""

    momentum: float

    name: ClassVar[str] = "sgd"
    slots: ClassVar[int] = 1

    @classmethod
    def from_params(cls, params: SolverParams) -> SGD:
        """Return the solver for the parameters of a fit, which give a learning rate."""
        assert params.learning_rate is not None, "without one, it is AutoSGD"
        schedule = schedule_of(params)
        return SGD(
            params.penalty,
            params.learning_rate,
            schedule,
            params.clip_norm,
            tol_for(schedule, params),
            params.n_iter_no_change,
            params.momentum,
        )

    def move(
        self, state: MiniBatchState, gradient: Array, rate: float
    ) -> tuple[Memory, Array, Array | float]:
        """Return the velocity, the step, and rate / (1 - momentum)."""
        velocity = self.momentum * state.memory[0] + gradient
        step = rate * (gradient + self.momentum * velocity)
        return (velocity,), step, rate / (1.0 - self.momentum)
