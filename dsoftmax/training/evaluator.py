"""How a fit reads its rows: requests become reductions, and what they cost is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dsoftmax.data.batches import Epoch, Leaf
from dsoftmax.events import PassEnded
from dsoftmax.metrics.metrics import MetricSums, held_out_metrics_of
from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.gram import MOST_FEATURES, gram_of
from dsoftmax.objective.importance_sample import rows_of
from dsoftmax.objective.objective import Objective, intercept_only, moments_of
from dsoftmax.objective.reduction import Reduction, combine
from dsoftmax.objective.scaling import Moments
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.cost import PartialSum, TaskResult
from dsoftmax.runtime.reduce import Pass
from dsoftmax.runtime.spans import Span
from dsoftmax.runtime.threads import ThreadExecutor
from dsoftmax.solvers.base import Request, RowSelection
from dsoftmax.training.full_reads import RowReader, Watch, first_epoch, warn_of_small_cache
from dsoftmax.training.label_scan import EncodedData
from dsoftmax.training.params import FitParams
from dsoftmax.training.progress import Progress
from dsoftmax.training.run_state import EpochPosition
from dsoftmax.training.sample_objective import SampleObjective
from dsoftmax.training.validation import ValidationSet, scored, sums_apart
from dsoftmax.typing import Array

Note = Callable[[TaskResult], None]


class Evaluator(RowReader):
    """Evaluates requests over the rows of a source, within the budget.

    Parameters
    ----------
    labelled : the source that reads codes, and what is known of its classes
    params, executor, progress : of the fit
    spans : of the source
    excluded : rows that are left out
    note : told of each task of a mini-batch
    watch : told of each task of a pass over all rows
    validation : validation rows that are no part of the source

    Attributes
    ----------
    n_rows, sample, begun : as of Reads
    place : Place
    seen : the last point that was evaluated, of rivals the best
    ended : whether a pass has been read to its end, and not been told of
    """

    def __init__(
        self,
        labelled: EncodedData,
        params: FitParams,
        executor: Executor,
        progress: Progress,
        spans: tuple[Span, ...],
        excluded: Sequence[Span],
        note: Note,
        watch: Watch,
        validation: ValidationSet | None = None,
    ) -> None:
        super().__init__(labelled, params, executor, progress, spans, excluded, watch)
        self._threads, self._note, self._apart = ThreadExecutor(), note, validation
        self._first_epoch = first_epoch(self._source, params, self._parts, self.n_rows)
        self.seen: Array | None = None
        self.ended = False
        self.place = EpochPosition()

    @property
    def place(self) -> EpochPosition:
        """Where the mini-batches are."""
        return EpochPosition(self._epoch.number, self._next_step, self.separated, self._judged)

    @place.setter
    def place(self, place: EpochPosition) -> None:
        self._epoch = self._first_epoch.at(place.epoch)
        self._next_step, self.separated = place.step, place.separated
        self._judged = place.judged

    @property
    def only_batches(self) -> bool:
        """Whether the last that was read were mini-batches."""
        return self._epoch.number > 0 or self._next_step > 0

    def affordable(self, request: Request) -> bool:
        """Whether the budget has room: for an epoch and the evaluation of its result, say."""
        if request.rows is RowSelection.SAMPLE:
            return True
        left = self._settings.max_iter - self._ledger.passes
        if request.rows is RowSelection.ALL or self._epoch.number == 0:
            return left >= 1
        return self._next_step > 0 or left >= 2

    def moments(self, n_classes: int, *, mini_batch: bool, sampled: bool) -> tuple[Moments, bool]:
        """Read the moments: of all rows, or of those that the first mini-batches decode anyway.

        With `sampled`, some rows are kept in memory on the way.

        Returns
        -------
        Moments
        bool
            Whether they are of all rows; they then tell the objective at the intercept-only
            model exactly, so that this pass is also the first evaluation.
        """
        if mini_batch:
            warn_of_small_cache(self._executor, self._epoch, self._source)
        if mini_batch and not self._settings.standardize:
            moments = self._reduce_first(
                moments_of(n_classes, self._source.dtype), self._epoch.first_spans()
            )
            if moments.weight > 0:  # else the rows that come first count for nothing
                return moments, False
        weight, fit_intercept = self._labelled.class_weight, self._settings.fit_intercept
        point = intercept_only(self._source.n_features, weight / weight.sum(), fit_intercept)
        held_out_reductions = self._held_out_reductions(
            point[None].astype(self._source.dtype), None
        )
        reduction: Reduction[Any] = moments_of(n_classes, self._source.dtype)
        if sampled:
            reduction = combine(reduction, rows_of(self.first_rule()))
        sums, judged = self.read_all(reduction, held_out_reductions, picks=sampled)
        self._judged = judged[0] if judged else None
        return sums, True

    def _held_out_reductions(
        self, kernel: Array, shift: Array | None
    ) -> list[Reduction[MetricSums]]:
        """Return what evaluates a kernel's points on the rows that are held out, if some are."""
        points = () if self._source.hold_out is None else kernel
        return [held_out_metrics_of(point, shift) for point in points]

    @property
    def _subproblem(self) -> SampleObjective:
        assert self.sample is not None, "the first read has picked some rows"
        return SampleObjective(self.sample, self._source.dtype, self._threads)

    def _reduce_first(self, reduction: Reduction[Any], leaves: Sequence[Leaf]) -> Any:
        """Reduce over rows that the first mini-batches decode anyway."""
        read = Pass(
            self._executor,
            self._source,
            leaves,
            cache_name=self._key,
            batch=True,
            drop_after_use=False,
        )
        sums, cost = read.reduce(reduction, on_task_done=self._watch_batch)
        self._ledger.spend(cost)
        return sums

    def end_first(self, objective: Objective) -> None:
        """Count the moments of all rows as the evaluation of the intercept-only model."""
        self._see(objective, objective.intercept_only[None], objective.at_intercept_only)
        self.ended = True

    def close(self, objective: Objective, point: Array, gap: float | None = None) -> PassEnded:
        """Return what to tell of the pass that was read, with what validation rows say of a point.

        Parameters
        ----------
        objective : Objective
        point : that the pass has led to
        gap : what the solver estimates, if it does
        """
        sums, classes = self._judged, self._labelled.classes
        if self._apart is not None:
            sums, cost = sums_apart(self._apart, objective, point, classes, self._watch_batch)
            self._ledger.retries += cost.retries
        self._judged, self.ended = None, False
        return self._ledger.end_pass(None if sums is None else scored(sums, classes), gap)

    def tell(self, event: PassEnded) -> None:
        """Tell every callback of a pass."""
        self._ledger.emit(event)

    def evaluate(self, objective: Objective, request: Request) -> Evaluation:
        """Return the objective at the points of a request, on the rows that it asks for."""
        if request.rows is RowSelection.SAMPLE:
            return self._subproblem.evaluate(objective, request)
        if request.rows is RowSelection.ALL:
            return self._evaluate_all(objective, request)
        leaves = self._epoch.batch(self._next_step)
        if request.rows is RowSelection.SAME_BATCH:
            result = self._evaluate_batch(objective, request, leaves, ends=False)
            return replace(result, metric=self._metric(objective)) if request.metric else result
        ends = self._next_step + 1 == self._epoch.n_steps
        result = self._evaluate_batch(objective, request, leaves, ends=ends)
        self._ledger.steps += 1
        self._see(objective, request.points, result)
        self._ledger.end_step()
        self._next_step += 1
        if ends:
            self._end_epoch()
        return result

    def _evaluate_all(self, objective: Objective, request: Request) -> Evaluation:
        points, rule = request.points, None
        if request.resample_at is not None and self._sample_size < self.n_rows:
            ends = np.stack([points[0], request.resample_at])
            rule = self._subproblem.rule(
                objective, ends, request.root, self._settings.seed, self._sample_size
            )
        held_out_reductions = self._held_out_reductions(
            objective.to_kernel(points), objective.coordinates.shift
        )
        reduction: Reduction[Any] = objective.reduction(points)
        if rule is not None:
            reduction = objective.reduction_and_rows(points, rule)
        sums, judged = self.read_all(
            reduction, held_out_reductions, picks=rule is not None, keep=not self.only_batches
        )
        if not self.only_batches:
            self._ledger.steps += 1
        result = objective.evaluation(points, sums, self.n_rows)
        if self._settings.alpha == 0:
            # All rows right, and not by ties, whose loss would be log 2 or more.
            fits = (sums.correct == sums.weight) & (sums.loss < np.log(2) * sums.weight)
            self.separated |= bool(fits.any())
        best = self._see(objective, points, result, take_best=request.take_best)
        self._judged, self.ended = judged[best] if judged else None, True
        return replace(result, resampled=rule is not None)

    def _watch_batch(self, task_result: TaskResult, _: PartialSum) -> None:
        self._note(task_result)

    def _evaluate_batch(
        self, objective: Objective, request: Request, leaves: Sequence[Leaf], *, ends: bool
    ) -> Evaluation:
        rows = sum(row_slice.rows for leaf in leaves for row_slice in leaf)
        points, final = request.points, request.rows is RowSelection.BATCH
        # Points to probe the curvature with are no models to judge.
        kernel = objective.to_kernel(points)[: 1 if final else 0]
        held_out_reductions = self._held_out_reductions(kernel, objective.coordinates.shift)
        read = Pass(
            self._executor,
            self._source,
            leaves,
            cache_name=self._key,
            batch=True,
            drop_after_use=final,
            following=self._epoch.batch(self._next_step + 1),
        )
        reduction = combine(objective.reduction(points), *held_out_reductions)
        sums, cost = read.reduce(reduction, on_task_done=self._watch_batch)
        self._ledger.spend(cost)
        first, *judged = sums.parts
        for own in judged:
            self._judged = own if self._judged is None else self._judged + own
        return objective.evaluation(points, first, rows, epoch_ended=ends)

    def _metric(self, objective: Objective) -> Array | None:
        """Return about the Hessian of a class, from the rows that come first."""
        leaves = metric_leaves(self._epoch, self._source.n_features)
        if not leaves:
            return None
        gram: Array = self._reduce_first(gram_of(objective), leaves)
        return metric_of(objective, gram, leaves)

    def _see(
        self, objective: Objective, points: Array, result: Evaluation, *, take_best: bool = False
    ) -> int:
        """Take note of the point that counts; return which it is."""
        seen = [
            objective.value_and_norm(point, result, index) for index, point in enumerate(points)
        ]
        best = int(np.argmin([loss for loss, _ in seen])) if take_best else 0
        self._ledger.see(*seen[best], result)
        self.seen = points[best]
        return best

    def _end_epoch(self) -> None:
        self.ended, self._epoch, self._next_step = True, self._epoch.next(), 0
        self._executor.refresh()


_ROWS_A_FEATURE = 8
_LEAST_ROWS = 1 << 13


def metric_leaves(epoch: Epoch, n_features: int) -> list[Leaf]:
    """Return the rows that tell a metric: 8 for a feature, or 8,192, of those that come first.

    They are of the first span of each lane, which the first batches decode anyway; none beyond
    2,048 features, where a metric costs more than it saves.
    """
    if n_features > MOST_FEATURES:
        return []
    rows = max(_ROWS_A_FEATURE * n_features, _LEAST_ROWS)
    spans = epoch.first_spans()
    shares = [rows * _count([lane]) // _count(spans) + 1 for lane in spans]
    return [
        tuple(replace(row_slice, high=min(row_slice.high, share)) for row_slice in lane)
        for lane, share in zip(spans, shares, strict=True)
    ]


def _count(leaves: list[Leaf]) -> int:
    return sum(row_slice.rows for leaf in leaves for row_slice in leaf)


def metric_of(objective: Objective, gram: Array, leaves: list[Leaf]) -> Array | None:
    """Return about the Hessian of a class, for the sum over some rows; None if none counts."""
    weight = float(gram[-1, -1])
    return objective.hessian_approx(gram / weight, _count(leaves)) if weight > 0 else None
