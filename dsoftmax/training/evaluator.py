"""Evaluates the objective where a solver asks for it, on all rows, a mini-batch or a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from dsoftmax.data.batches import Epoch, Leaf
from dsoftmax.data.store_changes import require_unchanged
from dsoftmax.errors import CheckpointError
from dsoftmax.events import PassEnded
from dsoftmax.metrics.metrics import MetricSums, held_out_metrics_of
from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.first_read import moments_of
from dsoftmax.objective.gram import MOST_FEATURES, gram_of
from dsoftmax.objective.importance_sample import ImportanceSample, rows_of
from dsoftmax.objective.objective import Objective, gradient_of, intercept_only
from dsoftmax.objective.reduction import Reduction, combine
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.reduce import Pass
from dsoftmax.runtime.spans import Span
from dsoftmax.solvers import Kind
from dsoftmax.solvers.base import Request, RowSelection
from dsoftmax.training.epochs import first_epoch, warn_of_small_cache
from dsoftmax.training.full_reads import OnTaskDone, RowReader
from dsoftmax.training.label_scan import EncodedData
from dsoftmax.training.params import FitParams
from dsoftmax.training.progress import Progress
from dsoftmax.training.run_state import DataStatistics, EpochPosition, FitState
from dsoftmax.training.start import apart_from_start, beside_start, warm_start
from dsoftmax.training.validation import ValidationSet, scores_on, validation_sums
from dsoftmax.typing import Array

_METRIC_ROWS_PER_FEATURE = 8
_MIN_METRIC_ROWS = 1 << 13


class Evaluated(NamedTuple):
    """What an evaluation led to.

    Attributes
    ----------
    result : what the solver is told
    point : the point that counts: the first, or the best of them
    position, sample : of the fit after it
    pass_ended : whether all rows were read with it
    """

    result: Evaluation
    point: Array
    position: EpochPosition
    sample: ImportanceSample | None
    pass_ended: bool = False


class Evaluator(RowReader):
    """Turns requests of a solver into reductions over rows, within the budget.

    It holds no state of the fit: what an evaluation changes is in its result.

    Parameters
    ----------
    data, params, executor, progress, spans, excluded, on_task_done : as of `RowReader`
    validation : validation rows that are not part of the source

    Attributes
    ----------
    start : the last fit, of a warm start, or None
    """

    def __init__(
        self,
        data: EncodedData,
        params: FitParams,
        executor: Executor,
        progress: Progress,
        spans: tuple[Span, ...],
        excluded: Sequence[Span],
        on_task_done: OnTaskDone,
        validation: ValidationSet | None = None,
    ) -> None:
        super().__init__(data, params, executor, progress, spans, excluded, on_task_done)
        self._validation = validation
        self._epoch = first_epoch(self._source, params, self._parts, self.n_rows)
        self.start = warm_start(params, data.classes, self._source.n_features)

    def require_unchanged(self) -> None:
        """Raise DataError if a store that is read has changed since it was opened."""
        require_unchanged(self._source, self._validation.source if self._validation else None)

    def affordable(self, request: Request, position: EpochPosition) -> bool:
        """Return whether the budget has room for a request, and for evaluating the result of it."""
        if request.rows is RowSelection.SAMPLE:
            return True
        left = self._params.max_iter - self._progress.passes
        if request.rows is RowSelection.ALL or position.epoch == 0:
            return left >= 1
        return position.step > 0 or left >= 2

    def read_statistics(
        self, kind: Kind, class_weight: Array, state: FitState
    ) -> tuple[DataStatistics, ImportanceSample | None, MetricSums | None]:
        """Read the moments, of all rows or of those that the first mini-batches decode anyway.

        Moments of all rows tell the objective at the intercept-only model exactly, so that this
        read is also the first evaluation; or that of `start`.

        Returns
        -------
        the statistics, the sample if the solver needs one, and the metrics on held-out rows
        """
        dtype, n_classes = self._source.dtype, len(class_weight)
        if kind.mini_batch:
            warn_of_small_cache(self._executor, self._epoch, self._source)
        if kind.mini_batch and not self._params.standardize:
            leaves = self._epoch.at(state.position.epoch).first_spans()
            moments = self._reduce_first(moments_of(n_classes, dtype), leaves)
            if moments.weight > 0:  # else all of these rows have no weight
                return DataStatistics(moments, False, class_weight, self.n_rows), None, None
        start = None if state.start is not None else self.start  # once: else as any other point
        share = self._data.class_weight / self._data.class_weight.sum()
        point = intercept_only(self._source.n_features, share, self._params.fit_intercept)
        points, shift = point[None].astype(dtype), None
        reductions: list[Reduction[Any]] = [moments_of(n_classes, dtype)]
        if kind.needs_sample:
            reductions.append(rows_of(self.first_sampler()))
        if start is not None:
            points, shift = start.point(dtype)[None], start.shift
            reductions.append(gradient_of(points, shift))
        metrics = self._held_out_metrics(points, shift)
        totals = self.read_all(
            [*reductions, *metrics],
            resume_from=state.partial_sum,
            points=None if start is None else points,
        )
        sample = self.sample_of(totals[1]) if kind.needs_sample else None
        sums = None if start is None else totals[len(reductions) - 1]
        statistics = DataStatistics(totals[0], True, class_weight, self.n_rows, sums)
        return statistics, sample, totals[-1] if metrics else None

    def evaluate(self, objective: Objective, request: Request, state: FitState) -> Evaluated:
        """Evaluate the objective at the points of a request, on the rows that it asks for."""
        position, sample = state.position, state.sample
        if request.rows is RowSelection.SAMPLE:
            result = self._on_sample(sample).evaluate(objective, request)
            return Evaluated(result, request.points[0], position, sample)
        if request.rows is RowSelection.ALL:
            return self._evaluate_all(objective, request, state)
        return self._evaluate_batch(objective, request, position, sample)

    def end_pass(
        self,
        objective: Objective,
        point: Array,
        held_out: MetricSums | None,
        gap: float | None = None,
    ) -> PassEnded:
        """Return the event of the pass that was read, with the validation scores of a point.

        Parameters
        ----------
        objective : Objective
        point : that the pass has led to
        held_out : metrics on rows that are held out of the source
        gap : the solver's estimate, if it has one
        """
        classes = self._data.classes
        if self._validation is not None:
            held_out, cost = validation_sums(
                self._validation, objective, point, classes, self._batch_done
            )
            self._progress.retries += cost.retries
        scores = None if held_out is None else scores_on(held_out, classes)
        return self._progress.end_pass(scores, gap)

    def _evaluate_all(self, objective: Objective, request: Request, state: FitState) -> Evaluated:
        points, position, sample = request.points, state.position, state.sample
        after_batches = position.epoch > 0 or position.step > 0
        kernel_points, sampler = objective.to_kernel(points), None
        if request.resample_at is not None and self._sample_size < self.n_rows:
            ends = np.stack([points[0], request.resample_at])
            sampler = self._on_sample(sample).leverage_sampler(
                objective, ends, request.root, self._params.seed, self._sample_size
            )
        own: Reduction[Any] = objective.reduction(kernel_points)
        if sampler is not None:
            own = objective.reduction_and_rows(kernel_points, sampler)
        metrics = self._held_out_metrics(kernel_points, objective.coordinates.shift)
        sums, *held_out = self.read_all(
            [own, *metrics],
            resume_from=state.partial_sum,
            points=kernel_points,
            cached=not after_batches,
        )
        if sampler is not None:
            sums, picked = sums.parts
            sample = self.sample_of(picked)
        if not after_batches:
            self._progress.steps += 1
        result = objective.evaluation(points, sums, self.n_rows)
        if self._params.alpha == 0:
            # All rows are predicted right, and not by ties, whose loss would be log 2 or more.
            fits = (sums.correct == sums.weight) & (sums.loss < np.log(2) * sums.weight)
            position = replace(position, separated=position.separated or bool(fits.any()))
        best, loss, norm = self._best_point(objective, request, result)
        self._progress.record(loss, norm, float(result.accuracy[best]), result.share)
        position = replace(position, held_out=held_out[best] if held_out else None)
        result = replace(result, resampled=sampler is not None)
        return Evaluated(result, points[best], position, sample, pass_ended=True)

    @staticmethod
    def _best_point(
        objective: Objective, request: Request, result: Evaluation
    ) -> tuple[int, float, float]:
        """Return the index of the point that counts, its objective and its gradient norm."""
        points = request.points if request.take_best else request.points[:1]
        found = [objective.value_and_norm(point, result, i) for i, point in enumerate(points)]
        best = int(np.argmin([loss for loss, _ in found]))
        return best, *found[best]

    def _evaluate_batch(
        self,
        objective: Objective,
        request: Request,
        position: EpochPosition,
        sample: ImportanceSample | None,
    ) -> Evaluated:
        epoch = self._at(position)
        if position.step >= epoch.n_steps:
            raise CheckpointError(
                f"the checkpoint is at step {position.step}, and an epoch has {epoch.n_steps}; "
                "remove it"
            )
        leaves, uses_up = epoch.batch(position.step), request.rows is RowSelection.BATCH
        rows = sum(row_slice.rows for leaf in leaves for row_slice in leaf)
        points, last = request.points, uses_up and position.step + 1 == epoch.n_steps
        # The fit has to return no worse a model than its start.
        start = self.start if uses_up and position.epoch == 0 else None
        kernel_points = objective.to_kernel(beside_start(objective, points, start))
        # Points that only probe the curvature are no models to score.
        metrics = self._held_out_metrics(
            kernel_points[: 1 if uses_up else 0], objective.coordinates.shift
        )
        read = Pass(
            self._executor,
            self._source,
            leaves,
            cache_name=self._cache_name,
            batch=True,
            drop_after_use=uses_up,
            following=epoch.batch(position.step + 1),
        )
        reduction = combine(objective.reduction(kernel_points), *metrics)
        sums, cost = read.reduce(reduction, on_task_done=self._batch_done)
        self._progress.spend(cost)
        own, *held_out = sums.parts
        if start is not None:
            position, own = apart_from_start(position, own)
        result = objective.evaluation(points, own, rows, epoch_ended=last)
        if not uses_up:
            if request.metric:
                result = replace(result, metric=self._hessian_approx(objective, epoch))
            return Evaluated(result, points[0], position, sample)
        loss, norm = objective.value_and_norm(points[0], result)
        accuracy = float(result.accuracy[0])
        self._progress.steps += 1
        self._progress.record(loss, norm, accuracy, result.share)
        self._progress.report_step(loss, norm, accuracy, cost)
        for metric_sums in held_out:
            before = position.held_out
            total = metric_sums if before is None else before + metric_sums
            position = replace(position, held_out=total)
        position = replace(position, step=position.step + 1)
        if last:
            position = replace(position, epoch=position.epoch + 1, step=0)
            self._executor.refresh()
        return Evaluated(result, points[0], position, sample, pass_ended=last)

    def _at(self, position: EpochPosition) -> Epoch:
        if self._epoch.number != position.epoch:
            self._epoch = self._epoch.at(position.epoch)
        return self._epoch

    def _held_out_metrics(self, points: Array, shift: Array | None) -> list[Reduction[MetricSums]]:
        """Return what scores points on the rows held out of the source, if there are any."""
        if self._source.hold_out is None:
            return []
        return [held_out_metrics_of(point, shift) for point in points]

    def _hessian_approx(self, objective: Objective, epoch: Epoch) -> Array | None:
        """Return an approximate Hessian of one class, from the rows that come first.

        They are 8 rows per feature, or 8,192, of the first span of each lane. None beyond 2,048
        features, where it costs more than it saves, and where these rows have no weight.
        """
        if self._source.n_features > MOST_FEATURES:
            return None
        rows = max(_METRIC_ROWS_PER_FEATURE * self._source.n_features, _MIN_METRIC_ROWS)
        spans = epoch.first_spans()
        limits = [rows * _count([lane]) // _count(spans) + 1 for lane in spans]
        leaves = [
            tuple(replace(row_slice, high=min(row_slice.high, limit)) for row_slice in lane)
            for lane, limit in zip(spans, limits, strict=True)
        ]
        gram: Array = self._reduce_first(gram_of(objective), leaves)
        weight = float(gram[-1, -1])
        return objective.hessian_approx(gram / weight, _count(leaves)) if weight > 0 else None


def _count(leaves: Sequence[Leaf]) -> int:
    return sum(row_slice.rows for leaf in leaves for row_slice in leaf)
