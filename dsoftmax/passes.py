"""How a fit reads its rows: requests become reductions, and what they cost is counted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from dsoftmax.ledger import Ledger
from dsoftmax.objective import Objective, build_objective, moments_of
from dsoftmax.reduction import Array
from dsoftmax.runtime.executors import Executor
from dsoftmax.runtime.reduce import full_pass, reduce
from dsoftmax.runtime.spans import Span
from dsoftmax.sampling import Epoch, Leaf, auto_batch_size, lane_count
from dsoftmax.scaling import Moments
from dsoftmax.settings import Settings
from dsoftmax.solvers import Kind
from dsoftmax.solvers.base import Evaluation, Request, Rows
from dsoftmax.sources.base import Source


class Passes:
    """Evaluates requests over the rows of a source, within the budget.

    Attributes
    ----------
    separated : whether some point was seen that predicts every row right, without a penalty
    """

    def __init__(
        self, source: Source, settings: Settings, executor: Executor, spans: tuple[Span, ...],
        ledger: Ledger,
    ) -> None:  # fmt: skip
        self._source, self._settings, self._executor = source, settings, executor
        self._spans, self._ledger = spans, ledger
        self._epoch = _first_epoch(source, settings, spans)
        self._next_step = 0
        self._key = executor.run_key
        self.separated = False

    @property
    def only_batches(self) -> bool:
        """Whether the last that was read were mini-batches."""
        return self._epoch.number > 0 or self._next_step > 0

    def affordable(self, request: Request) -> bool:
        """Whether the budget has room: for an epoch and the evaluation of its result, say."""
        left = self._settings.max_iter - self._ledger.passes
        if request.rows is Rows.ALL or self._epoch.number == 0:
            return left >= 1
        return self._next_step > 0 or left >= 2

    def first_read(self, kind: Kind, class_weight: Array) -> Objective:
        """Read the moments: of all rows, or of those that the first mini-batches decode anyway.

        The moments of all rows tell the objective at the intercept-only model exactly, so
        that this pass is also the first evaluation.

        Parameters
        ----------
        kind : the class of the solver
        class_weight : (n_classes,), total weight of each class
        """
        settings, source = self._settings, self._source
        if kind.mini_batch:
            _warn_of_small_cache(self._executor, self._epoch, source)
        whole = settings.standardize or not kind.mini_batch
        moments = self._moments(len(class_weight), whole)
        if not moments.weight > 0:  # the rows that come first count for nothing
            moments = self._moments(len(class_weight), True)
            whole = True
        objective = build_objective(
            moments, class_weight=class_weight, n_rows=source.n_samples,
            alpha=settings.alpha, l1_ratio=settings.l1_ratio,
            fit_intercept=settings.fit_intercept, standardize=settings.standardize,
            scaled=settings.learning_rate is None or not kind.mini_batch, dtype=source.dtype,
        )  # fmt: skip
        if whole:
            self._see(objective, objective.intercept_only, objective.known)
            self._ledger.end_pass()
        return objective

    def _moments(self, n_classes: int, whole: bool) -> Moments:
        ledger = self._ledger
        sums, spent = reduce(
            self._executor, self._source, moments_of(n_classes, self._source.dtype),
            full_pass(self._spans) if whole else self._epoch.first_spans(),
            keep=None if whole else self._key, release=False,
            on_work=ledger.on_work if whole else None,
        )  # fmt: skip
        ledger.spend(spent)
        return sums

    def evaluate(self, objective: Objective, request: Request) -> Evaluation:
        """Return the objective at the points of a request, on the rows that it asks for."""
        if request.rows is Rows.ALL:
            return self._evaluate_all(objective, request.points)
        leaves = self._epoch.batch(self._next_step)
        if request.rows is Rows.SAME_BATCH:
            return self._evaluate_batch(objective, request, leaves, ends=False)
        ends = self._next_step + 1 == self._epoch.n_steps
        result = self._evaluate_batch(objective, request, leaves, ends=ends)
        self._ledger.steps += 1
        self._see(objective, request.points[0], result)
        self._ledger.end_step()
        self._next_step += 1
        if ends:
            self._end_epoch()
        return result

    def _evaluate_all(self, objective: Objective, points: Array) -> Evaluation:
        sums, spent = reduce(
            self._executor, self._source, objective.reduction(points), full_pass(self._spans),
            on_work=self._ledger.on_work,
        )  # fmt: skip
        self._ledger.spend(spent)
        if not self.only_batches:
            self._ledger.steps += 1
        result = objective.evaluation(points, sums, self._source.n_samples)
        if self._settings.alpha == 0:
            # All rows right, and not by ties, whose loss would be log 2 or more.
            fits = (sums.correct == sums.weight) & (sums.loss < np.log(2) * sums.weight)
            self.separated |= bool(fits.any())
        self._see(objective, points[0], result)
        self._ledger.end_pass()
        return result

    def _evaluate_batch(
        self, objective: Objective, request: Request, leaves: Sequence[Leaf], *, ends: bool
    ) -> Evaluation:
        rows = sum(piece.rows for leaf in leaves for piece in leaf)
        sums, spent = reduce(
            self._executor, self._source, objective.reduction(request.points), leaves,
            keep=self._key, release=request.rows is Rows.BATCH,
        )  # fmt: skip
        self._ledger.spend(spent)
        return objective.evaluation(request.points, sums, rows, epoch_ended=ends)

    def _see(self, objective: Objective, point: Array, result: Evaluation) -> None:
        self._ledger.see(*objective.whole(point, result), result)

    def _end_epoch(self) -> None:
        self._ledger.end_pass()
        self._epoch, self._next_step = self._epoch.next(), 0
        self._executor.refresh()


def _warn_of_small_cache(executor: Executor, epoch: Epoch, source: Source) -> None:
    """Warn if the spans that mini-batches are taken from would be decoded anew at every step."""
    lanes = -(-epoch.n_lanes // executor.processes)
    span = max(stop - start for start, stop in epoch.spans) * source.row_bytes
    if source.X.in_memory or lanes * span <= executor.cache_bytes:
        return
    warnings.warn(
        f"mini-batches are taken from {lanes} chunks of {span / 2**20:,.0f} MiB at once on each "
        f"worker, which remembers {executor.cache_bytes / 2**20:,.0f} MiB of them, so that chunks "
        "are decoded many times an epoch: give the workers more memory, store smaller chunks, or "
        "use solver='lbfgs'",
        stacklevel=6,
    )


def _first_epoch(source: Source, settings: Settings, spans: tuple[Span, ...]) -> Epoch:
    batch = min(settings.batch_size or auto_batch_size(source.n_samples), source.n_samples)
    span_bytes = max(stop - start for start, stop in spans) * source.row_bytes
    lanes = lane_count(len(spans), span_bytes, batch)
    return Epoch(spans, lanes, batch, settings.seed, shuffle=settings.shuffle)
