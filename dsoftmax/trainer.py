"""The one loop: ask the solver, reduce over the rows, tell the solver, report.

Full-batch and mini-batch solvers differ in the rows they ask for, and in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import numpy as np

from dsoftmax.classes import class_factors, normalised, scan_labels
from dsoftmax.errors import DataError
from dsoftmax.events import Callback, FitEnded, FitStarted
from dsoftmax.ledger import Ledger
from dsoftmax.objective import Objective, build_objective, moments_of
from dsoftmax.reduction import Array
from dsoftmax.runtime.executors import Executor
from dsoftmax.runtime.reduce import full_pass, reduce
from dsoftmax.runtime.spans import Span, cut_spans
from dsoftmax.sampling import Epoch, auto_batch_size, lane_count
from dsoftmax.settings import Settings
from dsoftmax.solvers.base import Evaluation, Request, Rows, Solver, State, Status
from dsoftmax.solvers.lbfgs import LBFGS
from dsoftmax.solvers.sgd import SGD
from dsoftmax.sources.base import Source, preview


@dataclass(frozen=True)
class Fit:
    """What training returns.

    Attributes
    ----------
    classes : (K,)
    coef : (n_features, n_columns), in units of the data
    intercept : (n_columns,)
    loss : penalised objective there
    status : why it ended
    passes, steps : what it took
    """

    classes: Array
    coef: Array
    intercept: Array
    loss: float
    status: Status
    passes: int
    steps: int


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
    spans = cut_spans(source.chunks, source.row_bytes)
    classes, counts = scan_labels(source, settings.classes, spans, executor)
    factors = class_factors(settings.class_weight, classes, counts)
    if source.sample_weight is not None or factors is not None:
        factors = normalised(factors, counts)
    source = source.with_classes(classes, factors)
    weight = counts.weight if factors is None else counts.weight * factors
    run = _Run(source, settings, executor, Ledger(callbacks, source.n_samples), spans, weight)
    return run.fit()


def make_solver(settings: Settings, dtype: np.dtype[np.floating], steps: int) -> Solver[Any]:
    """Return the solver that the settings name, for epochs of so many steps."""
    if settings.solver == SGD.name:
        return SGD(
            settings.learning_rate, settings.momentum, settings.tol,
            settings.n_iter_no_change, steps,
        )  # fmt: skip
    return LBFGS(settings.tol, noise=0.5 * float(np.finfo(dtype).eps))


class _Run:
    """A fit under way."""

    def __init__(
        self, source: Source, settings: Settings, executor: Executor, ledger: Ledger,
        spans: tuple[Span, ...], class_weight: Array,
    ) -> None:  # fmt: skip
        self._source, self._settings, self._executor = source, settings, executor
        self._ledger, self._spans, self._class_weight = ledger, spans, class_weight
        self._epoch = _first_epoch(source, settings, spans)
        self._next_step = 0
        self._key = uuid4().hex
        self._separated = False

    def fit(self) -> Fit:
        """Run the solver to its end."""
        solver = make_solver(self._settings, self._source.dtype, self._epoch.n_steps)
        self._announce(solver)
        objective = self._first_read(solver)
        at = objective.intercept_only
        start = self._warm_point(objective, at)
        state = self._loop(solver, objective, solver.start(start, objective.known, at))
        return self._finish(objective, state)

    def _warm_point(self, objective: Objective, default: Array) -> Array:
        last = self._settings.start
        if last is None:
            return default
        if not np.array_equal(last.classes, self._classes) or len(last.coef) != len(default) - 1:
            raise DataError(
                f"warm_start: the last fit had {len(last.coef)} features and the classes "
                f"{preview(last.classes)}, the data have {len(default) - 1} and "
                f"{preview(self._classes)}; they must be the same"
            )
        return objective.coordinates.from_coefficients(last.coef, last.intercept)

    @property
    def _classes(self) -> Array:
        assert self._source.classes is not None
        return self._source.classes

    def _announce(self, solver: Solver[Any]) -> None:
        source = self._source
        self._ledger.emit(
            FitStarted(
                source.n_samples, source.n_features, len(self._classes), len(source.chunks) - 1,
                source.n_samples * source.row_bytes, solver.name, self._settings.max_iter,
                self._executor.slots, self._executor.dashboard,
            )
        )  # fmt: skip

    def _first_read(self, solver: Solver[Any]) -> Objective:
        """Read the moments: of all rows, or of those that the first mini-batches decode anyway.

        The moments of all rows tell the objective at the intercept-only model exactly, so
        that this pass is also the first evaluation.
        """
        settings, source = self._settings, self._source
        whole = settings.standardize or not solver.mini_batch
        moments, spent = reduce(
            self._executor, source, moments_of(len(self._classes), source.dtype),
            full_pass(self._spans) if whole else self._epoch.first_spans(),
            keep=None if whole else self._key,
            on_work=self._ledger.on_work if whole else None,
        )  # fmt: skip
        objective = build_objective(
            moments, class_weight=self._class_weight, n_rows=source.n_samples,
            alpha=settings.alpha, l1_ratio=settings.l1_ratio,
            fit_intercept=settings.fit_intercept, standardize=settings.standardize,
            dtype=source.dtype,
        )  # fmt: skip
        self._ledger.spend(spent)
        if whole:
            self._ledger.see(float(objective.known.value[0]), objective.known)
            self._ledger.end_pass()
        return objective

    def _loop(self, solver: Solver[Any], objective: Objective, state: State) -> State:
        try:
            while state.status is Status.RUNNING:
                request = solver.ask(state)
                if not self._affordable(request):
                    return replace(state, status=Status.BUDGET)
                state = solver.tell(state, self._evaluate(objective, request))
        except KeyboardInterrupt:
            return replace(state, status=Status.INTERRUPTED)
        return state

    def _affordable(self, request: Request) -> bool:
        """Whether the budget has room: for an epoch and the evaluation of its result, say."""
        left = self._settings.max_iter - self._ledger.passes
        if request.rows is Rows.ALL or self._epoch.number == 0:
            return left >= 1
        return self._next_step > 0 or left >= 2

    def _evaluate(self, objective: Objective, request: Request) -> Evaluation:
        if request.rows is Rows.ALL:
            return self._evaluate_all(objective, request.points)
        return self._evaluate_batch(objective, request)

    def _evaluate_all(self, objective: Objective, points: Array) -> Evaluation:
        sums, spent = reduce(
            self._executor, self._source, objective.reduction(points), full_pass(self._spans),
            on_work=self._ledger.on_work,
        )  # fmt: skip
        result = objective.evaluation(points, sums, self._source.n_samples)
        if self._settings.alpha == 0:
            # All rows right, and not by ties, whose loss would be log 2 or more.
            fits = (sums.correct == sums.weight) & (sums.loss < np.log(2) * sums.weight)
            self._separated |= bool(fits.any())
        self._ledger.spend(spent)
        self._ledger.steps += 1
        self._ledger.see(objective.value(points[0], float(result.value[0])), result)
        self._ledger.end_pass()
        return result

    def _evaluate_batch(self, objective: Objective, request: Request) -> Evaluation:
        points, step = request.points, self._next_step
        leaves = self._epoch.batch(step)
        rows = sum(piece.rows for leaf in leaves for piece in leaf)
        sums, spent = reduce(
            self._executor, self._source, objective.reduction(points), leaves, keep=self._key
        )
        self._ledger.spend(spent)
        if request.rows is Rows.SAME_BATCH:
            return objective.evaluation(points, sums, rows)
        last = step + 1 == self._epoch.n_steps
        result = objective.evaluation(points, sums, rows, epoch_ended=last)
        self._ledger.steps += 1
        self._ledger.see(objective.value(points[0], float(result.value[0])), result)
        self._ledger.end_step()
        self._next_step += 1
        if last:
            self._end_epoch()
        return result

    def _end_epoch(self) -> None:
        self._ledger.end_pass()
        self._epoch, self._next_step = self._epoch.next(), 0
        self._executor.refresh()

    def _finish(self, objective: Objective, state: State) -> Fit:
        state, loss = self._settle(objective, state)
        status = state.status
        if self._separated and status is not Status.INTERRUPTED:
            status = Status.SEPARABLE
        coef, intercept = objective.coordinates.to_coefficients(state.point)
        if len(self._classes) > 2:
            intercept = intercept - intercept.mean()
            if self._settings.alpha == 0:
                coef = coef - coef.mean(axis=1, keepdims=True)
        ledger = self._ledger
        ledger.emit(
            FitEnded(
                status.value, status.converged, loss, ledger.passes, ledger.steps, ledger.seconds
            )
        )
        return Fit(
            self._classes, coef, intercept, loss, status, max(1, ledger.passes), ledger.steps
        )  # fmt: skip

    def _settle(self, objective: Objective, state: State) -> tuple[State, float]:
        """Return the final state and the objective there, read once more after mini-batches.

        The mean over the batches of an epoch belongs to no one point. Should its last point
        turn out worse than the intercepts alone, those are returned.
        """
        only_batches = self._epoch.number > 0 or self._next_step > 0
        left = self._settings.max_iter - self._ledger.passes
        if not only_batches or left < 1 or state.status is Status.INTERRUPTED:
            return state, objective.value(state.point, state.value)
        value = float(self._evaluate_all(objective, state.point[None]).value[0])
        start = float(objective.known.value[0])
        if not value <= start:
            point, value = objective.intercept_only, start
            state = replace(state, point=point, status=Status.DIVERGED)
        return state, objective.value(state.point, value)


def _first_epoch(source: Source, settings: Settings, spans: tuple[Span, ...]) -> Epoch:
    batch = min(settings.batch_size or auto_batch_size(source.n_samples), source.n_samples)
    span_bytes = max(stop - start for start, stop in spans) * source.row_bytes
    lanes = lane_count(len(spans), span_bytes, batch)
    return Epoch(spans, lanes, batch, settings.seed, shuffle=settings.shuffle)
