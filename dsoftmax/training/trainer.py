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
from dsoftmax.events import Callback, FitStarted, PassEnded
from dsoftmax.metrics.metrics import MetricSums
from dsoftmax.objective.linear_model import LinearModel
from dsoftmax.objective.objective import Objective
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.reduce import UnreadableError
from dsoftmax.runtime.spans import cut_spans
from dsoftmax.solvers import Kind
from dsoftmax.solvers.base import Solver, Status
from dsoftmax.solvers.minibatch import MiniBatchState
from dsoftmax.training.checkpointer import Checkpointer
from dsoftmax.training.demand import affordable_solver
from dsoftmax.training.evaluator import Evaluator
from dsoftmax.training.label_scan import EncodedData, encode_labels
from dsoftmax.training.params import FitParams
from dsoftmax.training.result import FitResult, final_model
from dsoftmax.training.run_state import BestModel, DataStatistics, FitState
from dsoftmax.training.start import at_start, first_point, first_state
from dsoftmax.training.stopping import best_after, status_after
from dsoftmax.training.validation import ValidationSet, require_labels
from dsoftmax.typing import Array


class Trainer:
    """One fit: it minimises the objective over the rows of a source.

    Parameters
    ----------
    source : rows to learn from, with a `y`
    params : FitParams
    executor : where it runs, without influence on the result
    callbacks : told of every event
    checkpoint : path or URL of a folder: where to write the state, and to go on from
    validation : validation rows that are not part of the source
    """

    _evaluator: Evaluator
    _data: EncodedData
    _least_classes = 2

    def __init__(
        self,
        source: Source,
        params: FitParams,
        executor: Executor,
        callbacks: Sequence[Callback],
        checkpoint: str | os.PathLike[str] | None = None,
        validation: ValidationSet | None = None,
    ) -> None:
        self._source, self._params = source, params
        self._executor, self._validation = executor, validation
        self._checkpointer = Checkpointer(FitState(), callbacks, checkpoint)
        self._progress = self._checkpointer.progress

    def fit(self) -> FitResult:
        """Run the solver to its end, without chunks that turn out to be unreadable.

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
        with self._checkpointer as checkpointer:
            self._resume()
            try:
                return self._fit()
            except DataError:
                raise  # with other data, this will be another run
            except BaseException as error:
                checkpointer.save_if_possible(error)
                raise

    def _resume(self) -> None:
        """Go on from the checkpoint, if there is one, and hold out rows for early stopping."""
        source, validation = self._source, self._validation
        params = self._checkpointer.resume(source, self._params, self._executor, validation)
        if params.early_stopping and validation is None:
            source = replace(source, hold_out=HoldOut(params.validation_fraction, params.seed))
        self._source, self._params = source, params

    def _fit(self) -> FitResult:
        self._scan_labels(None)
        if self._validation is not None and not self._checkpointer.run_state.finished:
            require_labels(self._validation, self._data.classes)
        n_classes, location = len(self._data.classes), self._executor.location
        kind = affordable_solver(self._params, self._source, n_classes, location)
        self._announce(kind)
        while True:
            try:
                return self._attempt(kind)
            except UnreadableError as error:
                self._start_over_without(error)

    def _attempt(self, kind: Kind) -> FitResult:
        checkpointer = self._checkpointer
        objective = self._objective(kind, self._data.class_weight)
        # The last pass of the budget evaluates the result.
        n_rows = self._evaluator.n_rows
        total_rows = max(1, self._params.max_iter - 1) * n_rows
        solver = kind.from_params(self._params.for_solver(objective, n_rows, total_rows))
        if checkpointer.run_state.solver_state is None:
            statistics = checkpointer.run_state.statistics
            solver_state = first_state(solver, objective, self._start, statistics)
            checkpointer.commit(replace(checkpointer.run_state, solver_state=solver_state))
        return self._finish(objective, solver, self._loop(solver, objective))

    def _scan_labels(self, before: EncodedData | None) -> None:
        """Scan the labels and find the rows to read, again when chunks were left out since."""
        source, checkpointer = self._source, self._checkpointer
        while True:
            excluded = checkpointer.run_state.excluded
            try:
                self._data = checkpointer.labels(source) or encode_labels(
                    source, self._params, self._executor, excluded, self._least_classes, before
                )
                break
            except UnreadableError as error:
                self._leave_out(error)
        checkpointer.set_labels(self._data.digest, source.n_features, self._data.classes)
        sums_bytes = 8 * (source.n_features + 1) * len(self._data.class_weight)
        self._evaluator = Evaluator(
            self._data,
            self._params,
            self._executor,
            self._progress,
            cut_spans(source.chunks, source.row_bytes, sums_bytes),
            checkpointer.run_state.excluded,
            checkpointer.on_task_done,
            self._validation,
        )

    def _start_over_without(self, error: UnreadableError) -> None:
        """Leave unreadable chunks out of the fit, and scan the labels of the other rows."""
        self._progress.start_over()
        self._leave_out(error)
        self._scan_labels(self._data)

    def _leave_out(self, error: UnreadableError) -> None:
        """Leave chunks out; a solver that is under way has another objective then."""
        before = self._checkpointer.run_state
        best = before.best
        if best is not None:
            best = best.on_other_rows(keep_loss=self._validation is not None)
        after = replace(before.without(error.bad_chunks), best=best)
        # A penalty on standardised features depends on which rows there are.
        mini_batch = isinstance(before.solver_state, MiniBatchState)
        if before.is_under_way and (self._params.standardize or not mini_batch):
            objective = self._objective_of(before.statistics, mini_batch=mini_batch)
            state = after.solver_state
            to_coefficients = objective.coordinates.to_coefficients
            after = after.restarted(None if state is None else to_coefficients(state.model))
        self._checkpointer.quarantine(error.bad_chunks, self._source, after)

    def _objective(self, kind: Kind, class_weight: Array) -> Objective:
        """Return the objective on the rows that are left, in the coordinates of the first read."""
        state, evaluator = self._checkpointer.run_state, self._evaluator
        if state.statistics is not None:
            objective = self._objective_of(state.statistics, mini_batch=kind.mini_batch)
            return objective.without_rows(class_weight, evaluator.n_rows)
        start = self._start
        statistics, sample, held_out = evaluator.read_statistics(kind, class_weight, state)
        objective, best = self._objective_of(statistics, mini_batch=kind.mini_batch), state.best
        if statistics.complete and self._progress.passes == 0:
            known, point = at_start(objective, start, statistics), first_point(objective, start)
            if known is None:
                known, point = objective.at_intercept_only, objective.intercept_only
                held_out = None if statistics.at_start is not None else held_out
            self._progress.record(
                *objective.value_and_norm(point, known), float(known.accuracy[0]), known.share
            )
            event, best = self._validated(objective, point, held_out, None, best)
            self._progress.emit(event)
        elif statistics.complete:
            self._progress.start_over()  # made again without some rows
        state = replace(state, statistics=statistics, sample=sample, best=best)
        self._checkpointer.commit(state, pass_ended=statistics.complete)
        return objective.without_rows(class_weight, evaluator.n_rows)

    @property
    def _start(self) -> LinearModel | None:
        """The model that the solver starts from; None for the intercepts alone."""
        if (restart := self._checkpointer.run_state.start) is None:
            return self._evaluator.start
        return LinearModel(self._data.classes, *restart)

    def _objective_of(self, statistics: DataStatistics | None, *, mini_batch: bool) -> Objective:
        assert statistics is not None, "a solver starts after the first read"
        return statistics.objective(self._params, self._source.dtype, mini_batch=mini_batch)

    def _announce(self, kind: Kind) -> None:
        source, executor, held = self._source, self._executor, self._source.hold_out
        n_validation = 0 if held is None else round(held.fraction * source.n_samples)
        if self._validation is not None:
            n_validation = self._validation.source.n_samples
        self._checkpointer.announce(
            FitStarted(
                source.n_samples,
                source.n_features,
                len(self._data.classes),
                len(source.chunks) - 1,
                source.n_samples * source.row_bytes,
                kind.name,
                self._params.max_iter,
                executor.slots,
                executor.dashboard,
                n_validation,
            )
        )

    def _loop(self, solver: Solver[Any], objective: Objective) -> FitState:
        """Run the solver until it ends; return the state at its end."""
        state, checkpointer = self._checkpointer.run_state, self._checkpointer
        try:
            while state.is_under_way:
                solver_state = state.solver_state
                assert solver_state is not None, "it is under way"
                request = solver.ask(solver_state)
                if not self._evaluator.affordable(request, state.position):
                    state = replace(state, solver_state=replace(solver_state, status=Status.BUDGET))
                    checkpointer.commit(state)
                    break
                evaluated = self._evaluator.evaluate(objective, request, state)
                state = replace(
                    state,
                    solver_state=solver.tell(solver_state, evaluated.result),
                    position=evaluated.position,
                    sample=evaluated.sample,
                )
                if evaluated.pass_ended:
                    event, state = self._end_pass(solver, objective, evaluated.point, state)
                    self._progress.emit(event)
                checkpointer.commit(state, pass_ended=evaluated.pass_ended)
                state = checkpointer.run_state
        except KeyboardInterrupt:
            assert state.solver_state is not None
            interrupted = replace(state.solver_state, status=Status.INTERRUPTED)
            return replace(state, solver_state=interrupted)
        return state

    def _end_pass(
        self, solver: Solver[Any], objective: Objective, point: Array, state: FitState
    ) -> tuple[PassEnded, FitState]:
        """Return the event of a pass that led to a point, and the state after it."""
        solver_state = state.solver_state
        assert solver_state is not None
        gap = solver.gap(solver_state)
        point = solver_state.model if solver.mini_batch else point
        event, best = self._validated(objective, point, state.position.held_out, gap, state.best)
        n_rows = int(self._data.class_rows.sum())
        status = status_after(solver_state, gap, self._params, best, n_rows)
        state = replace(
            state,
            solver_state=replace(solver_state, status=status),
            position=replace(state.position, held_out=None),
            best=best,
        )
        if solver.mini_batch and self._source.max_bad_chunks > 0:
            assert state.solver_state is not None
            state = replace(state, last_epoch=(state.solver_state, state.position))
        return event, state

    def _validated(
        self,
        objective: Objective,
        point: Array,
        held_out: MetricSums | None,
        gap: float | None,
        best: BestModel | None,
    ) -> tuple[PassEnded, BestModel | None]:
        """Return the event of a pass, and the best model so far by its validation loss."""
        event = self._evaluator.end_pass(objective, point, held_out, gap)
        if event.validation is not None and self._params.early_stopping:
            coefficients = objective.coordinates.to_coefficients(point)
            best = best_after(best, coefficients, event, self._params.tol)
        return event, best

    def _finish(self, objective: Objective, solver: Solver[Any], state: FitState) -> FitResult:
        checkpointer, model = self._checkpointer, self._checkpointer.run_state.final
        if model is None:
            model, position = final_model(
                self._evaluator, self._progress, objective, solver, state, self._start
            )
            if model.status is not Status.INTERRUPTED:
                # A larger budget lets the solver go on from where it was.
                checkpointer.commit(replace(state, position=position, final=model))
            checkpointer.save()
        self._progress.end(model)
        return FitResult(
            self._data.classes,
            model,
            objective.coordinates.shift,
            max(1, self._progress.passes),
            self._progress.steps,
            self._params.seed,
            checkpointer.run_state.quarantined,
            checkpointer.run_state.numerics,
            self._data.digest,
            tuple(self._progress.history),
        )
