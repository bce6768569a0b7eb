"""A search, from its labels to the winner."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dsoftmax.data.retry import BadChunk
from dsoftmax.data.source import Source
from dsoftmax.errors import DataError
from dsoftmax.events import Callback, FitStarted
from dsoftmax.model_selection.candidates import Candidates, by_fold, candidates, chosen
from dsoftmax.model_selection.folding import folded, require_folds
from dsoftmax.model_selection.memory import model_size, n_states, state_bytes
from dsoftmax.model_selection.models import (
    PathModel,
    build_members,
    has_moved,
    mean_of,
    reached,
    score_of_intercepts,
    started,
)
from dsoftmax.model_selection.moments import FoldMoments
from dsoftmax.model_selection.options import Options
from dsoftmax.model_selection.reads import Scans
from dsoftmax.model_selection.rounds import Drive
from dsoftmax.model_selection.state import SearchState
from dsoftmax.objective.reduction import ALL
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.memory import require_states_fit
from dsoftmax.runtime.reduce import UnreadableError, full_pass
from dsoftmax.runtime.spans import Span, cut_spans
from dsoftmax.solvers import Kind
from dsoftmax.solvers.base import FullBatchState, Status
from dsoftmax.training.checkpointer import Checkpointer
from dsoftmax.training.choose_solver import choose_solver
from dsoftmax.training.label_scan import EncodedData, encode_labels
from dsoftmax.training.params import FitParams
from dsoftmax.training.result import FitResult
from dsoftmax.training.run_state import FittedModel
from dsoftmax.training.validation import ValidationSet, require_labels
from dsoftmax.typing import Array


def search(
    source: Source,
    params: FitParams,
    options: Options,
    executor: Executor,
    callbacks: Sequence[Callback],
    checkpoint: str | os.PathLike[str] | None = None,
    validation: ValidationSet | None = None,
) -> SearchResult:
    """Return the best of many penalties, by rows that a model does not learn from.

    Parameters
    ----------
    source, executor, callbacks, checkpoint : as for `train`
    params : of each fit, but for its penalty
    options : Options
    validation : rows that judge the models, if there are no folds

    Raises
    ------
    DataError, ChunkError, OutageError, CheckpointError, MemoryBoundError
        As `train`; the last also if this process cannot hold the states of all models.
    """
    with Checkpointer(SearchState(), callbacks, checkpoint) as checkpointer:
        return CrossValidationSearch(
            source, params, options, executor, checkpointer, validation
        ).run()


class CrossValidationSearch:
    """A search under way; the parameters are those of `search`."""

    _labelled: EncodedData | None = None
    _scans: Scans
    _interrupted = False

    def __init__(
        self,
        source: Source,
        params: FitParams,
        options: Options,
        executor: Executor,
        checkpointer: Checkpointer[SearchState],
        validation: ValidationSet | None,
    ) -> None:
        self._source, self._options, self._executor = source, options, executor
        self._course, self._apart = checkpointer, validation
        self._settings = checkpointer.resume(source, params, executor, validation, options.as_text)

    def run(self) -> SearchResult:
        """Search to the end, without chunks that turn out to be unreadable."""
        try:
            self._label()
            if self._apart is not None:
                require_labels(self._apart, self._found.classes)
            kind = choose_solver(self._settings, self._source, len(self._found.classes))
            self._require_room(kind)
            self._announce(kind)
            while True:
                try:
                    return self._attempt(kind)
                except UnreadableError as error:
                    self._leave_out(error.bad_chunks)
                    self._label()
        except DataError:
            raise  # with other data, this will be another search
        except BaseException:
            self._course.save_if_possible()
            raise

    def _label(self) -> None:
        """Scan the labels, and find folds and rows to read, where the cursor stands."""
        checkpointer = self._course
        while True:
            try:
                self._labelled, spans = self._label_once()
                break
            except UnreadableError as error:
                self._leave_out(error.bad_chunks)
        checkpointer.set_labels(self._found.digest)
        self._scans = Scans(
            self._found,
            self._settings,
            self._executor,
            checkpointer.progress,
            spans,
            checkpointer.run_state.excluded,
            checkpointer.on_task_done,
        )
        self._scans.partial_sum, self._scans.sample = (
            checkpointer.run_state.partial_sum,
            checkpointer.run_state.sample,
        )

    def _label_once(self) -> tuple[EncodedData, tuple[Span, ...]]:
        source, executor, excluded = self._source, self._executor, self._course.run_state.excluded
        found = encode_labels(source, self._settings, executor, excluded, 2, self._labelled)
        sums_bytes = 8 * (source.n_features + 1) * len(found.classes)
        spans = cut_spans(source.chunks, source.row_bytes, sums_bytes)
        if self._apart is None:
            leaves, n_folds = full_pass(spans, excluded), self._options.n_folds
            found = folded(found, n_folds, self._settings.seed, leaves, executor)
        return found, spans

    def _leave_out(self, bad_chunks: tuple[BadChunk, ...]) -> None:
        """Leave chunks out, and start anew: every model has other rows then."""
        before, checkpointer = self._course.run_state, self._course
        checkpointer.progress.start_over()
        quarantined = tuple(sorted((*before.quarantined, *bad_chunks)))
        run_state = SearchState(quarantined=quarantined, numerics=before.numerics)
        checkpointer.quarantine(bad_chunks, self._source, run_state)

    @property
    def _found(self) -> EncodedData:
        assert self._labelled is not None, "the labels were scanned"
        return self._labelled

    def _announce(self, kind: Kind) -> None:
        source, executor, validation = self._source, self._executor, self._apart
        self._course.announce(
            FitStarted(
                source.n_samples,
                source.n_features,
                len(self._found.classes),
                len(source.chunks) - 1,
                source.n_samples * source.row_bytes,
                kind.name,
                self._settings.max_iter,
                executor.slots,
                executor.dashboard,
                source.n_samples if validation is None else validation.source.n_samples,
                self._n_models,
            )
        )

    @property
    def _n_folds(self) -> int:
        """How many there are; 0 where other rows judge."""
        folds = self._found.source.folds
        return 0 if folds is None else folds.n_folds

    @property
    def _n_models(self) -> int:
        return self._options.n_candidates * (self._n_folds or 1)

    def _require_room(self, kind: Kind) -> None:
        size = model_size(self._source.n_features, len(self._found.classes))
        each = state_bytes(kind, size, self._options.n_candidates, self._n_folds)
        require_states_fit(self._n_models, each)

    def _attempt(self, kind: Kind) -> SearchResult:
        first, folds = self._first_read(kind), self._found.source.folds
        if folds is not None:
            require_folds(first, folds, self._found.classes)
        build = partial(
            build_members,
            first=first,
            n_rows=self._scans.n_rows,
            params=self._settings,
            kind=kind,
            dtype=self._source.dtype,
        )
        (like,), options = build([(1.0, 0.0)], [ALL]), self._options
        tried = candidates(options.alphas, options.l1_ratios, like.objective)
        numbers = [ALL] if folds is None else list(range(folds.n_folds))
        held = n_states(kind, len(tried.pairs), self._n_folds)
        members = build(tried.pairs, numbers, n_states=held)
        leads = held > len(members)
        leaders = build(tried.pairs, [ALL], n_states=held) if leads else []
        self._start(members, leaders)
        if self._course.run_state.chosen is None:
            self._drive([*members, *leaders], tried)
        winner = chosen(self._scores(len(numbers)), tried, options.select)
        if folds is not None and options.refit and not self._interrupted:
            (last,) = build([tried.pairs[winner]], [ALL])
            self._start_last(last, members, winner)
            self._drive([*members, *leaders, last], tried)
            leaders = [*leaders, last]
        return self._finish([*members, *leaders], tried, winner)

    def _first_read(self, kind: Kind) -> FoldMoments:
        checkpointer = self._course
        if checkpointer.run_state.first is not None:
            return checkpointer.run_state.first
        n_classes = len(self._found.classes)
        first = self._scans.moments(self._n_folds, n_classes, sampled=kind.needs_sample)
        checkpointer.progress.end_first()
        run_state = replace(checkpointer.run_state, first=first, sample=self._scans.sample)
        checkpointer.commit(run_state, pass_ended=True)
        return first

    def _start(self, members: list[PathModel], leaders: list[PathModel]) -> None:
        """Start all members from the intercepts alone, unless they were, with leaders ahead."""
        run_state = self._course.run_state
        if run_state.states:
            return
        assert run_state.first is not None, "it was read"
        states = tuple(
            started(member, member.objective.intercept_only) for member in (*members, *leaders)
        )
        scores = np.array([score_of_intercepts(member, run_state.first) for member in members])
        led = tuple(leader.candidate for leader in leaders)
        self._course.commit(replace(run_state, states=states, scores=scores, led=led))

    def _start_last(self, last: PathModel, members: list[PathModel], winner: int) -> None:
        """Start the winner on all rows, unless it has been.

        It goes on from its leader, or else from the mean of its models.
        """
        run_state, n_tried = self._course.run_state, len(members)
        if run_state.chosen is not None:
            return
        if len(run_state.states) > n_tried:
            state = run_state.states[n_tried + winner]
            if not state.status.converged or state.status is Status.RULED_OUT:
                state = replace(state, status=Status.RUNNING)
        else:
            own = [index for index, member in enumerate(members) if member.candidate == winner]
            mean = mean_of([members[index] for index in own], [run_state.states[i] for i in own])
            state = started(last, last.objective.coordinates.from_coefficients(*mean))
        states = (*run_state.states, state)
        self._course.commit(replace(run_state, states=states, chosen=winner, n_heads=None))

    def _drive(self, members: list[PathModel], tried: Candidates) -> None:
        drive = Drive(
            members, tried, self._options, self._settings, self._scans, self._course, self._apart
        )
        self._interrupted |= drive.run()

    def _scores(self, n_folds: int) -> Array:
        scores = self._course.run_state.scores
        if self._options.scoring == "accuracy":
            return by_fold(scores[:, 1], n_folds)
        return by_fold(-scores[:, 0], n_folds)

    def _finish(self, members: list[PathModel], tried: Candidates, winner: int) -> SearchResult:
        checkpointer = self._course
        run_state, progress, n_tried = (
            checkpointer.run_state,
            checkpointer.progress,
            len(checkpointer.run_state.scores),
        )
        n_folds = n_tried // len(tried.pairs)
        states = run_state.states[:n_tried]
        points, values = zip(*map(reached, members[:n_tried], states), strict=True)
        found = [
            np.vstack(member.objective.coefficients(point)).T
            for member, point in zip(members, points, strict=False)
        ]
        final = self._final(members, winner)
        if not self._interrupted:
            checkpointer.commit(replace(run_state, done=True))
        checkpointer.save()
        progress.end(final)
        fit = FitResult(
            self._found.classes,
            final,
            members[0].objective.coordinates.shift,
            max(1, progress.passes),
            progress.steps,
            self._settings.seed,
            run_state.quarantined,
            checkpointer.run_state.numerics,
            self._found.digest,
            tuple(progress.history),
        )
        coefs = np.stack(found)
        coefs = coefs.reshape(-1, n_folds, *coefs.shape[1:]).swapaxes(0, 1)
        return SearchResult(
            fit,
            tried,
            winner,
            self._scores(n_folds),
            coefs,
            by_fold(np.array(values), n_folds),
            by_fold(np.array([_is_at_minimum(state) for state in states]), n_folds),
        )

    def _final(self, members: list[PathModel], winner: int) -> FittedModel:
        """Return the winner on all rows; or else the mean of its models."""
        run_state = self._course.run_state
        n_tried = len(run_state.scores)
        own = [i for i, member in enumerate(members[:n_tried]) if member.candidate == winner]
        if run_state.chosen is not None and has_moved(members[-1], run_state.states[-1]):
            own = [len(run_state.states) - 1]
        states = [run_state.states[index] for index in own]
        coef, intercept = mean_of([members[index] for index in own], states)
        status = self._status(states)
        gap = members[own[0]].solver.gap(states[0]) if len(own) == 1 else None
        return FittedModel(
            coef, intercept, float(np.mean([state.value for state in states])), gap, status, None
        )

    def _status(self, winners: Sequence[FullBatchState]) -> Status:
        """Return why the search has ended early, or else why models of the winner have."""
        if self._interrupted:
            return Status.INTERRUPTED
        if self._course.run_state.is_spent:
            return Status.BUDGET
        statuses = [state.status for state in winners]
        return max(statuses, key=lambda status: not status.converged)


def _is_at_minimum(state: FullBatchState) -> bool:
    return state.status.converged and state.status is not Status.RULED_OUT


@dataclass(frozen=True)
class SearchResult:
    """What a search returns.

    Attributes
    ----------
    fit : of the winner
    candidates : Candidates
    chosen : which of them has won
    scores : (n_folds, n_candidates), the higher the better
    coefs : (n_folds, n_candidates, n_columns, n_features + 1), in units of the data
    objectives : (n_folds, n_candidates), penalised, on the rows that each model learns from
    converged : (n_folds, n_candidates), whether a model was followed to its minimum
    """

    fit: FitResult
    candidates: Candidates
    chosen: int
    scores: Array
    coefs: Array
    objectives: Array
    converged: Array
