"""The one loop: ask the solver, reduce over the rows, tell the solver.

Full-batch and mini-batch solvers differ in the rows they ask for, and in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dsoftmax.classes import class_factors, normalised, scan_labels
from dsoftmax.errors import DataError
from dsoftmax.events import Callback, FitEnded, FitStarted
from dsoftmax.ledger import Ledger
from dsoftmax.objective import Objective
from dsoftmax.passes import Passes
from dsoftmax.reduction import Array
from dsoftmax.runtime.executors import Executor
from dsoftmax.runtime.spans import cut_spans
from dsoftmax.settings import Settings
from dsoftmax.solvers import SOLVERS, Kind
from dsoftmax.solvers.base import Request, Rows, Solver, State, Status
from dsoftmax.solvers.minibatch import MiniBatch, MiniBatchState
from dsoftmax.solving import build_solver, solver_kind
from dsoftmax.sources.base import Source, preview

_LEAST_HORIZON = 1 << 16  # rows that partial_fit takes for an epoch, at least


@dataclass(frozen=True)
class Fit:
    """What training returns.

    Attributes
    ----------
    classes : (K,)
    coef : (n_features, n_columns), in units of the data
    intercept : (n_columns,)
    shift : (n_features,), what the kernel subtracted from the rows, or None
    loss : penalised objective there
    status : why it ended
    passes, steps : what it took
    """

    classes: Array
    coef: Array
    intercept: Array
    shift: Array | None
    loss: float
    status: Status
    passes: int
    steps: int


@dataclass(frozen=True)
class Carry:
    """What `partial_fit` goes on from: the solver of the first part, and where it stands."""

    objective: Objective
    solver: MiniBatch
    state: MiniBatchState


def train(
    source: Source, settings: Settings, executor: Executor, callbacks: Sequence[Callback]
) -> Fit:
    """Return the model that minimises the objective over the rows of a source.

    Parameters
    ----------
    source : Source
        With a `y`.
    settings : Settings
    executor : Executor
        Where it runs; without influence on the result.
    callbacks : sequence of Callback

    Raises
    ------
    DataError
        If labels, weights or values are not as they must be.
    ChunkError
        If rows cannot be read.
    """
    return _Run(source, settings, executor, callbacks, least_classes=2).fit()


def train_part(
    source: Source, settings: Settings, executor: Executor, callbacks: Sequence[Callback],
    carry: Carry | None,
) -> tuple[Fit, Carry]:  # fmt: skip
    """Return the model after one epoch over a part of the rows, and what the next part needs.

    Parameters and errors are those of `train`; a part may hold a single class.
    """
    return _Run(source, settings, executor, callbacks, least_classes=1).fit_part(carry)


class _Run:
    """A fit under way."""

    def __init__(
        self, source: Source, settings: Settings, executor: Executor,
        callbacks: Sequence[Callback], least_classes: int,
    ) -> None:  # fmt: skip
        source, self._class_weight = _labelled(source, settings, executor, least_classes)
        gradient_bytes = 8 * (source.n_features + 1) * len(self._class_weight)
        spans = cut_spans(source.chunks, source.row_bytes, gradient_bytes)
        self._source, self._settings, self._executor = source, settings, executor
        self._ledger = Ledger(callbacks, source.n_samples)
        self._passes = Passes(source, settings, executor, spans, self._ledger)

    def fit(self) -> Fit:
        """Run the solver to its end."""
        rows = self._source.n_samples
        kind = solver_kind(self._settings, rows)
        self._announce(kind)
        objective = self._passes.first_read(kind, self._class_weight)
        # The last pass of the budget evaluates the result.
        total = max(1, self._settings.max_iter - 1) * rows
        solver = build_solver(kind, self._settings, objective, rows, total)
        state = solver.start(self._warm_point(objective), objective.known, objective.intercept_only)
        return self._finish(objective, self._loop(solver, objective, state))

    def fit_part(self, carry: Carry | None) -> tuple[Fit, Carry]:
        """Run one epoch from where the last part ended."""
        if carry is None:
            carry = self._first_carry()
        expected = len(carry.objective.coordinates.scale)
        if self._source.n_features != expected:
            raise DataError(
                f"{self._source.X.name} has {self._source.n_features} features, but the earlier "
                f"parts had {expected} features; they must be the same"
            )
        weight, rows = float(self._class_weight.sum()), self._source.n_samples
        objective = replace(carry.objective, total_weight=weight, n_rows=rows)
        start = carry.solver.resume(carry.state)
        state = self._loop(carry.solver, objective, start)
        assert isinstance(state, MiniBatchState)
        return self._finish(objective, state), Carry(objective, carry.solver, state)

    def _first_carry(self) -> Carry:
        settings = self._settings
        kind = SOLVERS[settings.solver]
        # A class that the first part lacks may well come: none is taken for impossible.
        objective = self._passes.first_read(kind, self._class_weight + 1.0)
        horizon = max(self._source.n_samples, _LEAST_HORIZON)
        solver = build_solver(kind, settings, objective, horizon, None)
        assert isinstance(solver, MiniBatch)
        state = solver.start(self._warm_point(objective), objective.known, objective.intercept_only)
        return Carry(objective, solver, state)

    def _warm_point(self, objective: Objective) -> Array:
        """Return where to start: at the last fit, or at the intercepts alone."""
        default, last = objective.intercept_only, self._settings.start
        if last is None:
            return default
        if not np.array_equal(last.classes, self._classes) or len(last.coef) != len(default) - 1:
            raise DataError(
                f"the last fit had {len(last.coef)} features and the classes "
                f"{preview(last.classes)}, the data have {len(default) - 1} and "
                f"{preview(self._classes)}; to go on from it (warm_start, partial_fit) they must "
                "be the same"
            )
        intercept = last.intercept if self._settings.fit_intercept else 0.0 * last.intercept
        return objective.coordinates.from_coefficients(last.coef, intercept)

    @property
    def _classes(self) -> Array:
        assert self._source.classes is not None
        return self._source.classes

    def _announce(self, kind: Kind) -> None:
        source = self._source
        self._ledger.emit(
            FitStarted(
                source.n_samples, source.n_features, len(self._classes), len(source.chunks) - 1,
                source.n_samples * source.row_bytes, kind.name, self._settings.max_iter,
                self._executor.slots, self._executor.dashboard,
            )
        )  # fmt: skip

    def _loop(self, solver: Solver[Any], objective: Objective, state: State) -> State:
        try:
            while state.status is Status.RUNNING:
                request = solver.ask(state)
                if not self._passes.affordable(request):
                    return replace(state, status=Status.BUDGET)
                state = solver.tell(state, self._passes.evaluate(objective, request))
        except KeyboardInterrupt:
            return replace(state, status=Status.INTERRUPTED)
        return state

    def _finish(self, objective: Objective, state: State) -> Fit:
        state, loss = self._settle(objective, state)
        status = state.status
        if self._passes.separated and status is not Status.INTERRUPTED:
            status = Status.SEPARABLE
        coef, intercept = objective.coordinates.to_coefficients(state.point)
        if len(self._classes) > 2:
            intercept = intercept - intercept.mean()
            if self._settings.alpha == 0:
                coef = coef - coef.mean(axis=1, keepdims=True)
        passes, steps = max(1, self._ledger.passes), self._ledger.steps
        self._ledger.emit(
            FitEnded(status.value, status.converged, loss, passes, steps, self._ledger.seconds)
        )
        shift = objective.coordinates.shift
        return Fit(self._classes, coef, intercept, shift, loss, status, passes, steps)

    def _settle(self, objective: Objective, state: State) -> tuple[State, float]:
        """Return the final state and the objective there, read once more after mini-batches.

        The mean over the batches of an epoch belongs to no one point. Should its last point
        turn out worse than the intercepts alone, those are returned.
        """
        start = float(objective.known.value[0])
        final = Request(state.point[None], Rows.ALL)
        done = not self._passes.only_batches or state.status is Status.INTERRUPTED
        if done or not self._passes.affordable(final):
            if np.isfinite(state.value):
                return state, state.value
            return replace(state, point=objective.intercept_only), start
        try:
            value = objective.whole(state.point, self._passes.evaluate(objective, final))[0]
        except KeyboardInterrupt:
            return replace(state, status=Status.INTERRUPTED), state.value
        if value <= start:
            return state, value
        return replace(state, point=objective.intercept_only, status=Status.DIVERGED), start


def _labelled(
    source: Source, settings: Settings, executor: Executor, least_classes: int
) -> tuple[Source, Array]:  # fmt: skip
    """Return the source that reads codes and weights, and the total weight of each class."""
    spans = cut_spans(source.chunks, source.row_bytes)
    classes, counts = scan_labels(source, settings.classes, spans, executor, least_classes)
    factors = class_factors(settings.class_weight, classes, counts)
    if source.sample_weight is not None or factors is not None:
        factors = normalised(factors, counts)
    weight = counts.weight if factors is None else counts.weight * factors
    return source.with_classes(classes, factors), weight
