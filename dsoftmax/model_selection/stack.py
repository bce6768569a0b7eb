"""Many models in one read: their points side by side in the kernel, their sums told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise, starmap
from operator import add
from typing import NamedTuple

import numpy as np

from dsoftmax.metrics.fold_loss import FoldSums, HeldOutSums
from dsoftmax.model_selection.kernel import (
    partial_folds,
    partial_judge,
    partial_judge_folds,
    partial_stack,
)
from dsoftmax.model_selection.models import PathModel, carried
from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.reduction import ALL, Combined, Reduction, combine
from dsoftmax.solvers.base import Request
from dsoftmax.training.sample_objective import SampleObjective
from dsoftmax.typing import Array

_STACK_BYTES = 1 << 24  # of the gradients of a stack
_ROOT_BYTES = 1 << 28  # of what makes the features of a sample uncorrelated


def stack_width(n_features: int, n_columns: int) -> int:
    """Return how many points one read serves: as many as have gradients of 16 MiB together.

    Examples
    --------
    >>> stack_width(784, 10), stack_width(2048, 1000)
    (267, 1)
    """
    return max(1, _STACK_BYTES // (8 * (n_features + 1) * n_columns))


class Group(NamedTuple):
    """A model, what it asks for, and those that follow it: its own without one fold each."""

    member: PathModel
    request: Request
    followers: tuple[PathModel, ...] = ()

    @property
    def width(self) -> int:
        """How many gradients tell what it asks for."""
        return len(self.request.points) * (len(self.followers) + 1)

    def asked(self) -> Iterator[tuple[PathModel, Array]]:
        """Yield each model, and the points in its coordinates."""
        yield self.member, self.request.points
        for follower in self.followers:
            points = [carried(point, self.member, follower) for point in self.request.points]
            yield follower, np.stack(points)


def block_length(groups: Sequence[Group]) -> int:
    """Return how many of the groups come into one read."""
    n_rows, n_columns = groups[0].request.points.shape[1:]
    ends = np.cumsum([group.width for group in groups])
    return max(1, int(np.searchsorted(ends, stack_width(n_rows - 1, n_columns), side="right")))


def judge_of(members: Sequence[PathModel], points: Sequence[Array]) -> Reduction[HeldOutSums]:
    """Return the reduction that judges a point of each member by rows that none has learned."""
    kernel, shift = _kernel(members, [point[None] for point in points])
    return Reduction("evaluate", partial(partial_judge, points=kernel, shift=shift), add)


def judge_folds_of(members: Sequence[PathModel], points: Sequence[Array]) -> Reduction[HeldOutSums]:
    """Return the reduction that judges a point of each member by the fold that it leaves out."""
    kernel, shift = _kernel(members, [point[None] for point in points])
    left_out = np.array([member.fold for member in members])
    chunk = partial(partial_judge_folds, points=kernel, left_out=left_out, shift=shift)
    return Reduction("partial_gradient", chunk, add)


def _kernel(members: Sequence[PathModel], points: Sequence[Array]) -> tuple[Array, Array | None]:
    pairs = zip(members, points, strict=True)
    kernel = np.concatenate([member.objective.to_kernel(own) for member, own in pairs])
    return kernel, members[0].objective.coordinates.shift


class Stack:
    """What some groups ask for, as one reduction.

    What followers are to know is evaluated once, for the rows of each fold apart.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._alone = [group for group in groups if not group.followers]
        self._led = [group for group in groups if group.followers]
        self._folds = np.unique([own.fold for group in self._led for own in group.followers])

    @property
    def reduction(self) -> Reduction[Combined]:
        """What sums over the rows."""
        return combine(*self._reductions())

    def _reductions(self) -> Iterator[Reduction[FoldSums]]:
        if self._alone:
            folds = [group.member.fold for group in self._alone]
            left_out = np.repeat(folds, _lengths(self._alone))
            yield self._reduction(partial(partial_stack, left_out=left_out), self._alone)
        if self._led:
            yield self._reduction(partial(partial_folds, folds=self._folds), self._led)

    def _reduction(
        self, chunk: Callable[..., FoldSums], groups: Sequence[Group]
    ) -> Reduction[FoldSums]:
        members, requests, _ = zip(*groups, strict=True)
        points, shift = _kernel(members, [request.points for request in requests])
        return Reduction("partial_gradient", partial(chunk, points=points, shift=shift), add)

    def split(self, sums: Combined) -> list[list[FoldSums]]:
        """Return what the sums tell the models of each group: its own, and then its followers'."""
        alone, led = _slices(self._alone), _slices(self._led)
        return [
            self._of_led(group, next(led), sums.parts[-1])
            if group.followers
            else [sums.parts[0].models(next(alone))]
            for group in self._groups
        ]

    def _of_led(self, group: Group, own: slice, sums: FoldSums) -> list[FoldSums]:
        n_points = sum(_lengths(self._led))
        folds = self._folds.tolist()
        left_out = (folds.index(follower.fold) for follower in group.followers)
        return [sums.left_out(fold, own, n_points) for fold in (ALL, *left_out)]


def _lengths(groups: Sequence[Group]) -> list[int]:
    return [len(group.request.points) for group in groups]


def _slices(groups: Sequence[Group]) -> Iterator[slice]:
    """Yield where the points of each group are among those of all."""
    return starmap(slice, pairwise([0, *accumulate(_lengths(groups))]))


def evaluate_on_sample(
    sample: SampleObjective, members: Sequence[PathModel], requests: Sequence[Request]
) -> list[Evaluation]:
    """Return the objectives of some members, as far as the rows in memory tell them."""
    if len(members) == 1 and members[0].fold == ALL:  # as in a fit, which knows float64 too
        return [sample.evaluate(members[0].objective, requests[0])]
    stack = Stack(list(map(Group, members, requests)))
    sums = sample.reduce(stack.reduction)
    metric = any(request.metric for request in requests)
    roots = _Roots(sample, members) if metric else None
    results = []
    for member, request, (own,) in zip(members, requests, stack.split(sums), strict=True):
        here = member.objective.rescaled(float(own.learned.weight[0]), sample.rows.n_rows)
        result = here.evaluation(request.points, own.learned, sample.rows.n_rows)
        result = replace(result, share=sample.rows.share)
        if request.metric and roots is not None:
            result = replace(result, root=roots.of(member))
        results.append(result)
    return results


class _Roots:
    """What makes the features of the sample uncorrelated, for the penalty of each candidate.

    Where those of all candidates would take more than 256 MiB, neighbours on a path share one.
    """

    def __init__(self, sample: SampleObjective, members: Sequence[PathModel]) -> None:
        self._sample = sample
        self._found: dict[int, Array | None] = {}
        self._gram = sample.gram(members[0].objective)
        size = 8 * members[0].objective.intercept_only.shape[0] ** 2
        self._stride = -(-len({member.candidate for member in members}) * size // _ROOT_BYTES)

    def of(self, member: PathModel) -> Array | None:
        """Return that of a member's candidate, None in coordinates that are its own."""
        if member.whole is None:
            return None
        key = member.candidate // self._stride
        if key not in self._found:
            self._found[key] = self._sample.root(member.whole, self._gram)
        return self._found[key]
