"""How a run reads all of its rows: what is summed, what is kept of them, and what it costs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from dsoftmax.data.batches import Epoch, auto_batch_size, lane_count
from dsoftmax.data.source import Source
from dsoftmax.errors import DataError
from dsoftmax.objective.importance_sample import (
    ImportanceSample,
    StratifiedSampler,
    auto_size,
    class_rates,
)
from dsoftmax.objective.reduction import Reduction, combine
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.cost import PartialSum, TaskResult
from dsoftmax.runtime.memory import cache_room_for, require_sample_fits
from dsoftmax.runtime.reduce import Pass, full_pass
from dsoftmax.runtime.spans import Span, around
from dsoftmax.training.label_scan import EncodedData
from dsoftmax.training.params import FitParams
from dsoftmax.training.progress import Progress

Watch = Callable[[TaskResult, PartialSum], None]


class RowReader:
    """Reduces over all rows of a source.

    Parameters
    ----------
    labelled : the source that reads codes, and what is known of its classes
    params, executor, progress : of the run
    spans : of the source
    excluded : rows that are left out
    watch : told of each task of a pass over all rows

    Attributes
    ----------
    n_rows : how many rows there are
    sample : the rows that are kept in memory, or None
    begun : a sum over all rows to go on with, when the next one is asked for
    """

    def __init__(
        self,
        labelled: EncodedData,
        params: FitParams,
        executor: Executor,
        progress: Progress,
        spans: tuple[Span, ...],
        excluded: Sequence[Span],
        watch: Watch,
    ) -> None:
        self._labelled, self._source = labelled, labelled.source
        self._settings, self._executor = params, executor
        self._ledger, self._watch_task = progress, watch
        self._leaves = full_pass(spans, excluded)
        self._parts = tuple(around(excluded, spans))
        self.n_rows = sum(stop - start for start, stop in self._parts)
        # What workers remember has the weights of the rows that there were: holes only grow.
        self._key = f"{executor.run_key}-{len(excluded)}"
        self._pass = Pass(executor, self._source, self._leaves, cache_name=self._key)
        self.begun: PartialSum | None = None
        self.sample: ImportanceSample | None = None

    def read_all(
        self,
        reduction: Reduction[Any],
        others: Sequence[Reduction[Any]] = (),
        *,
        picks: bool = False,
        keep: bool = True,
    ) -> tuple[Any, list[Any]]:
        """Reduce over all rows.

        With `picks`, the reduction is one of two: the second picks rows, to keep in memory.

        Returns
        -------
        what the reduction adds up to, and what the others do
        """
        read = self._pass if keep else Pass(self._executor, self._source, self._leaves)
        sums, cost = read.reduce(
            combine(reduction, *others), resume_from=self._taken_up(), on_task_done=self._watch
        )
        self._ledger.spend(cost)
        first, *rest = sums.parts
        if picks:
            first, picked = first.parts
            self._keep_in_memory(picked)
        return first, rest

    def first_rule(self) -> StratifiedSampler:
        """Return what picks the first rows to keep in memory.

        Raises
        ------
        MemoryBoundError
            If they do not fit.
        """
        require_sample_fits(min(self._sample_size, self.n_rows), self._source.row_bytes)
        rates = class_rates(self._labelled.class_rows, self._sample_size)
        return StratifiedSampler(rates, self._settings.seed)

    def _keep_in_memory(self, picked: ImportanceSample) -> None:
        if picked.n_rows == 0:
            raise DataError(
                f"sample_size is {self._sample_size}, and no row was picked; set it larger"
            )
        self.sample = picked.joined().stratified(self._labelled.class_weight)

    @property
    def _sample_size(self) -> int:
        source, n_classes = self._source, len(self._labelled.class_weight)
        return self._settings.sample_size or auto_size(
            self.n_rows, source.n_features, n_classes, source.row_bytes
        )

    def _taken_up(self) -> PartialSum | None:
        begun, self.begun = self.begun, None
        return begun

    def _watch(self, task_result: TaskResult, begun: PartialSum) -> None:
        self._ledger.progress(begun, self.n_rows)
        self._watch_task(task_result, begun)


def first_epoch(source: Source, params: FitParams, spans: tuple[Span, ...], n_rows: int) -> Epoch:
    """Return the batches of the first epoch over spans of so many rows."""
    batch = min(params.batch_size or auto_batch_size(n_rows), n_rows)
    span_bytes = max(stop - start for start, stop in spans) * source.row_bytes
    lanes = lane_count(len(spans), span_bytes, batch)
    return Epoch(spans, lanes, batch, params.seed, shuffle=params.shuffle)


def warn_of_small_cache(executor: Executor, epoch: Epoch, source: Source) -> None:
    """Warn if the spans that mini-batches are taken from would be decoded anew at every step."""
    lanes = -(-epoch.n_lanes // executor.location.processes)
    span = max(stop - start for start, stop in epoch.spans) * source.row_bytes
    room = cache_room_for(source, executor.location, span, batch=True)
    if source.X.in_memory or lanes * span <= room:
        return
    warnings.warn(
        f"mini-batches are taken from {lanes} chunks of {span / 2**20:,.0f} MiB at once on each "
        f"worker, which remembers {room / 2**20:,.0f} MiB of them, so that chunks "
        "are decoded many times an epoch: give the workers more memory, store smaller chunks, or "
        "use solver='lbfgs'",
        stacklevel=6,
    )
