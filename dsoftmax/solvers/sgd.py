"""Stochastic gradient descent with Nesterov's momentum.

The update is that of Sutskever, Martens, Dahl and Hinton (On the importance of
initialization and momentum in deep learning, 2013). Without a learning rate, it is taken from the
curvature: 1 / the largest eigenvalue of the first batch's Hessian at the start, found by
power iteration on differences of gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from dsoftmax.reduction import Array
from dsoftmax.solvers.base import Evaluation, Request, Rows, State, Status, largest

_PROBES = 8
_PROBE_LENGTH = 0.01
_DIVERGED = 10.0  # times the loss of the intercept-only model


@dataclass(frozen=True)
class SGDState(State):
    """State of SGD; `point` and `value` are of the best epoch so far.

    Attributes
    ----------
    current, velocity : (n_features + 1, n_columns)
    learning_rate : NaN while the curvature is being probed
    probe : (n_features + 1, n_columns), direction of the power iteration
    probes : how many were made
    step : updates made
    total, share : sums over this epoch's batches of value * share, and of share
    slope : the same sum of gradient norms
    start_value : objective of the intercept-only model
    stale_epochs : epochs in a row without enough progress
    """

    current: Array
    velocity: Array
    learning_rate: float
    probe: Array
    probes: int
    step: int
    total: float
    slope: float
    share: float
    start_value: float
    stale_epochs: int


@dataclass(frozen=True)
class SGD:
    """Mini-batch gradient descent.

    Parameters
    ----------
    learning_rate : positive number, or None to measure the curvature
    momentum : from 0 (plain steps) to below 1
    tol : an epoch has to lower the mean loss by tol * its value
    n_iter_no_change : how many epochs in a row may fail to
    steps_per_epoch : an automatic learning rate falls as 1 / (1 + epochs); a given one is constant
    """

    learning_rate: float | None
    momentum: float
    tol: float
    n_iter_no_change: int
    steps_per_epoch: int

    name: ClassVar[str] = "sgd"
    mini_batch: ClassVar[bool] = True
    penalties: ClassVar[Sequence[str]] = ("l2",)

    def start(self, point: Array, known: Evaluation, at: Array) -> SGDState:
        """Return the first state."""
        value, gradient = float(known.value[0]), known.gradient[0]
        rate = np.nan if self.learning_rate is None else self.learning_rate
        return SGDState(
            point=at, value=value, gradient_norm=largest(gradient), status=Status.RUNNING,
            current=point, velocity=np.zeros_like(point), learning_rate=rate,
            probe=_unit(gradient), probes=0, step=0, total=0.0, slope=0.0, share=0.0,
            start_value=value, stale_epochs=0,
        )  # fmt: skip

    def ask(self, state: SGDState) -> Request:
        """Return the current point, or two points whose gradients tell the curvature."""
        if np.isnan(state.learning_rate):
            points = np.stack([state.current, state.current + _PROBE_LENGTH * state.probe])
            return Request(points, Rows.SAME_BATCH)
        return Request(state.current[None], Rows.BATCH)

    def tell(self, state: SGDState, result: Evaluation) -> SGDState:
        """Make an update, and at the end of an epoch look whether to go on."""
        if not _is_finite(result):
            return replace(state, status=Status.DIVERGED)
        if np.isnan(state.learning_rate):
            return _probe(state, result)
        state = self._update(state, result.gradient[0])
        state = replace(
            state,
            total=state.total + float(result.value[0]) * result.share,
            slope=state.slope + largest(result.gradient[0]) * result.share,
            share=state.share + result.share,
        )
        return self._end_epoch(state) if result.epoch_ended else state

    def _update(self, state: SGDState, gradient: Array) -> SGDState:
        velocity = self.momentum * state.velocity + gradient
        ahead = gradient + self.momentum * velocity
        step = self._rate(state) * ahead
        return replace(state, current=state.current - step, velocity=velocity, step=state.step + 1)

    def _rate(self, state: SGDState) -> float:
        if self.learning_rate is not None:
            return self.learning_rate
        return state.learning_rate / (1.0 + state.step / self.steps_per_epoch)

    def _end_epoch(self, state: SGDState) -> SGDState:
        mean, slope = state.total / state.share, state.slope / state.share
        improved = state.value - mean > self.tol * abs(mean)
        stale = 0 if improved else state.stale_epochs + 1
        state = replace(state, total=0.0, slope=0.0, share=0.0, stale_epochs=stale)
        if mean > _DIVERGED * state.start_value:
            return replace(state, status=Status.DIVERGED)
        if mean < state.value:
            state = replace(state, point=state.current, value=mean, gradient_norm=slope)
        if stale >= self.n_iter_no_change:
            return replace(state, status=Status.STALLED)
        return state


def _probe(state: SGDState, result: Evaluation) -> SGDState:
    change = result.gradient[1] - result.gradient[0]
    curvature = float(np.linalg.norm(change)) / _PROBE_LENGTH
    state = replace(state, probe=_unit(change), probes=state.probes + 1)
    if state.probes < _PROBES and curvature > 0:
        return state
    return replace(state, learning_rate=1.0 / curvature if curvature > 0 else 1.0)


def _is_finite(result: Evaluation) -> bool:
    return bool(np.isfinite(result.value).all() and np.isfinite(result.gradient).all())


def _unit(direction: Array) -> Array:
    norm = float(np.linalg.norm(direction))
    return direction / norm if norm > 0 else direction
