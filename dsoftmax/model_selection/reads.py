"""How a search reads its rows: one read evaluates a whole stack of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from dsoftmax.metrics.fold_loss import FoldSums, HeldOutSums
from dsoftmax.model_selection.models import PathModel, reached
from dsoftmax.model_selection.stack import Group, Stack, block_length, evaluate_on_sample, judge_of
from dsoftmax.model_selection.sums import FoldMoments, fold_moments_of
from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.importance_sample import (
    ImportanceSample,
    LeverageSampler,
    StratifiedSampler,
    rows_of,
)
from dsoftmax.objective.reduction import Reduction
from dsoftmax.runtime.cost import PartialSum
from dsoftmax.runtime.reduce import Pass, full_pass
from dsoftmax.runtime.spans import cut_spans
from dsoftmax.solvers.base import FullBatchState, Request
from dsoftmax.training.full_reads import RowReader
from dsoftmax.training.validation import ValidationSet, readable
from dsoftmax.typing import Array


class ModelResult(NamedTuple):
    """What a read finds out about a model: its objective, and its sums over held-out rows."""

    evaluation: Evaluation
    held_out: HeldOutSums


def _result(model: PathModel, points: Array, sums: FoldSums) -> ModelResult:
    objective = model.objective
    return ModelResult(objective.evaluation(points, sums.learned, objective.n_rows), sums.judged)


class SearchReads(RowReader):
    """Evaluates many models a read.

    Attributes
    ----------
    validation : rows that judge the models, if no folds do
    sample : the rows in memory
    partial_sum : of all rows, that the next read goes on with
    """

    validation: ValidationSet | None = None
    sample: ImportanceSample | None = None
    partial_sum: PartialSum | None = None

    @property
    def n_used(self) -> int:
        """How many rows have a positive weight."""
        return int(self._data.class_rows.sum())

    def moments(self, n_folds: int, n_classes: int, *, sampled: bool) -> FoldMoments:
        """Read the moments of each fold; with `sampled`, also keep some rows in memory."""
        moments: FoldMoments = self._read(
            fold_moments_of(n_folds, n_classes, self._source.dtype),
            self.first_sampler() if sampled else None,
        )
        return moments

    def _read(
        self, reduction: Reduction[Any], sampler: StratifiedSampler | LeverageSampler | None
    ) -> Any:
        """Reduce over all rows; with a sampler, also pick the rows to keep in memory."""
        reductions = [reduction] if sampler is None else [reduction, rows_of(sampler)]
        resume_from, self.partial_sum = self.partial_sum, None
        total, *picked = self.read_all(reductions, resume_from=resume_from)
        if picked:
            self.sample = self.sample_of(picked[0])
        return total

    def affordable(self, reads: int, reserve: int) -> bool:
        """Whether the budget has room for some more reads, and for a reserve after them."""
        return self._progress.passes + reads + reserve <= self._params.max_iter

    def evaluate(self, groups: Sequence[Group], *, resample: bool) -> list[list[ModelResult]]:
        """Return the results of the models of each group on all rows.

        With `resample`, also keep other rows in memory: those that matter to the group in the
        middle. A path is ordered by alpha, so its middle stands for all of it best.
        """
        stack, rule = Stack(groups), self._rule(groups[len(groups) // 2]) if resample else None
        sums = self._read(stack.reduction, rule)
        self._progress.steps += 1
        return [
            [
                _result(model, points, of_model)
                for (model, points), of_model in zip(group.asked(), of_group, strict=True)
            ]
            for group, of_group in zip(groups, stack.split(sums), strict=True)
        ]

    def _rule(self, group: Group) -> LeverageSampler | None:
        """Return what picks the rows that matter to a group; None if all are in memory."""
        if self._sample_size >= self.n_rows:
            return None
        request, point = group.request, group.request.points[0]
        other = point if request.resample_at is None else request.resample_at
        ends, objective = np.stack([point, other]), group.model.objective
        seed, size = self._params.seed, self._sample_size
        return self._on_sample(self.sample).leverage_sampler(
            objective, ends, request.root, seed, size
        )

    def evaluate_sample(self, groups: Sequence[Group]) -> list[Evaluation]:
        """Return the objective of each group's model, estimated by the rows in memory."""
        return evaluate_on_sample(self._on_sample(self.sample), groups)

    def judge(
        self, models: Sequence[PathModel], states: Sequence[FullBatchState]
    ) -> list[tuple[float, float]]:
        """Return mean loss and accuracy of each model on the validation set."""
        points = [reached(model, state)[0] for model, state in zip(models, states, strict=True)]
        means: list[tuple[float, float]] = []
        while points:
            requests = [Request(point[None]) for point in points]
            length = block_length(list(map(Group, models, requests)))
            sums = self._judge(models[:length], points[:length])
            means += map(sums.means, range(length))
            models, points = models[length:], points[length:]
        return means

    def _judge(self, models: Sequence[PathModel], points: Sequence[Array]) -> HeldOutSums:
        validation = self.validation
        assert validation is not None, "no folds judge"
        classes, dtype = self._data.classes, self._source.dtype
        source = replace(validation.source, classes=classes, dtype=dtype, max_bad_chunks=0)
        leaves = full_pass(cut_spans(source.chunks, source.row_bytes))
        with readable():
            read = Pass(
                validation.executor, source, leaves, cache_name=validation.key, evict_others=False
            )
            sums, cost = read.reduce(judge_of(models, points))
        self._progress.retries += cost.retries
        return sums
