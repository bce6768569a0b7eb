"""The one loop: ask the solver, reduce over the rows, tell the solver.

Full-batch and mini-batch solvers differ in the rows they ask for, and in nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dsoftmax.data.folds import HoldOut
from dsoftmax.data.source import Source
from dsoftmax.errors import DataError
from dsoftmax.events import Callback, FitStarted
from dsoftmax.objective.objective import Objective, build_objective
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.reduce import UnreadableError
from dsoftmax.runtime.spans import cut_spans
from dsoftmax.solvers import Kind
from dsoftmax.solvers.base import Solver, State, Status
from dsoftmax.solvers.minibatch import MiniBatchState
from dsoftmax.solvers.newton import Newton
from dsoftmax.training.build_solver import build_solver, first_point, solver_kind
from dsoftmax.training.checkpointer import Checkpointer
from dsoftmax.training.evaluator import Evaluator
from dsoftmax.training.label_scan import EncodedData, encode_labels
from dsoftmax.training.params import FitParams
from dsoftmax.training.result import FitResult, fitted_model
from dsoftmax.training.run_state import BestModel, DataStatistics, FitState
from dsoftmax.training.validation import ValidationSet, better, require_labels, status_after
from dsoftmax.typing import Array


def train(
    source: Source,
    params: FitParams,
    executor: Executor,
    callbacks: Sequence[Callback],
    checkpoint: str | os.PathLike[str] | None = None,
    validation: ValidationSet | None = None,
) -> FitResult:
    """Return the model that minimises the objective over the rows of a source.

    Parameters
    ----------
    source : Source
        With a `y`.
    params : Settings
    executor : Executor
        Where it runs; without influence on the result.
    callbacks : sequence of Callback
    checkpoint : path or URL of a folder, optional
        Where to keep the state of the fit, and to go on from if it holds one.
    validation : Apart, optional
        Validation rows that are no part of the source.

    Raises
    ------
    DataError
        If labels, weights or values are not as they must be.
    ChunkError
        If rows cannot be read, and may not be left out.
    OutageError
        If storage or the cluster does not answer any more.
    CheckpointError
        If the checkpoint is damaged, that of another run, or in use by another process.
    """
    with Checkpointer(FitState(), callbacks, checkpoint) as checkpointer:
        return Trainer(source, params, executor, checkpointer, validation).fit()


class Trainer:
    """A fit under way; the parameters are those of `train`."""

    _passes: Evaluator
    _labelled: EncodedData | None = None
    _best: BestModel | None = None

    def __init__(
        self,
        source: Source,
        params: FitParams,
        executor: Executor,
        checkpointer: Checkpointer[FitState],
        validation: ValidationSet | None = None,
    ) -> None:
        self._executor, self._course, self._apart = executor, checkpointer, validation
        self._settings = params = checkpointer.resume(source, params, executor, validation)
        if params.early_stopping and validation is None:
            source = replace(source, hold_out=HoldOut(params.validation_fraction, params.seed))
        self._source = source

    def fit(self) -> FitResult:
        """Run the solver to its end, without chunks that turn out to be unreadable."""
        try:
            self._label(2)
            if self._apart is not None:
                require_labels(self._apart, self._classes)
            kind = solver_kind(self._settings, self._source, len(self._classes))
            self._announce(kind)
            while True:
                try:
                    return self._attempt(kind)
                except UnreadableError as error:
                    self._make_do_without(error, 2)
        except DataError:
            raise  # with other data, this will be another run
        except BaseException:
            self._course.save_if_possible()
            raise

    def _attempt(self, kind: Kind) -> FitResult:
        self._best = self._course.run_state.best
        objective = self._objective(kind, self._found.class_weight)
        # The last pass of the budget evaluates the result.
        rows = self._passes.n_rows
        total = max(1, self._settings.max_iter - 1) * rows
        solver = build_solver(kind, self._settings, objective, rows, total)
        state = self._course.run_state.state
        if state is None:
            start = self._course.run_state.start
            point = (
                self._first_point(objective)
                if start is None
                else objective.coordinates.from_coefficients(*start)
            )
            state = solver.start(point, objective.at_intercept_only, objective.intercept_only)
            self._course.move(replace(self._course.run_state, state=state))
        return self._finish(objective, solver, self._loop(solver, objective, state))

    def _label(self, least_classes: int) -> None:
        """Scan the labels, and find the rows to read, where the cursor stands."""
        source, checkpointer, before = self._source, self._course, self._labelled
        while True:
            try:
                found = encode_labels(
                    source,
                    self._settings,
                    self._executor,
                    checkpointer.excluded,
                    least_classes,
                    before,
                )
                break
            except UnreadableError as error:
                self._leave_out(error)
        checkpointer.labelled(found.digest)
        self._labelled = found
        sums_bytes = 8 * (source.n_features + 1) * len(found.class_weight)
        spans = cut_spans(source.chunks, source.row_bytes, sums_bytes)
        self._passes = Evaluator(
            found,
            self._settings,
            self._executor,
            checkpointer.progress,
            spans,
            checkpointer.excluded,
            checkpointer.note,
            checkpointer.advance,
            self._apart,
        )
        run_state, passes = checkpointer.run_state, self._passes
        passes.place, passes.begun, passes.sample = (
            run_state.place,
            run_state.begun,
            run_state.sample,
        )

    def _make_do_without(self, error: UnreadableError, least_classes: int) -> None:
        self._course.progress.start_over()
        self._leave_out(error)
        self._label(least_classes)

    def _leave_out(self, error: UnreadableError) -> None:
        """Leave chunks out; a solver that is under way has another objective then."""
        before = self._course.run_state
        best = (
            None if before.best is None else before.best.on_other_rows(validation=bool(self._apart))
        )
        run_state = replace(before.without(error.bad_chunks), best=best)
        # A penalty on standardised features is one of the rows that there are.
        mini_batch = isinstance(before.state, MiniBatchState)
        if before.is_under_way and (self._settings.standardize or not mini_batch):
            objective = self._objective_of(before.first, mini_batch=mini_batch)
            coordinates, state = objective.coordinates, run_state.state
            start = None if state is None else coordinates.to_coefficients(_current(state))
            run_state = run_state.restarted(start)
        self._course.quarantine(error.bad_chunks, self._source, run_state)

    def _objective(self, kind: Kind, class_weight: Array) -> Objective:
        """Return the objective on the rows that are left, in the coordinates of the first read."""
        checkpointer, passes = self._course, self._passes
        first = checkpointer.run_state.first
        if first is None:
            moments, whole = passes.moments(
                len(class_weight), mini_batch=kind.mini_batch, sampled=kind is Newton
            )
            first = DataStatistics(moments, whole, class_weight, passes.n_rows)
        objective = self._objective_of(first, mini_batch=kind.mini_batch)
        if checkpointer.run_state.first is None:
            if first.whole and checkpointer.progress.passes == 0:
                passes.end_first(objective)
                self._end_pass(objective, objective.intercept_only, None)
            elif first.whole:
                checkpointer.progress.start_over()  # made again without some rows
            run_state = replace(
                checkpointer.run_state, first=first, sample=passes.sample, best=self._best
            )
            checkpointer.move(run_state, pass_ended=first.whole)
        return objective.without_rows(class_weight, passes.n_rows)

    def _objective_of(self, first: DataStatistics | None, *, mini_batch: bool) -> Objective:
        assert first is not None, "a solver starts after the first read"
        params = self._settings
        return build_objective(
            first.moments,
            class_weight=first.class_weight,
            n_rows=first.n_rows,
            alpha=params.alpha,
            l1_ratio=params.l1_ratio,
            fit_intercept=params.fit_intercept,
            standardize=params.standardize,
            scaled=params.learning_rate is None or not mini_batch,
            dtype=self._source.dtype,
        )

    def _first_point(self, objective: Objective) -> Array:
        return first_point(objective, self._settings, self._classes)

    @property
    def _found(self) -> EncodedData:
        assert self._labelled is not None, "the labels were scanned"
        return self._labelled

    @property
    def _classes(self) -> Array:
        return self._found.classes

    @property
    def _n_validation(self) -> int:
        if self._apart is not None:
            return self._apart.source.n_samples
        held = self._source.hold_out
        return 0 if held is None else round(held.fraction * self._source.n_samples)

    def _announce(self, kind: Kind) -> None:
        source, executor = self._source, self._executor
        self._course.announce(
            FitStarted(
                source.n_samples,
                source.n_features,
                len(self._classes),
                len(source.chunks) - 1,
                source.n_samples * source.row_bytes,
                kind.name,
                self._settings.max_iter,
                executor.slots,
                executor.dashboard,
                self._n_validation,
            )
        )

    def _loop(self, solver: Solver[Any], objective: Objective, state: State) -> State:
        keep_epoch = solver.mini_batch and self._source.max_bad_chunks > 0
        checkpointer, n = self._course, int(self._found.class_rows.sum())
        try:
            while state.status is Status.RUNNING:
                request = solver.ask(state)
                if self._passes.affordable(request):
                    state = solver.tell(state, self._passes.evaluate(objective, request))
                    if self._passes.ended:
                        gap = solver.gap(state)
                        self._end_pass(objective, _reached(state, self._passes), gap)
                        status = status_after(state, gap, self._settings, self._best, n)
                        state = replace(state, status=status)
                else:
                    state = replace(state, status=Status.BUDGET)
                passes, before, done = (
                    self._passes,
                    checkpointer.run_state,
                    checkpointer.progress.passes,
                )
                ended = before.tally.passes < done
                run_state = before.reached(
                    state,
                    passes.place,
                    passes.sample,
                    self._best,
                    epoch_ended=ended and keep_epoch,
                )
                checkpointer.move(run_state, pass_ended=ended)
        except KeyboardInterrupt:
            return replace(state, status=Status.INTERRUPTED)
        return state

    def _end_pass(self, objective: Objective, point: Array, gap: float | None) -> None:
        """See whether validation rows call the model of a pass the best so far, and tell of it."""
        event = self._passes.close(objective, point, gap)
        if event.validation is not None and self._settings.early_stopping:
            coefficients = objective.coordinates.to_coefficients(point)
            self._best = better(self._best, coefficients, event, self._settings.tol)
        self._passes.tell(event)

    def _finish(self, objective: Objective, solver: Solver[Any], state: State) -> FitResult:
        checkpointer, final = self._course, self._course.run_state.final
        if final is None:
            final = fitted_model(self._passes, objective, solver, state, self._best)
            if final.status is not Status.INTERRUPTED:
                # A solver that may go on some day does so from where it was.
                place = self._passes.place
                checkpointer.move(
                    replace(checkpointer.run_state, state=state, place=place, final=final)
                )
            checkpointer.save()
        progress, status = checkpointer.progress, final.status
        progress.end(status.value, status.converged, final.loss, final.gap, final.best_pass)
        return FitResult(
            self._classes,
            final,
            objective.coordinates.shift,
            max(1, progress.passes),
            progress.steps,
            self._settings.seed,
            checkpointer.run_state.quarantined,
            checkpointer.run_state.numerics,
            self._found.digest,
        )


def _reached(state: State, passes: Evaluator) -> Array:
    """Return the model that a pass has led to: the one evaluated, or what its steps made of it."""
    if isinstance(state, MiniBatchState):
        return state.model
    assert passes.seen is not None, "a pass has been read"
    return passes.seen


def _current(state: State) -> Array:
    """Return the point that the solver is at, which for mini-batches is not the best so far."""
    return state.model if isinstance(state, MiniBatchState) else state.point
