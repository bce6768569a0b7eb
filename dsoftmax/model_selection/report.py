"""What a search tells of its candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsoftmax.events import CandidatesJudged, ValidationScores
from dsoftmax.model_selection.candidates import Candidates, by_fold
from dsoftmax.model_selection.models import PathModel
from dsoftmax.model_selection.state import SearchState
from dsoftmax.solvers.base import Status
from dsoftmax.training.progress import Progress
from dsoftmax.typing import Array


def report(
    run_state: SearchState, members: Sequence[PathModel], found: Candidates, progress: Progress
) -> None:
    """Tell of a read, by how the candidate stands that is the best so far."""
    event, n_tried = judged_so_far(run_state, found), len(run_state.scores)
    own = [index for index in range(n_tried) if members[index].candidate == event.best]
    if run_state.chosen is not None:
        own = [len(run_state.states) - 1]
    states = [run_state.states[index] for index in own]
    loss, norm = (
        float(np.mean([getattr(state, name) for state in states]))
        for name in ("value", "gradient_norm")
    )
    gaps = [members[index].solver.gap(run_state.states[index]) for index in own]
    gap = max((known for known in gaps if known is not None), default=None)
    accuracy = _by_fold(run_state, run_state.scores[:, 2], found)[:, event.best].mean()
    progress.record(loss, norm, float(accuracy))
    scores = event.losses[event.best], event.accuracies[event.best]
    validation = None if np.isnan(scores[0]) else ValidationScores(*scores)
    progress.emit(event)
    progress.emit(progress.end_pass(validation, gap))


def judged_so_far(run_state: SearchState, found: Candidates) -> CandidatesJudged:
    """Return how the candidates stand."""
    losses, accuracies = (_by_fold(run_state, run_state.scores[:, i], found) for i in (0, 1))
    means = losses.mean(axis=0)
    best = 0 if np.isnan(means).all() else int(np.nanargmin(means))
    best = best if run_state.chosen is None else run_state.chosen
    statuses = [state.status for state in run_state.states[: len(run_state.scores)]]
    running, lost = (
        _by_fold(run_state, np.array([status is wanted for status in statuses]), found)
        for wanted in (Status.RUNNING, Status.RULED_OUT)
    )
    alphas, l1_ratios = zip(*found.pairs, strict=True)
    return CandidatesJudged(
        alphas,
        l1_ratios,
        tuple(means.tolist()),
        tuple((losses.std(axis=0) / max(len(losses) - 1, 1) ** 0.5).tolist()),
        tuple(accuracies.mean(axis=0).tolist()),
        tuple(running.sum(axis=0).tolist()),
        tuple(map(any, lost.T.tolist())),
        best,
    )


def _by_fold(run_state: SearchState, values: Array, found: Candidates) -> Array:
    return by_fold(values, len(run_state.scores) // len(found.pairs))
