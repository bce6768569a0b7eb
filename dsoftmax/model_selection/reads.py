"""How a search reads its rows: one read serves a stack of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from dsoftmax.metrics.fold_loss import FoldSums, HeldOutSums
from dsoftmax.model_selection.models import PathModel
from dsoftmax.model_selection.moments import FoldMoments, fold_moments_of
from dsoftmax.model_selection.stack import (
    Group,
    Stack,
    evaluate_on_sample,
    judge_folds_of,
    judge_of,
)
from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.importance_sample import LeverageSampler, rows_of
from dsoftmax.objective.reduction import Reduction, combine
from dsoftmax.runtime.reduce import Pass, full_pass
from dsoftmax.runtime.spans import cut_spans
from dsoftmax.runtime.threads import ThreadExecutor
from dsoftmax.solvers.base import Request
from dsoftmax.training.full_reads import RowReader
from dsoftmax.training.sample_objective import SampleObjective
from dsoftmax.training.validation import ValidationSet, readable
from dsoftmax.typing import Array


class Told(NamedTuple):
    """What a model is told of its points: its objective, and what rows held out say."""

    result: Evaluation
    judged: HeldOutSums


class Scans(RowReader):
    """Evaluates what many models ask for."""

    @property
    def n_used(self) -> int:
        """How many rows count."""
        return int(self._labelled.class_rows.sum())

    def moments(self, n_folds: int, n_classes: int, *, sampled: bool) -> FoldMoments:
        """Read the moments of each fold; with `sampled`, some rows are kept in memory."""
        reduction: Reduction[Any] = fold_moments_of(n_folds, n_classes, self._source.dtype)
        if sampled:
            reduction = combine(reduction, rows_of(self.first_rule()))
        sums: FoldMoments = self.read_all(reduction, picks=sampled)[0]
        return sums

    def affordable(self, reads: int, reserve: int) -> bool:
        """Whether the budget has room for some more reads, and for a reserve after them."""
        return self._ledger.passes + reads + reserve <= self._settings.max_iter

    def evaluate(
        self,
        groups: Sequence[Group],
        *,
        resample_at: bool,
        beside: Sequence[tuple[PathModel, Array]] = (),
    ) -> tuple[list[list[Told]], list[tuple[float, float]]]:
        """Return the objectives of the models of some groups on all rows, and what judges them.

        With `resample_at`, rows are kept in memory that matter to the group in the middle.

        Returns
        -------
        what each model of each group is told, and loss and accuracy of points of members beside
        those, on the rows held out
        """
        reductions: list[Reduction[Any]] = []
        stack, rule = Stack(groups), self._rule(groups[len(groups) // 2]) if resample_at else None
        if groups:
            reductions.append(stack.reduction)
        if rule is not None:
            reductions = [combine(*reductions, rows_of(rule))]
        if beside:
            members, points = zip(*beside, strict=True)
            reductions.append(judge_folds_of(members, points))
        first, rest = self.read_all(reductions[0], reductions[1:], picks=rule is not None)
        self._ledger.steps += 1
        judged = (rest[0] if groups else first) if beside else None
        told = [
            [
                _result(member, points, found, resampled=rule is not None)
                for (member, points), found in zip(group.asked(), own, strict=True)
            ]
            for group, own in zip(groups, stack.split(first) if groups else [], strict=True)
        ]
        return told, [judged.means(place) for place in range(len(beside))] if judged else []

    def _rule(self, group: Group) -> LeverageSampler | None:
        """Return what picks the rows that matter to a group; None if all are in memory."""
        if self._sample_size >= self.n_rows:
            return None
        request, objective = group.request, group.member.objective
        here = request.points[0]
        ends = np.stack([here, here if request.resample_at is None else request.resample_at])
        return self._subproblem.rule(
            objective, ends, request.root, self._settings.seed, self._sample_size
        )

    def evaluate_sample(
        self, members: Sequence[PathModel], requests: Sequence[Request]
    ) -> list[Evaluation]:
        """Return the objectives of some models on the rows that are kept in memory."""
        return evaluate_on_sample(self._subproblem, members, requests)

    def judge(
        self, validation: ValidationSet, members: Sequence[PathModel], points: Sequence[Array]
    ) -> HeldOutSums:
        """Return what rows that are apart say of a point of each model."""
        classes = self._labelled.classes
        source = replace(
            validation.source, classes=classes, dtype=self._source.dtype, max_bad_chunks=0
        )
        leaves = full_pass(cut_spans(source.chunks, source.row_bytes))
        with readable():
            read = Pass(
                validation.executor, source, leaves, cache_name=validation.key, evict_others=False
            )
            sums, spent = read.reduce(judge_of(members, points))
        self._ledger.retries += spent.retries
        return sums

    @property
    def _subproblem(self) -> SampleObjective:
        assert self.sample is not None, "the first read has picked some rows"
        return SampleObjective(self.sample, self._source.dtype, ThreadExecutor())


def _result(member: PathModel, points: Array, sums: FoldSums, *, resampled: bool) -> Told:
    objective = member.objective
    found = objective.evaluation(points, sums.learned, objective.n_rows)
    return Told(replace(found, resampled=resampled), sums.judged)
