"""How a search reads its rows: one read serves a stack of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dsoftmax.judging import FoldSums, Judged
from dsoftmax.reads import Reads
from dsoftmax.reduction import Array, Reduction, several
from dsoftmax.runtime.executors import ThreadExecutor
from dsoftmax.runtime.reduce import full_pass, reduce
from dsoftmax.runtime.spans import cut_spans
from dsoftmax.solvers.base import Evaluation, Request
from dsoftmax.subproblem import Subproblem
from dsoftmax.subsample import rows_of
from dsoftmax.tuning.members import Member
from dsoftmax.tuning.moments import FoldMoments, fold_moments_of
from dsoftmax.tuning.stack import Stack, evaluate_on_sample, judge_of
from dsoftmax.validation import Apart, readable


class Scans(Reads):
    """Evaluates what many models ask for."""

    @property
    def n_used(self) -> int:
        """How many rows count."""
        return int(self._labelled.class_rows.sum())

    def moments(self, n_folds: int, n_classes: int, *, sampled: bool) -> FoldMoments:
        """Read the moments of each fold; with `sampled`, some rows are kept in memory."""
        reduction: Reduction[Any] = fold_moments_of(n_folds, n_classes, self._source.dtype)
        if sampled:
            reduction = several(reduction, rows_of(self.first_rule()))
        sums: FoldMoments = self.read_all(reduction, picks=sampled)[0]
        return sums

    def affordable(self, reads: int, reserve: int) -> bool:
        """Whether the budget has room for some more reads, and for a reserve after them."""
        return self._ledger.passes + reads + reserve <= self._settings.max_iter

    def evaluate(
        self, members: Sequence[Member], requests: Sequence[Request], *, renew: bool
    ) -> list[tuple[Evaluation, Judged]]:
        """Return the objectives of some models on all rows, and what rows held out say of them.

        With `renew`, rows are kept in memory that matter to the one in the middle.
        """
        rule = None
        if renew and self._sample_size < self.n_rows:
            middle = len(members) // 2
            objective, request = members[middle].objective, requests[middle]
            here = request.points[0]
            ends = np.stack([here, here if request.renew is None else request.renew])
            rule = self._subproblem.rule(
                objective, ends, request.root, self._settings.seed, self._sample_size
            )
        stack = Stack(members, requests)
        reduction: Reduction[Any] = stack.reduction
        if rule is not None:
            reduction = several(reduction, rows_of(rule))
        sums: FoldSums = self.read_all(reduction, picks=rule is not None)[0]
        self._ledger.steps += 1
        results = []
        for member, request, own in zip(members, requests, stack.split(sums), strict=True):
            objective = member.objective
            found = objective.evaluation(request.points, own.learned, objective.n_rows)
            results.append((replace(found, renewed=rule is not None), own.judged))
        return results

    def evaluate_sample(
        self, members: Sequence[Member], requests: Sequence[Request]
    ) -> list[Evaluation]:
        """Return the objectives of some models on the rows that are kept in memory."""
        return evaluate_on_sample(self._subproblem, members, requests)

    def judge(self, apart: Apart, members: Sequence[Member], points: Sequence[Array]) -> Judged:
        """Return what rows that are apart say of a point of each model."""
        classes = self._labelled.classes
        source = replace(apart.source, classes=classes, dtype=self._source.dtype, most_bad=0)
        leaves = full_pass(cut_spans(source.chunks, source.row_bytes))
        with readable():
            sums, spent = reduce(
                apart.executor, source, judge_of(members, points), leaves, keep=apart.key,
                gives_way=True,
            )  # fmt: skip
        self._ledger.retries += spent.work.retries
        return sums

    @property
    def _subproblem(self) -> Subproblem:
        assert self.sample is not None, "the first read has picked some rows"
        return Subproblem(self.sample, self._source.dtype, ThreadExecutor())
