"""Many models in one read: their points side by side in the kernel, their sums told apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from operator import add

import numpy as np

from dsoftmax.folds import ALL
from dsoftmax.judging import FoldSums, Judged
from dsoftmax.reduction import Array, Reduction
from dsoftmax.solvers.base import Evaluation, Request
from dsoftmax.subproblem import Subproblem
from dsoftmax.tuning.kernel import partial_folds, partial_judge, partial_stack
from dsoftmax.tuning.members import Member

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


def block_length(requests: Sequence[Request]) -> int:
    """Return how many of the models that ask come into one read."""
    n_rows, n_columns = requests[0].points.shape[1:]
    ends = np.cumsum([len(request.points) for request in requests])
    return max(1, int(np.searchsorted(ends, stack_width(n_rows - 1, n_columns), side="right")))


def judge_of(members: Sequence[Member], points: Sequence[Array]) -> Reduction[Judged]:
    """Return the reduction that judges a point of each member by rows that none has learned."""
    kernel, shift = _kernel(members, [point[None] for point in points])
    return Reduction("evaluate", partial(partial_judge, points=kernel, shift=shift), add)


def _kernel(members: Sequence[Member], points: Sequence[Array]) -> tuple[Array, Array | None]:
    pairs = zip(members, points, strict=True)
    kernel = np.concatenate([member.objective.kernel(own) for member, own in pairs])
    return kernel, members[0].objective.coordinates.shift


class Stack:
    """What some members ask for, as one reduction.

    Where the models of several folds are at the same point, it is evaluated once, for the rows of
    each fold apart.

    Parameters
    ----------
    members, requests : of the same length
    """

    def __init__(self, members: Sequence[Member], requests: Sequence[Request]) -> None:
        self._lengths = [len(request.points) for request in requests]
        self._left_out = np.repeat([member.fold for member in members], self._lengths)
        kernel, self._shift = _kernel(members, [request.points for request in requests])
        new = [True, *(not np.array_equal(*pair) for pair in pairwise(kernel))]
        shares = self._left_out.min() >= 0 and not all(new)
        self._which = np.cumsum(new) - 1 if shares else None
        self._points = kernel[new] if shares else kernel

    @property
    def reduction(self) -> Reduction[FoldSums]:
        """What sums over the rows."""
        points, shift = self._points, self._shift
        chunk = partial(partial_stack, points=points, left_out=self._left_out, shift=shift)
        if self._which is not None:
            chunk = partial(partial_folds, points=points, folds=self._folds, shift=shift)
        return Reduction("partial_gradient", chunk, add)

    @property
    def _folds(self) -> Array:
        return np.unique(self._left_out)

    def split(self, sums: FoldSums) -> Iterator[FoldSums]:
        """Yield the part of the sums that is each request's own."""
        if self._which is not None:
            sums = sums.without(self._folds, self._left_out, self._which)
        start = 0
        for length in self._lengths:
            yield sums.models(slice(start, start := start + length))


def evaluate_on_sample(
    sample: Subproblem, members: Sequence[Member], requests: Sequence[Request]
) -> list[Evaluation]:
    """Return the objectives of some members, as far as the rows in memory tell them."""
    if len(members) == 1 and members[0].fold == ALL:  # as in a fit, which knows float64 too
        return [sample.evaluate(members[0].objective, requests[0])]
    stack = Stack(members, requests)
    sums = sample.reduce(stack.reduction)
    metric = any(request.metric for request in requests)
    roots = _Roots(sample, members) if metric else None
    results = []
    for member, request, own in zip(members, requests, stack.split(sums), strict=True):
        here = member.objective.over(float(own.learned.weight[0]), sample.rows.n_rows)
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

    def __init__(self, sample: Subproblem, members: Sequence[Member]) -> None:
        self._sample = sample
        self._found: dict[int, Array | None] = {}
        self._gram = sample.gram(members[0].objective)
        size = 8 * members[0].objective.intercept_only.shape[0] ** 2
        self._stride = -(-len({member.candidate for member in members}) * size // _ROOT_BYTES)

    def of(self, member: Member) -> Array | None:
        """Return that of a member's candidate, None in coordinates that are its own."""
        if member.whole is None:
            return None
        key = member.candidate // self._stride
        if key not in self._found:
            self._found[key] = self._sample.root(member.whole, self._gram)
        return self._found[key]
