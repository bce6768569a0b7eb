"""The rounds of a search: what the active models ask for is read together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dsoftmax.events import ValidationScores
from dsoftmax.model_selection.memory import are_few, n_reads, stack_width
from dsoftmax.model_selection.models import PathModel, with_full_effort
from dsoftmax.model_selection.path import Candidates, Options
from dsoftmax.model_selection.racing import TRUSTED_RATIO, Racing
from dsoftmax.model_selection.reads import ModelResult, SearchReads
from dsoftmax.model_selection.stack import Group, block_length
from dsoftmax.model_selection.state import SearchState, judged_so_far
from dsoftmax.model_selection.warmstart import PILOT_PASSES, Roles, followed, piloted
from dsoftmax.solvers.base import FullBatchState, Request, RowSelection, Status
from dsoftmax.solvers.newton_state import NewtonState
from dsoftmax.training.checkpointer import Checkpointer
from dsoftmax.training.params import FitParams
from dsoftmax.training.progress import Progress
from dsoftmax.training.stopping import status_after

_FEW = 0.25  # of the rows: a validation set of no more is cheap to judge by once more


@dataclass
class Rounds:
    """Runs the solvers of all models until none of them runs.

    In each round, the active models search in memory, and are then evaluated on all rows, in as
    many reads as they need. At its end, candidates that cannot win any more are eliminated.

    Attributes
    ----------
    models : of all candidates and folds, then the full-data models, and last the winner on all
        rows, once it is known
    candidates, options, params : of the search
    reads, checkpointer : of the run
    """

    models: list[PathModel]
    candidates: Candidates
    options: Options
    params: FitParams
    reads: SearchReads
    checkpointer: Checkpointer[SearchState]

    def __post_init__(self) -> None:
        n_models, validation = self._state.n_models, self.reads.validation
        n_folds = n_models // len(self.candidates.pairs)
        n_validation = None if validation is None else validation.source.n_samples
        self._roles = Roles(self.models, n_models, n_folds)
        self._racing = Racing(
            tuple(self.models), n_folds, self.options.select, self.reads.n_used, n_validation
        )

    def run(self) -> bool:
        """Run the models, unless the user interrupts.

        Returns
        -------
        whether the user interrupted; the search can go on from the state that was reached
        """
        try:
            self.checkpointer.progress.emit(judged_so_far(self._state, self.candidates))
            while self._roles.active(self._at_round()):
                self._round()
            self._move(self._judged(self._state))
        except KeyboardInterrupt:
            return True
        return False

    @property
    def _state(self) -> SearchState:
        return self.checkpointer.run_state

    def _move(self, state: SearchState, *, pass_ended: bool = False) -> None:
        self.checkpointer.commit(state, pass_ended=pass_ended)

    def _at_round(self) -> SearchState:
        """Return the state in the current round, or at the start of the next one."""
        state = self._state
        if state.n_active is None:
            if not state.is_spent:
                state = self._roles.with_fold_models_started(self._after_pilot(state))
            self._move(replace(state, n_active=len(self._roles.active(state))))
        return self._state

    def _round(self) -> None:
        self._choose_solvers()
        if not self._state.waiting:
            self._search_in_memory()
            state = self._eliminated_by_sample(self._state)
            waiting = self._roles.active(state)
            # A round is read for all active models or for none, so that the budget cannot favour
            # the first of them.
            reads = n_reads([group.width for group in self._groups(state, waiting)], self._width)
            if reads and not self.reads.affordable(reads, self._reserve(state)):
                self._move(replace(self._stopped_by_budget(state), n_active=None))
                return
            n_active = state.n_active if waiting else None
            self._move(replace(state, waiting=waiting, resampled=False, n_active=n_active))
        while self._state.waiting:
            self._read()

    def _choose_solvers(self) -> None:
        """Give few models the effort that a single one takes: it costs little more."""
        n_active, n_columns = self._state.n_active or 0, self._state.states[0].point.shape[1]
        self._solvers = [
            with_full_effort(model, n_active) if are_few(n_active, n_columns) else model.solver
            for model in self.models
        ]

    def _groups(self, state: SearchState, active: Sequence[int]) -> list[Group]:
        """Return what active models ask for, with the fold models that follow them."""
        return [
            Group(
                self.models[index],
                self._solvers[index].ask(state.states[index]),
                tuple(self.models[i] for i in self._roles.fold_models(state, index)),
            )
            for index in active
        ]

    @property
    def _width(self) -> int:
        """How many points one read evaluates."""
        height, n_columns = self._state.states[0].point.shape
        return stack_width(height - 1, n_columns)

    def _search_in_memory(self) -> None:
        """Let the active models go on, as far as they ask for rows in memory alone."""
        active = self._roles.active(self._state)
        while asking := self._asking_for_sample(active):
            indexes, groups = zip(*asking, strict=True)
            length, states = block_length(groups), list(self._state.states)
            results = self.reads.evaluate_sample(groups[:length])
            for index, result in zip(indexes[:length], results, strict=True):
                states[index] = self._solvers[index].tell(states[index], result)
            self._move(replace(self._state, states=tuple(states)))

    def _asking_for_sample(self, active: Sequence[int]) -> list[tuple[int, Group]]:
        states = self._state.states
        running = [index for index in active if states[index].status is Status.RUNNING]
        requests = [(index, self._solvers[index].ask(states[index])) for index in running]
        return [
            (index, Group(self.models[index], request))
            for index, request in requests
            if request.rows is RowSelection.SAMPLE
        ]

    def _reserve(self, state: SearchState) -> int:
        """Return how many passes are left to the fold models, or to the refit of the winner."""
        if self._roles.full_data_active(state):
            return self.params.max_iter // 2
        refit = self.options.refit and self.reads.validation is None and state.chosen is None
        return self.params.max_iter // 4 if refit else 0

    def _stopped_by_budget(self, state: SearchState) -> SearchState:
        """Return the state in which the budget stops the full-data models, or else all models."""
        if not self._roles.full_data_active(state):
            return self._judged(state).spent()
        return replace(self._roles.without_full_data(state, state.ahead), before_budget=state)

    def _read(self) -> None:
        """Evaluate as many of the waiting models on all rows as one read can."""
        state = self._state
        groups = self._groups(state, state.waiting)
        length = block_length(groups)
        groups, active, waiting = groups[:length], state.waiting[:length], state.waiting[length:]
        # After the budget has stopped full-data models, a larger budget goes on from before that,
        # with the sample that there was.
        may_resample = state.chosen is None and state.before_budget is None and not state.resampled
        resample = may_resample and any(group.request.resample_at is not None for group in groups)
        results = self.reads.evaluate(groups, resample=resample)
        sample, before = self.reads.sample, state.sample
        resampled = state.resampled or sample is not before
        state = replace(state, waiting=waiting, resampled=resampled, sample=sample)
        for index, group, (result, *of_folds) in zip(active, groups, results, strict=True):
            state = self._told(state, index, group.request, result)
            state = self._followed(state, index, group.request, of_folds)
        if not state.waiting:
            state = self._judged(state)
            state = self._racing.raced(state) if self.options.eliminates else state
            state = replace(state, n_active=None)
        report(state, self.models, self.candidates, self.checkpointer.progress)
        self._move(state, pass_ended=True)

    def _told(
        self, state: SearchState, index: int, request: Request, result: ModelResult
    ) -> SearchState:
        """Return the state after the evaluation of an active model."""
        before = state.states[index]
        evaluation = replace(result.evaluation, resampled=state.resampled)
        after = self._solvers[index].tell(before, evaluation)
        gap = self.models[index].solver.gap(after)
        status = status_after(after, gap, self.params, None, self.reads.n_rows)
        after = replace(after, status=status)
        if index in state.one_step:
            if self._racing.is_short(state, index) and _gained(before, after):
                after = replace(after, status=Status.CONVERGED)
            one_step = tuple(other for other in state.one_step if other != index)
            state = replace(state, one_step=one_step)
        state = state.with_state(index, after)
        best = _index_of_point(request, after)
        if index < state.n_models and best is not None:
            return state.with_scores(index, _scores(result, best))
        return state if self.reads.validation is None else state.without_scores([index])

    def _followed(
        self, state: SearchState, index: int, request: Request, results: Sequence[ModelResult]
    ) -> SearchState:
        """Return the state in which fold models are where their full-data model has gone."""
        full, ahead = self.models[index], state.states[index]
        best = _index_of_point(request, ahead)
        if best is None:
            return state
        for fold_model, result in zip(self._roles.fold_models(state, index), results, strict=True):
            model, before = self.models[fold_model], state.states[fold_model]
            after = followed(model, before, full, ahead, result.evaluation.at(best))
            state = state.with_state(fold_model, after)
            state = state.with_scores(fold_model, _scores(result, best))
        return state

    def _after_pilot(self, state: SearchState) -> SearchState:
        """Return the state in which the candidates start where the pilot is, once it is done."""
        if state.pilot is None:
            return state
        pilot, ahead = self.models[state.pilot], state.states[state.pilot]
        assert isinstance(ahead, NewtonState)
        if ahead.status is Status.RUNNING and ahead.n_passes < PILOT_PASSES:
            return state
        moved = []
        for index in (other for other in state.running if other != state.pilot):
            before = state.states[index]
            after = piloted(self.models[index], before, pilot, ahead)
            moved += [index] if after is not before else []
            state = state.with_state(index, after)
        return self._judged(replace(state, pilot=None).without_scores(moved))

    def _eliminated_by_sample(self, state: SearchState) -> SearchState:
        """Return the state without candidates that the sample alone eliminates.

        If many are left, the best of them so far becomes the pilot.
        """
        if not (self.options.eliminates and _none_evaluated(state) and self._is_cheap_to_judge):
            return state
        state = self._racing.at_minima_of_sample(state).without_scores(range(state.n_models))
        state = self._racing.raced(self._judged(state))
        if are_few(len(state.running), state.states[0].point.shape[1]):
            return replace(state, pilot=None)
        return replace(state, pilot=min(state.running, key=lambda index: state.scores[index, 0]))

    @property
    def _is_cheap_to_judge(self) -> bool:
        validation = self.reads.validation
        return validation is not None and validation.source.n_samples <= _FEW * self.reads.n_rows

    def _judged(self, state: SearchState) -> SearchState:
        """Return the state with scores on the validation set, where they are not known yet."""
        unknown = np.flatnonzero(np.isnan(state.scores[:, 0])).tolist()
        if self.reads.validation is None or not unknown:
            return state
        models = [self.models[index] for index in unknown]
        states = [state.states[index] for index in unknown]
        return state.with_scores(unknown, self.reads.judge(models, states))


def _none_evaluated(state: SearchState) -> bool:
    """Whether no model was evaluated on all rows yet, but only on the sample."""
    return all(isinstance(each, NewtonState) and not each.n_passes for each in state.states)


def _index_of_point(request: Request, state: FullBatchState) -> int | None:
    """Return which of the points that were asked for a model has gone to, if any."""
    found = (i for i, point in enumerate(request.points) if np.array_equal(point, state.point))
    return next(found, None)


def _gained(before: FullBatchState, after: FullBatchState) -> bool:
    """Whether a step was taken, and gained about what the solver had expected."""
    if not isinstance(after, NewtonState) or np.array_equal(before.point, after.point):
        return False
    return after.status is Status.RUNNING and after.gain_ratio >= TRUSTED_RATIO


def _scores(result: ModelResult, point: int) -> tuple[float, float, float]:
    return *result.held_out.means(point), float(result.evaluation.accuracy[point])


def report(
    state: SearchState, models: Sequence[PathModel], candidates: Candidates, progress: Progress
) -> None:
    """Tell the callbacks of a pass: how the best candidate stands, and how all of them do."""
    event = judged_so_far(state, candidates)
    best = [i for i in range(state.n_models) if models[i].candidate == event.best]
    if state.chosen is not None:
        best = [len(state.states) - 1]
    loss, norm = (
        float(np.mean([getattr(state.states[index], name) for index in best]))
        for name in ("value", "gradient_norm")
    )
    gaps = [models[index].solver.gap(state.states[index]) for index in best]
    gap = max((known for known in gaps if known is not None), default=None)
    accuracy = state.by_fold(state.scores[:, 2], candidates)[:, event.best].mean()
    progress.record(loss, norm, float(accuracy))
    scores = event.losses[event.best], event.accuracies[event.best]
    progress.emit(event)
    validation = None if np.isnan(scores[0]) else ValidationScores(*scores)
    progress.emit(progress.end_pass(validation, gap))
