"""The stack of models that one read serves: their points in one kernel, their sums apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise, starmap
from operator import add
from typing import NamedTuple

import numpy as np

from dsoftmax.metrics.fold_loss import FoldSums, HeldOutSums
from dsoftmax.model_selection.memory import first_block, stack_width
from dsoftmax.model_selection.models import PathModel, carried
from dsoftmax.model_selection.sums import partial_folds, partial_judge, partial_stack
from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.reduction import ALL, Combined, Reduction, combine
from dsoftmax.solvers.base import Request
from dsoftmax.training.sample_objective import SampleObjective
from dsoftmax.typing import Array

_ROOT_BYTES = 1 << 28  # of the roots of all candidates, see `_Roots`


class Group(NamedTuple):
    """A model, what it asks for, and the fold models that are evaluated at the same points.

    Attributes
    ----------
    model : PathModel
    request : Request
    fold_models : those of the same candidate, if the model is a full-data model ahead of them
    """

    model: PathModel
    request: Request
    fold_models: tuple[PathModel, ...] = ()

    @property
    def width(self) -> int:
        """How many gradients are summed for it."""
        return len(self.request.points) * (len(self.fold_models) + 1)

    def asked(self) -> Iterator[tuple[PathModel, Array]]:
        """Yield each model, and the points in its coordinates."""
        yield self.model, self.request.points
        for model in self.fold_models:
            points = [carried(point, self.model, model) for point in self.request.points]
            yield model, np.stack(points)


def block_length(groups: Sequence[Group]) -> int:
    """Return how many of the first groups come into one read."""
    height, n_columns = groups[0].request.points.shape[1:]
    return first_block([group.width for group in groups], stack_width(height - 1, n_columns))


def judge_of(models: Sequence[PathModel], points: Sequence[Array]) -> Reduction[HeldOutSums]:
    """Return the reduction that judges one point of each model by all rows of a source."""
    kernel, shift = _kernel(models, [point[None] for point in points])
    return Reduction("evaluate", partial(partial_judge, points=kernel, shift=shift), add)


def _kernel(models: Sequence[PathModel], points: Sequence[Array]) -> tuple[Array, Array | None]:
    pairs = zip(models, points, strict=True)
    kernel = np.concatenate([model.objective.to_kernel(asked) for model, asked in pairs])
    return kernel, models[0].objective.coordinates.shift


class Stack:
    """The points of some groups as one reduction.

    The points of a full-data model are multiplied with the rows once, and its sums are kept for
    each fold apart: those of its fold models are differences of them.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._single = [group for group in groups if not group.fold_models]
        self._shared = [group for group in groups if group.fold_models]
        models = [model for group in self._shared for model in group.fold_models]
        self._folds = np.unique([model.fold for model in models])

    @property
    def reduction(self) -> Reduction[Combined]:
        """What sums over the rows."""
        return combine(*self._reductions())

    def _reductions(self) -> Iterator[Reduction[FoldSums]]:
        if self._single:
            folds = [group.model.fold for group in self._single]
            left_out = np.repeat(folds, _lengths(self._single))
            yield _reduction(partial(partial_stack, left_out=left_out), self._single)
        if self._shared:
            yield _reduction(partial(partial_folds, folds=self._folds), self._shared)

    def split(self, sums: Combined) -> list[list[FoldSums]]:
        """Return the sums of each group: of its model first, then of its fold models."""
        single, shared = _slices(self._single), _slices(self._shared)
        return [
            self._of_shared(group, next(shared), sums.parts[-1])
            if group.fold_models
            else [sums.parts[0].models(next(single))]
            for group in self._groups
        ]

    def _of_shared(self, group: Group, points: slice, sums: FoldSums) -> list[FoldSums]:
        n_points, folds = sum(_lengths(self._shared)), self._folds.tolist()
        left_out = (folds.index(model.fold) for model in group.fold_models)
        return [sums.left_out(fold, points, n_points) for fold in (ALL, *left_out)]


def _reduction(chunk: Callable[..., FoldSums], groups: Sequence[Group]) -> Reduction[FoldSums]:
    models, requests, _ = zip(*groups, strict=True)
    points, shift = _kernel(models, [request.points for request in requests])
    return Reduction("partial_gradient", partial(chunk, points=points, shift=shift), add)


def _lengths(groups: Sequence[Group]) -> list[int]:
    return [len(group.request.points) for group in groups]


def _slices(groups: Sequence[Group]) -> Iterator[slice]:
    """Yield where the points of each group are among those of all."""
    return starmap(slice, pairwise([0, *accumulate(_lengths(groups))]))


def evaluate_on_sample(sample: SampleObjective, groups: Sequence[Group]) -> list[Evaluation]:
    """Return the objective of each group's model, estimated by the rows in memory."""
    model, request, _ = groups[0]
    if len(groups) == 1 and model.fold == ALL:  # as in a fit, which can compute in float64 too
        return [sample.evaluate(model.objective, request)]
    stack = Stack(groups)
    sums = stack.split(sample.reduce(stack.reduction))
    metric = any(group.request.metric for group in groups)
    roots = _Roots(sample, [group.model for group in groups]) if metric else None
    n_rows, results = sample.rows.n_rows, []
    for (model, request, _), (own,) in zip(groups, sums, strict=True):
        objective = model.objective.rescaled(float(own.learned.weight[0]), n_rows)
        result = objective.evaluation(request.points, own.learned, n_rows)
        result = replace(result, share=sample.rows.share)
        if request.metric and roots is not None:
            result = replace(result, root=roots.of(model))
        results.append(result)
    return results


class _Roots:
    """The root of the metric of the sample for each candidate: the penalty is a part of it.

    If the roots of all candidates would take more than 256 MiB, neighbours on the path share one.
    """

    def __init__(self, sample: SampleObjective, models: Sequence[PathModel]) -> None:
        self._sample = sample
        self._roots: dict[int, Array | None] = {}
        self._gram = sample.gram(models[0].objective)
        size = 8 * models[0].objective.intercept_only.shape[0] ** 2
        self._stride = -(-len({model.candidate for model in models}) * size // _ROOT_BYTES)

    def of(self, model: PathModel) -> Array | None:
        """Return the root for a model; None if it has coordinates of its own."""
        if model.full_objective is None:
            return None
        key = model.candidate // self._stride
        if key not in self._roots:
            self._roots[key] = self._sample.root(model.full_objective, self._gram)
        return self._roots[key]
