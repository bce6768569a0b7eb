"""The models of a search: a candidate's penalty, and the rows that it learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dsoftmax.folds import ALL
from dsoftmax.objective import Objective, build_objective
from dsoftmax.scaling import Moments
from dsoftmax.settings import Settings
from dsoftmax.solvers import Kind
from dsoftmax.solvers.base import Solver
from dsoftmax.solvers.newton import Newton
from dsoftmax.solving import build_solver
from dsoftmax.tuning.moments import FoldMoments

_PAIRS_BYTES = 1 << 29  # of what all searches of a stack remember
_LEAST_PAIRS, _MOST_PAIRS = 10, 100


@dataclass(frozen=True)
class Member:
    """One model of the stack.

    Attributes
    ----------
    candidate : index of its penalty among the candidates
    fold : that it does not learn from, or ALL
    objective : on the rows that it learns from
    whole : the objective of the same penalty on all rows, in the same coordinates
    solver : Solver
    """

    candidate: int
    fold: int
    objective: Objective
    whole: Objective
    solver: Solver[Any]


def _objectives(
    first: FoldMoments, n_rows: int, settings: Settings, dtype: np.dtype[np.floating], fold: int
) -> tuple[Objective, Objective]:
    """Return the objective on the rows without a fold, and on all, in the same coordinates.

    So what is known of the features of the sample serves the models of all folds.
    """

    def build(moments: Moments, like: Objective | None) -> Objective:
        return build_objective(
            moments, class_weight=moments.class_weight, n_rows=n_rows, alpha=settings.alpha,
            l1_ratio=settings.l1_ratio, fit_intercept=settings.fit_intercept,
            standardize=settings.standardize, scaled=True, dtype=dtype,
            coordinates=None if like is None else like.coordinates,
        )  # fmt: skip

    whole = build(first.without(ALL), None)
    return (whole if fold == ALL else build(first.without(fold), whole)), whole


def build_members(
    pairs: Sequence[tuple[float, float]], folds: Sequence[int], first: FoldMoments, n_rows: int,
    settings: Settings, kind: Kind, dtype: np.dtype[np.floating],
) -> list[Member]:  # fmt: skip
    """Return a model for each pair of alpha and l1_ratio, and each fold that is left out.

    Those of a pair are next to each other.
    """
    members = []
    for index, (alpha, l1_ratio) in enumerate(pairs):
        for fold in folds:
            own = replace(settings, alpha=alpha, l1_ratio=l1_ratio)
            objectives = _objectives(first, n_rows, own, dtype, fold)
            solver = build_solver(kind, own, objectives[0], n_rows, n_rows)
            members.append(Member(index, fold, *objectives, solver))
    return [replace(member, solver=_modest(member, len(members))) for member in members]


def _modest(member: Member, n_members: int) -> Solver[Any]:
    """Return a member's solver that leaves the others their share of memory and time.

    One point each: a second one, which is cheap for one model, doubles what many take.
    """
    solver = member.solver
    if not isinstance(solver, Newton) or n_members == 1:
        return solver
    pairs = _PAIRS_BYTES // (16 * member.objective.intercept_only.size * n_members)
    return replace(solver, rivals=False, memory=min(max(pairs, _LEAST_PAIRS), _MOST_PAIRS))
