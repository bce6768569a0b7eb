"""How a fit reads its rows: requests become reductions, and what they cost is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dsoftmax.epochs import first_epoch, warn_of_small_cache
from dsoftmax.events import PassEnded
from dsoftmax.gram import gram_of, metric_leaves, metric_of
from dsoftmax.labelling import Labelled
from dsoftmax.ledger import Ledger
from dsoftmax.metrics import MetricSums, held_out_metrics_of
from dsoftmax.objective import Objective, intercept_only, moments_of
from dsoftmax.reads import Reads, Watch
from dsoftmax.reduction import Array, Reduction, several
from dsoftmax.runtime.executors import Executor, ThreadExecutor
from dsoftmax.runtime.reduce import Begun, reduce
from dsoftmax.runtime.spans import Span
from dsoftmax.runtime.worker import Outcome
from dsoftmax.sampling import Leaf
from dsoftmax.scaling import Moments
from dsoftmax.settings import Settings
from dsoftmax.solvers.base import Evaluation, Request, Rows
from dsoftmax.subproblem import Subproblem
from dsoftmax.subsample import rows_of
from dsoftmax.validation import Apart, scored, sums_apart

Note = Callable[[Outcome], None]


@dataclass(frozen=True)
class Place:
    """Where a fit is within its passes.

    Attributes
    ----------
    epoch, step : of the mini-batch that comes next
    separated : whether some point was seen that fits every row
    judged : what the rows held out have said in the pass under way
    """

    epoch: int = 0
    step: int = 0
    separated: bool = False
    judged: MetricSums | None = None


class Passes(Reads):
    """Evaluates requests over the rows of a source, within the budget.

    Parameters
    ----------
    labelled : the source that reads codes, and what is known of its classes
    settings, executor, ledger : of the fit
    spans : of the source
    holes : rows that are left out
    note : told of each task of a mini-batch
    watch : told of each task of a pass over all rows
    apart : validation rows that are no part of the source

    Attributes
    ----------
    n_rows, sample, begun : as of Reads
    place : Place
    seen : the last point that was evaluated, of rivals the best
    ended : whether a pass has been read to its end, and not been told of
    """

    def __init__(
        self, labelled: Labelled, settings: Settings, executor: Executor, ledger: Ledger,
        spans: tuple[Span, ...], holes: Sequence[Span], note: Note, watch: Watch,
        apart: Apart | None = None,
    ) -> None:  # fmt: skip
        super().__init__(labelled, settings, executor, ledger, spans, holes, watch)
        self._threads, self._note, self._apart = ThreadExecutor(), note, apart
        self._first_epoch = first_epoch(self._source, settings, self._parts, self.n_rows)
        self.seen: Array | None = None
        self.ended = False
        self.place = Place()

    @property
    def place(self) -> Place:
        """Where the mini-batches are."""
        return Place(self._epoch.number, self._next_step, self.separated, self._judged)

    @place.setter
    def place(self, place: Place) -> None:
        self._epoch = self._first_epoch.at(place.epoch)
        self._next_step, self.separated = place.step, place.separated
        self._judged = place.judged

    @property
    def only_batches(self) -> bool:
        """Whether the last that was read were mini-batches."""
        return self._epoch.number > 0 or self._next_step > 0

    def affordable(self, request: Request) -> bool:
        """Whether the budget has room: for an epoch and the evaluation of its result, say."""
        if request.rows is Rows.SAMPLE:
            return True
        left = self._settings.max_iter - self._ledger.passes
        if request.rows is Rows.ALL or self._epoch.number == 0:
            return left >= 1
        return self._next_step > 0 or left >= 2

    def moments(self, n_classes: int, *, mini_batch: bool, sampled: bool) -> tuple[Moments, bool]:
        """Read the moments: of all rows, or of those that the first mini-batches decode anyway.

        With `sampled`, some rows are kept in memory on the way.

        Returns
        -------
        Moments
        bool
            Whether they are of all rows; they then tell the objective at the intercept-only
            model exactly, so that this pass is also the first evaluation.
        """
        if mini_batch:
            warn_of_small_cache(self._executor, self._epoch, self._source)
        if mini_batch and not self._settings.standardize:
            moments = self._reduce_first(
                moments_of(n_classes, self._source.dtype), self._epoch.first_spans()
            )
            if moments.weight > 0:  # else the rows that come first count for nothing
                return moments, False
        weight, fit_intercept = self._labelled.class_weight, self._settings.fit_intercept
        point = intercept_only(self._source.n_features, weight / weight.sum(), fit_intercept)
        judges = self._judges(point[None].astype(self._source.dtype), None)
        reduction: Reduction[Any] = moments_of(n_classes, self._source.dtype)
        if sampled:
            reduction = several(reduction, rows_of(self.first_rule()))
        sums, judged = self.read_all(reduction, judges, picks=sampled)
        self._judged = judged[0] if judged else None
        return sums, True

    def _judges(self, kernel: Array, shift: Array | None) -> list[Reduction[MetricSums]]:
        """Return what evaluates a kernel's points on the rows that are held out, if some are."""
        points = () if self._source.hold_out is None else kernel
        return [held_out_metrics_of(point, shift) for point in points]

    @property
    def _subproblem(self) -> Subproblem:
        assert self.sample is not None, "the first read has picked some rows"
        return Subproblem(self.sample, self._source.dtype, self._threads)

    def _reduce_first(self, reduction: Reduction[Any], leaves: Sequence[Leaf]) -> Any:
        """Reduce over rows that the first mini-batches decode anyway."""
        sums, spent = reduce(
            self._executor, self._source, reduction, leaves, keep=self._key, batch=True,
            release=False, watch=self._watch_batch,
        )  # fmt: skip
        self._ledger.spend(spent)
        return sums

    def end_first(self, objective: Objective) -> None:
        """Count the moments of all rows as the evaluation of the intercept-only model."""
        self._see(objective, objective.intercept_only[None], objective.known)
        self.ended = True

    def close(self, objective: Objective, point: Array, gap: float | None = None) -> PassEnded:
        """Return what to tell of the pass that was read, with what validation rows say of a point.

        Parameters
        ----------
        objective : Objective
        point : that the pass has led to
        gap : what the solver estimates, if it does
        """
        sums, classes = self._judged, self._labelled.classes
        if self._apart is not None:
            sums, spent = sums_apart(self._apart, objective, point, classes, self._watch_batch)
            self._ledger.retries += spent.work.retries
        self._judged, self.ended = None, False
        return self._ledger.end_pass(None if sums is None else scored(sums, classes), gap)

    def tell(self, event: PassEnded) -> None:
        """Tell every callback of a pass."""
        self._ledger.emit(event)

    def evaluate(self, objective: Objective, request: Request) -> Evaluation:
        """Return the objective at the points of a request, on the rows that it asks for."""
        if request.rows is Rows.SAMPLE:
            return self._subproblem.evaluate(objective, request)
        if request.rows is Rows.ALL:
            return self._evaluate_all(objective, request)
        leaves = self._epoch.batch(self._next_step)
        if request.rows is Rows.SAME_BATCH:
            result = self._evaluate_batch(objective, request, leaves, ends=False)
            return replace(result, metric=self._metric(objective)) if request.metric else result
        ends = self._next_step + 1 == self._epoch.n_steps
        result = self._evaluate_batch(objective, request, leaves, ends=ends)
        self._ledger.steps += 1
        self._see(objective, request.points, result)
        self._ledger.end_step()
        self._next_step += 1
        if ends:
            self._end_epoch()
        return result

    def _evaluate_all(self, objective: Objective, request: Request) -> Evaluation:
        points, rule = request.points, None
        if request.renew is not None and self._sample_size < self.n_rows:
            ends = np.stack([points[0], request.renew])
            rule = self._subproblem.rule(
                objective, ends, request.root, self._settings.seed, self._sample_size
            )
        judges = self._judges(objective.kernel(points), objective.coordinates.shift)
        reduction: Reduction[Any] = objective.reduction(points)
        if rule is not None:
            reduction = objective.reduction_and_rows(points, rule)
        sums, judged = self.read_all(
            reduction, judges, picks=rule is not None, keep=not self.only_batches
        )
        if not self.only_batches:
            self._ledger.steps += 1
        result = objective.evaluation(points, sums, self.n_rows)
        if self._settings.alpha == 0:
            # All rows right, and not by ties, whose loss would be log 2 or more.
            fits = (sums.correct == sums.weight) & (sums.loss < np.log(2) * sums.weight)
            self.separated |= bool(fits.any())
        best = self._see(objective, points, result, rivals=request.rivals)
        self._judged, self.ended = judged[best] if judged else None, True
        return replace(result, renewed=rule is not None)

    def _watch_batch(self, outcome: Outcome, _: Begun) -> None:
        self._note(outcome)

    def _evaluate_batch(
        self, objective: Objective, request: Request, leaves: Sequence[Leaf], *, ends: bool
    ) -> Evaluation:
        rows = sum(piece.rows for leaf in leaves for piece in leaf)
        points, final = request.points, request.rows is Rows.BATCH
        # Points to probe the curvature with are no models to judge.
        kernel = objective.kernel(points)[: 1 if final else 0]
        judges = self._judges(kernel, objective.coordinates.shift)
        sums, spent = reduce(
            self._executor, self._source, several(objective.reduction(points), *judges), leaves,
            keep=self._key, batch=True, release=final, watch=self._watch_batch,
            following=self._epoch.batch(self._next_step + 1),
        )  # fmt: skip
        self._ledger.spend(spent)
        first, *judged = sums.parts
        for own in judged:
            self._judged = own if self._judged is None else self._judged + own
        return objective.evaluation(points, first, rows, epoch_ended=ends)

    def _metric(self, objective: Objective) -> Array | None:
        """Return about the Hessian of a class, from the rows that come first."""
        leaves = metric_leaves(self._epoch, self._source.n_features)
        if not leaves:
            return None
        gram: Array = self._reduce_first(gram_of(objective), leaves)
        return metric_of(objective, gram, leaves)

    def _see(
        self, objective: Objective, points: Array, result: Evaluation, *, rivals: bool = False
    ) -> int:
        """Take note of the point that counts; return which it is."""
        seen = [objective.whole(point, result, index) for index, point in enumerate(points)]
        best = int(np.argmin([loss for loss, _ in seen])) if rivals else 0
        self._ledger.see(*seen[best], result)
        self.seen = points[best]
        return best

    def _end_epoch(self) -> None:
        self.ended, self._epoch, self._next_step = True, self._epoch.next(), 0
        self._executor.refresh()
