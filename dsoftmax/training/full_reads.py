"""Adds up reductions over all rows of a source, or over those that mini-batches read first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from dsoftmax.data.batches import Leaf
from dsoftmax.errors import CheckpointError, DataError
from dsoftmax.objective.importance_sample import (
    ImportanceSample,
    StratifiedSampler,
    auto_size,
    class_rates,
)
from dsoftmax.objective.reduction import Reduction, combine
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.cost import PartialSum, TaskResult
from dsoftmax.runtime.memory import require_sample_fits
from dsoftmax.runtime.reduce import Pass, full_pass
from dsoftmax.runtime.spans import Span, spans_without
from dsoftmax.runtime.threads import ThreadExecutor
from dsoftmax.storage.digests import short_digest
from dsoftmax.training.label_scan import EncodedData
from dsoftmax.training.params import FitParams
from dsoftmax.training.progress import Progress
from dsoftmax.training.sample_objective import SampleObjective
from dsoftmax.typing import Array, cached_property

OnTaskDone = Callable[[TaskResult, PartialSum | None, bool], None]


class RowReader:
    """Reduces over all rows of a source, or over those of the first mini-batches.

    Parameters
    ----------
    data : the source that reads class codes, and the weight of each class
    params, executor, progress : of the run
    spans : of the source
    excluded : rows that are left out
    on_task_done : told of each task; in a pass over all rows also of the sum so far, and whether
        it was the last task

    Attributes
    ----------
    n_rows : how many rows there are
    """

    _sample_objective: SampleObjective | None

    def __init__(
        self,
        data: EncodedData,
        params: FitParams,
        executor: Executor,
        progress: Progress,
        spans: tuple[Span, ...],
        excluded: Sequence[Span],
        on_task_done: OnTaskDone,
    ) -> None:
        self._data, self._source = data, data.source
        self._params, self._executor, self._progress = params, executor, progress
        self._on_task_done = on_task_done
        self._leaves = full_pass(spans, excluded)
        self._parts = tuple(spans_without(excluded, spans))
        self.n_rows = sum(stop - start for start, stop in self._parts)
        # Workers cache rows with their weights, which change when more rows are left out.
        self._cache_name = f"{executor.run_key}-{len(excluded)}"
        self._points = ""
        self._threads, self._sample_objective = ThreadExecutor(), None
        self._cached = Pass(executor, self._source, self._leaves, cache_name=self._cache_name)

    def read_all(
        self,
        reductions: Sequence[Reduction[Any]],
        *,
        resume_from: PartialSum | None = None,
        points: Array | None = None,
        cached: bool = True,
    ) -> tuple[Any, ...]:
        """Reduce over all rows, and return the total of each reduction.

        Parameters
        ----------
        reductions : what to add up, in one read
        resume_from : the sum that an earlier run had begun; it is used if it is of these points
        points : what is evaluated, if anything is
        cached : whether workers cache the rows for the next pass
        """
        self._points = "" if points is None else short_digest(points)
        if resume_from is not None and resume_from.points != self._points:
            resume_from = None  # it was stopped while it evaluated another model
        read = self._cached if cached else Pass(self._executor, self._source, self._leaves)
        sums, cost = read.reduce(
            combine(*reductions), resume_from=resume_from, on_task_done=self._task_done
        )
        self._progress.spend(cost)
        totals: tuple[Any, ...] = getattr(sums, "parts", ())
        if len(totals) != len(reductions):
            raise CheckpointError(
                f"the sum in the checkpoint has {len(totals)} parts, and this run computes "
                f"{len(reductions)}; remove it"
            )
        return totals

    def first_sampler(self) -> StratifiedSampler:
        """Return what picks the first rows to keep in memory.

        Raises
        ------
        MemoryBoundError
            If they do not fit.
        """
        require_sample_fits(min(self._sample_size, self.n_rows), self._source.row_bytes)
        rates = class_rates(self._data.class_rows, self._sample_size)
        return StratifiedSampler(rates, self._params.seed)

    def sample_of(self, picked: ImportanceSample) -> ImportanceSample:
        """Return picked rows as the sample to keep in memory, with the weights of their classes.

        Raises
        ------
        DataError
            If there are none.
        """
        if picked.n_rows == 0:
            raise DataError(
                f"sample_size is {self._sample_size}, and no row was picked; set it larger"
            )
        return picked.joined().stratified(self._data.class_weight)

    def _on_sample(self, sample: ImportanceSample | None) -> SampleObjective:
        """Return what evaluates the objective on the sample, whose tasks are planned once."""
        assert sample is not None, "the first read picks a sample"
        if self._sample_objective is None or self._sample_objective.rows is not sample:
            source = self._source
            self._sample_objective = SampleObjective(
                sample, source.dtype, self._threads, source.X.encoding
            )
        return self._sample_objective

    @cached_property
    def _sample_size(self) -> int:
        source, n_classes = self._source, len(self._data.class_weight)
        return self._params.sample_size or auto_size(
            self.n_rows, source.n_features, n_classes, source.row_bytes
        )

    def _reduce_first(self, reduction: Reduction[Any], leaves: Sequence[Leaf]) -> Any:
        """Reduce over rows that the first mini-batches decode anyway."""
        read = Pass(
            self._executor,
            self._source,
            leaves,
            cache_name=self._cache_name,
            batch=True,
            drop_after_use=False,
        )
        sums, cost = read.reduce(reduction, on_task_done=self._batch_done)
        self._progress.spend(cost)
        return sums

    def _task_done(self, task_result: TaskResult, partial_sum: PartialSum) -> None:
        self._progress.report_rows(partial_sum.cost, self.n_rows)
        partial_sum = replace(partial_sum, points=self._points)
        self._on_task_done(task_result, partial_sum, partial_sum.cost.rows >= self.n_rows)

    def _batch_done(self, task_result: TaskResult, _: PartialSum) -> None:
        self._on_task_done(task_result, None, False)
