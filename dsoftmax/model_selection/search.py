"""A search, from its labels to the winner."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dsoftmax.data.retry import BadChunk
from dsoftmax.data.source import Source
from dsoftmax.data.store_changes import require_unchanged
from dsoftmax.errors import DataError
from dsoftmax.events import Callback, FitStarted
from dsoftmax.model_selection.folding import folded, require_folds
from dsoftmax.model_selection.memory import n_full_data, n_states, require_search_fits
from dsoftmax.model_selection.models import (
    PathModel,
    build_models,
    mean_of,
    reached,
    score_of_intercepts,
    started,
)
from dsoftmax.model_selection.path import Candidates, Options, candidates, chosen
from dsoftmax.model_selection.reads import SearchReads
from dsoftmax.model_selection.rounds import Rounds
from dsoftmax.model_selection.state import SearchState, fitted_winner
from dsoftmax.model_selection.sums import FoldMoments
from dsoftmax.objective.reduction import ALL
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.reduce import UnreadableError, full_pass
from dsoftmax.runtime.spans import cut_spans
from dsoftmax.solvers import Kind
from dsoftmax.solvers.base import Status
from dsoftmax.training.checkpointer import Checkpointer
from dsoftmax.training.choose_solver import choose_solver
from dsoftmax.training.label_scan import EncodedData, encode_labels
from dsoftmax.training.params import FitParams
from dsoftmax.training.result import FitResult
from dsoftmax.training.validation import ValidationSet, require_labels
from dsoftmax.typing import Array


@dataclass(frozen=True)
class SearchResult:
    """What a search returns.

    Attributes
    ----------
    fit : of the winner
    candidates : Candidates
    chosen : index of the candidate that has won
    scores : (n_folds, n_candidates), the higher the better
    coefs : (n_folds, n_candidates, n_columns, n_features + 1), in units of the data
    objectives : (n_folds, n_candidates), penalised, on the rows that each model learns from
    converged : (n_folds, n_candidates), whether each model was followed to its minimum
    """

    fit: FitResult
    candidates: Candidates
    chosen: int
    scores: Array
    coefs: Array
    objectives: Array
    converged: Array


class CrossValidationSearch:
    """The search for the best of many penalties, by rows that the models do not learn from.

    Parameters
    ----------
    source, executor, callbacks, checkpoint : as for `train`
    params : of each fit, but for its penalty
    options : Options
    validation : rows that judge the models, if there are no folds
    """

    _data: EncodedData | None = None
    _reads: SearchReads

    def __init__(
        self,
        source: Source,
        params: FitParams,
        options: Options,
        executor: Executor,
        callbacks: Sequence[Callback],
        checkpoint: str | os.PathLike[str] | None = None,
        validation: ValidationSet | None = None,
    ) -> None:
        self._source, self._params, self._options = source, params, options
        self._executor, self._validation = executor, validation
        self._checkpointer = Checkpointer(SearchState(), callbacks, checkpoint)

    def run(self) -> SearchResult:
        """Search to the end; start anew without chunks that turn out to be unreadable.

        Raises
        ------
        DataError, ChunkError, OutageError, CheckpointError, MemoryBoundError
            As `train`; MemoryBoundError also if the states of all models do not fit this process.
        """
        with self._checkpointer as checkpointer:
            self._params = checkpointer.resume(
                self._source, self._params, self._executor, self._validation, self._options.as_text
            )
            try:
                return self._run()
            except DataError:
                raise  # the user has to change the data, and a checkpoint would not be of them
            except BaseException as error:
                checkpointer.save_if_possible(error)
                raise

    def _run(self) -> SearchResult:
        kind: Kind | None = None
        while True:
            try:
                data = self._label()
                kind = self._announced(data) if kind is None else kind
                return self._attempt(data, kind)
            except UnreadableError as error:
                self._leave_out(error.bad_chunks)

    @property
    def _state(self) -> SearchState:
        return self._checkpointer.run_state

    def _label(self) -> EncodedData:
        """Scan the labels, make the folds, and get ready to read rows."""
        source, params, executor = self._source, self._params, self._executor
        checkpointer, progress = self._checkpointer, self._checkpointer.progress
        excluded, known = checkpointer.run_state.excluded, checkpointer.labels(source)
        data = known or encode_labels(source, params, executor, excluded, 2, self._data)
        sums_bytes = 8 * (source.n_features + 1) * len(data.classes)
        spans = cut_spans(source.chunks, source.row_bytes, sums_bytes)
        if self._validation is None and known is None:
            leaves, n_folds = full_pass(spans, excluded), self._options.n_folds
            data = folded(data, n_folds, params.seed, leaves, executor)
        checkpointer.set_labels(data.digest, source.n_features, data.classes)
        self._data = data
        self._reads = SearchReads(
            data, params, executor, progress, spans, excluded, checkpointer.on_task_done
        )
        self._reads.partial_sum, self._reads.sample = self._state.partial_sum, self._state.sample
        self._reads.validation = self._validation
        return data

    def _leave_out(self, bad_chunks: tuple[BadChunk, ...]) -> None:
        """Leave chunks out, and start anew: every model has other rows then."""
        before, checkpointer = self._state, self._checkpointer
        checkpointer.progress.start_over()
        quarantined = tuple(sorted((*before.quarantined, *bad_chunks)))
        state = SearchState(quarantined=quarantined, numerics=before.numerics)
        checkpointer.quarantine(bad_chunks, self._source, state)

    def _announced(self, data: EncodedData) -> Kind:
        """Check what the labels allow for, and tell that the search starts; return its solver."""
        source, executor, validation = self._source, self._executor, self._validation
        n_classes, n_folds = len(data.classes), self._n_folds(data)
        if validation is not None and not self._state.done:
            require_labels(validation, data.classes)
        kind = choose_solver(self._params, source, n_classes)
        n_models = self._options.n_candidates * max(n_folds, 1)
        require_search_fits(
            self._params, source, kind, self._options, n_folds, n_classes, executor.location
        )
        self._checkpointer.announce(
            FitStarted(
                source.n_samples,
                source.n_features,
                n_classes,
                len(source.chunks) - 1,
                source.n_samples * source.row_bytes,
                kind.name,
                self._params.max_iter,
                executor.slots,
                executor.dashboard,
                source.n_samples if validation is None else validation.source.n_samples,
                n_models,
            )
        )
        return kind

    def _attempt(self, data: EncodedData, kind: Kind) -> SearchResult:
        """Search with the rows that are left."""
        options, n_folds, first = self._options, self._n_folds(data), self._first_read(data, kind)
        if data.source.folds is not None:
            require_folds(first, data.source.folds, data.classes)
        build = partial(
            build_models,
            first=first,
            n_rows=self._reads.n_rows,
            params=self._params,
            kind=kind,
            dtype=self._source.dtype,
        )
        (any_model,) = build([(1.0, 0.0)], [ALL])
        tried = candidates(options.alphas, options.l1_ratios, any_model.objective)
        sharing = n_states(kind, options, n_folds)
        models = build(tried.pairs, range(n_folds) if n_folds else [ALL], n_states=sharing)
        full_data = build(
            tried.pairs[: n_full_data(kind, options, n_folds)], [ALL], n_states=sharing
        )
        self._start(models, full_data, first)
        models += full_data  # and later the winner on all rows: the rounds see this very list
        rounds = Rounds(models, tried, options, self._params, self._reads, self._checkpointer)
        interrupted = self._state.chosen is None and rounds.run()
        winner = chosen(self._scores(tried), tried, options.select)
        if n_folds and options.refit and not interrupted:
            (final,) = build([tried.pairs[winner]], [ALL])
            self._start_refit(final, models, winner)
            models.append(final)
            interrupted = rounds.run()
        return self._finish(data, models, tried, winner, interrupted=interrupted)

    def _first_read(self, data: EncodedData, kind: Kind) -> FoldMoments:
        """Return the moments of the features, read unless the checkpoint has them."""
        checkpointer, state = self._checkpointer, self._state
        if state.first is not None:
            return state.first
        n_folds, sampled = self._n_folds(data), kind.needs_sample
        first = self._reads.moments(n_folds, len(data.classes), sampled=sampled)
        checkpointer.progress.end_first()
        state = replace(self._state, first=first, sample=self._reads.sample)
        checkpointer.commit(state, pass_ended=True)
        return first

    def _start(
        self, models: Sequence[PathModel], full_data: Sequence[PathModel], first: FoldMoments
    ) -> None:
        """Start all models at the intercepts alone, unless the checkpoint has their states."""
        if self._state.states:
            return
        states = tuple(
            started(model, model.objective.intercept_only) for model in (*models, *full_data)
        )
        scores = np.array([score_of_intercepts(model, first) for model in models])
        ahead = tuple(model.candidate for model in full_data)
        state = replace(self._state, states=states, scores=scores, ahead=ahead)
        self._checkpointer.commit(state)

    def _start_refit(self, final: PathModel, models: Sequence[PathModel], winner: int) -> None:
        """Start the winner on all rows, unless the checkpoint has its state.

        It goes on from its full-data model if there is one, or else starts at the mean of its fold
        models.
        """
        state = self._state
        if state.chosen is not None:
            return
        if (full := state.n_models + winner) < len(models):
            start = state.states[full]
            if not _is_at_minimum(start.status):
                start = replace(start, status=Status.RUNNING)
        else:
            mean = mean_of(*state.models_of(models, winner))
            start = started(final, final.objective.coordinates.from_coefficients(*mean))
        states = (*state.states, start)
        self._checkpointer.commit(replace(state, states=states, chosen=winner, n_active=None))

    def _n_folds(self, data: EncodedData) -> int:
        """Return how many folds there are; 0 where a validation set judges."""
        if data.source.folds is not None:
            return data.source.folds.n_folds
        # Of a search that is over, they are not dealt again.
        return 0 if self._validation else self._state.n_models // self._options.n_candidates

    def _scores(self, tried: Candidates) -> Array:
        losses, accuracies = (self._state.scores[:, column] for column in (0, 1))
        scores = accuracies if self._options.scoring == "accuracy" else -losses
        return self._state.by_fold(scores, tried)

    def _finish(
        self,
        data: EncodedData,
        models: Sequence[PathModel],
        tried: Candidates,
        winner: int,
        *,
        interrupted: bool,
    ) -> SearchResult:
        """Return the result, and keep it in the checkpoint."""
        checkpointer, progress = self._checkpointer, self._checkpointer.progress
        if not self._state.done and not interrupted:  # whoever stops it wants what there is
            require_unchanged(data.source, self._validation.source if self._validation else None)
        final = fitted_winner(self._state, models, winner, interrupted=interrupted)
        if not interrupted:
            checkpointer.commit(replace(self._state, done=True))
        checkpointer.save()
        progress.end(final)
        fit = FitResult(
            data.classes,
            final,
            models[0].objective.coordinates.shift,
            max(1, progress.passes),
            progress.steps,
            self._params.seed,
            self._state.quarantined,
            self._state.numerics,
            data.digest,
            tuple(progress.history),
        )
        state, results = self._state, []
        for model, each in zip(models[: state.n_models], state.states, strict=False):
            point, value = reached(model, each)
            coefs = np.vstack(model.objective.coefficients(point)).T
            results.append((coefs, value, _is_at_minimum(each.status)))
        arrays = (np.array(column) for column in zip(*results, strict=True))
        by_fold = (state.by_fold(array, tried) for array in arrays)
        return SearchResult(fit, tried, winner, self._scores(tried), *by_fold)


def _is_at_minimum(status: Status) -> bool:
    return status.converged and status is not Status.RULED_OUT
