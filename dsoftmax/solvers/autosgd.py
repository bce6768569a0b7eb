"""Mini-batches with nothing to tune: gradient descent whose steps are chosen from the data.

- Steps are taken in the metric of the first rows, whose curvature also tells their length, as far
  as a batch is large enough to know it (see `preconditioner`).
- The model is a weighted average of the iterates, the weight growing with the square of the step
  (Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992; Shamir and
  Zhang, Stochastic gradient descent for non-smooth optimization, 2013). An epoch gives most
  weight to its own steps.
- From the third epoch on, the noise is taken out of gradients by those of the same rows at a
  snapshot (Johnson and Zhang, Accelerating stochastic gradient descent using predictive variance
  reduction, 2013). No pass is spent on snapshots: each is the model at the end of an epoch, its
  full gradient is added up from the batches of the next one, and it serves in the one after that.
- An epoch whose mean loss is above that of the best is undone; steps are a quarter from there on.

Under an L1 penalty, whose proximal step is simple in a diagonal metric only and whose zeros an
average would lose, there are the snapshots alone. Then, and where there are too many features for
a metric, the length of the steps is taken from the largest eigenvalue of the first batch's
Hessian at the intercept-only model, found by power iteration on differences of gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.softmax import probabilities
from dsoftmax.solvers.base import Request, RowSelection, SolverParams, Status
from dsoftmax.solvers.linalg import preconditioner
from dsoftmax.solvers.minibatch import MiniBatchState, tol_for
from dsoftmax.solvers.schedules import Settling, schedule_of
from dsoftmax.solvers.sgd import SGD
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array

_PROBES = 8
_PROBE_LENGTH = 0.01
_POWER = 2  # of the step, in the weight of its iterate
_KEPT = 3  # an epoch begins as if a third of the steps so far had been made: half an epoch's
_CUT = 4.0
_WORSE = 1.001  # times the best loss: less is rounding, or chance


@storable
class Snapshot(NamedTuple):
    """A model, and the gradient of the smooth objective there, as far as it is known.

    Attributes
    ----------
    point, gradient : (n_features + 1, n_columns)
    """

    point: Array
    gradient: Array


@storable
@dataclass(frozen=True, kw_only=True)
class AutoState(MiniBatchState):
    """State of untuned mini-batches.

    Attributes
    ----------
    average : (n_features + 1, n_columns), of the iterates
    averaged : how many steps it counts for
    inverse : (n_features + 1, n_features + 1), what gradients are multiplied by, or None
    asked : whether the metric was asked for
    probe : direction of the power iteration, of the shape of a point
    probes : how many were made
    snapshot : with the gradient of all rows, or None
    candidate : the next, with the sum of the gradients of the epoch's batches so far, or None
    """

    average: Array
    averaged: int = 0
    inverse: Array | None = None
    asked: bool = False
    probe: Array
    probes: int = 0
    snapshot: Snapshot | None = None
    candidate: Snapshot | None = None

    @property
    def model(self) -> Array:
        """The averaged iterate."""
        return self.average


@storable
@dataclass(frozen=True)
class AutoSGD(SGD):
    """Mini-batch gradient descent that measures its steps; `learning_rate` is not used.

    Parameters
    ----------
    whole : whether an epoch is all rows, so that what one tells holds in the next
    """

    whole: bool

    @classmethod
    def from_params(cls, params: SolverParams) -> SGD:
        """Return the solver for the parameters of a fit: with a learning rate, plain SGD."""
        if params.learning_rate is not None:
            return SGD.from_params(params)
        schedule = schedule_of(params, auto=Settling(params.horizon))
        return cls(
            params.penalty,
            np.nan,
            schedule,
            params.clip_norm,
            tol_for(schedule, params),
            params.n_iter_no_change,
            params.momentum,
            whole=params.total_rows is not None,
        )

    def start(
        self, point: Array, at_intercept_only: Evaluation, intercept_only: Array
    ) -> AutoState:
        """Return the first state."""
        first = super().start(point, at_intercept_only, intercept_only)
        return AutoState(
            first.point,
            first.value,
            first.gradient_norm,
            first.status,
            first.current,
            first.memory,
            np.nan,
            first.start_value,
            average=point,
            probe=_direction(at_intercept_only.gradient[0]),
        )

    def ask(self, state: MiniBatchState) -> Request:
        """Return the current point with the snapshots, or what tells the curvature.

        That is near the intercept-only model, which is the best so far: at a model that fits
        well, there is hardly any curvature, and the steps would lead far away from it.
        """
        assert isinstance(state, AutoState)
        if not np.isnan(state.learning_rate):
            snapshots = [shot.point for shot in (state.candidate, state.snapshot) if shot]
            return Request(np.stack([state.current, *snapshots]), RowSelection.BATCH)
        if not (state.asked or self._nonsmooth):
            return Request(state.point[None], RowSelection.SAME_BATCH, metric=True)
        points = np.stack([state.point, state.point + _PROBE_LENGTH * state.probe])
        return Request(points, RowSelection.SAME_BATCH)

    def tell(self, state: MiniBatchState, result: Evaluation) -> MiniBatchState:
        """Learn about the curvature, or make an update."""
        assert isinstance(state, AutoState)
        if not np.isnan(state.learning_rate):
            return super().tell(state, result)
        if state.asked or self._nonsmooth:
            return self._probed(state, result)
        state = replace(state, asked=True)
        if result.metric is None or not np.isfinite(result.metric).all():
            return state
        inverse, length = preconditioner(result.metric, _fair_rows(state.point[-1], result))
        return replace(state, inverse=inverse, learning_rate=length * (1 - self.momentum))

    def update(self, state: MiniBatchState, result: Evaluation) -> AutoState:
        """Return the state after the step that a batch asks for."""
        assert isinstance(state, AutoState)
        gradient, candidate = result.gradient[0], state.candidate
        if candidate is not None:
            gathered = candidate.gradient + result.share * result.gradient[1]
            state = replace(state, candidate=Snapshot(candidate.point, gathered))
        if state.snapshot is not None:
            gradient = gradient - result.gradient[-1] + state.snapshot.gradient
        gradient = self.clipped(gradient)
        if state.inverse is not None:
            gradient = state.inverse @ gradient
        return self._averaged(self.stepped(state, gradient))

    def end_epoch(self, state: MiniBatchState) -> MiniBatchState:
        """Return the state after the last batch of an epoch."""
        assert isinstance(state, AutoState)
        after = super().end_epoch(state)
        assert isinstance(after, AutoState)
        if not self.whole or after.status is not Status.RUNNING:
            return after
        snapshot = state.candidate
        if state.total > _WORSE * state.share * state.value:
            after = self.failed(after)
        return replace(
            after,
            averaged=after.averaged // _KEPT,
            snapshot=snapshot,
            candidate=Snapshot(after.model, np.zeros_like(after.model)),
        )

    def failed(self, state: MiniBatchState) -> AutoState:
        """Return the state that begins anew from the best model so far, with shorter steps."""
        assert isinstance(state, AutoState)
        return replace(
            state,
            current=state.point,
            average=state.point,
            averaged=0,
            memory=tuple(np.zeros_like(part) for part in state.memory),
            learning_rate=state.learning_rate / _CUT,
            snapshot=None,
            candidate=None,
            total=0.0,
            share=0.0,
        )

    @property
    def _nonsmooth(self) -> bool:
        return self.penalty.alpha * self.penalty.l1_ratio > 0

    def _averaged(self, state: AutoState) -> AutoState:
        count, current = state.averaged + 1, state.current
        if self._nonsmooth:
            return replace(state, average=current, averaged=count)
        weight = (_POWER + 1) / (_POWER + count)
        return replace(
            state, average=state.average + weight * (current - state.average), averaged=count
        )

    def _probed(self, state: AutoState, result: Evaluation) -> AutoState:
        change = result.gradient[1] - result.gradient[0]
        curvature = float(np.linalg.norm(change)) / _PROBE_LENGTH
        state = replace(state, probe=_unit(change), probes=state.probes + 1)
        if state.probes < _PROBES and curvature > 0:
            return state
        return replace(state, learning_rate=1.0 / curvature if curvature > 0 else 1.0)


def _fair_rows(intercept: Array, result: Evaluation) -> float:
    """Return how many rows drawn at random tell as much as a batch, by the labels it has.

    At the intercept-only model, the gradient of an intercept is how far the share of its class is
    from that in all rows. Its square is compared with what it is on average for rows at random
    (the statistic of Pearson, 1900; its ratio is the design effect of Kish, Survey Sampling, 1965).
    """
    p = probabilities(intercept[:, None])[:, 0]
    surplus = result.gradient[0][-1]
    surplus = np.array([-surplus[0], surplus[0]]) if len(surplus) == 1 else surplus
    statistic = result.rows * float((surplus**2 / p).sum())
    return result.rows / max(1.0, statistic / (len(p) - 1))


def _direction(gradient: Array) -> Array:
    """Return where the power iteration starts: any direction will do where there is no gradient."""
    if not np.any(gradient):
        gradient = np.random.default_rng(0).normal(size=gradient.shape)
    return _unit(gradient)


def _unit(direction: Array) -> Array:
    norm = float(np.linalg.norm(direction))
    return direction / norm if norm > 0 else direction
