"""What a search tells of its candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsoftmax.events import CandidatesJudged, ValidationScores
from dsoftmax.model_selection.candidates import Candidates, by_fold
from dsoftmax.model_selection.models import PathModel
from dsoftmax.model_selection.state import SearchState
from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.solvers.base import Status
from dsoftmax.training.progress import Progress
from dsoftmax.typing import Array


def report(
    cursor: SearchState, members: Sequence[PathModel], found: Candidates, ledger: Progress
) -> None:
    """Tell of a read, by how the candidate stands that is the best so far."""
    event, n_tried = judged_so_far(cursor, found), len(cursor.scores)
    own = [index for index in range(n_tried) if members[index].candidate == event.best]
    if cursor.chosen is not None:
        own = [len(cursor.states) - 1]
    states = [cursor.states[index] for index in own]
    loss, norm = (
        float(np.mean([getattr(state, name) for state in states]))
        for name in ("value", "gradient_norm")
    )
    gaps = [members[index].solver.gap(cursor.states[index]) for index in own]
    gap = max((known for known in gaps if known is not None), default=None)
    accuracy = _by_fold(cursor, cursor.scores[:, 2], found)[:, event.best].mean()
    ledger.see(loss, norm, Evaluation(np.array([loss]), np.empty(0), np.array([accuracy])))
    scores = event.losses[event.best], event.accuracies[event.best]
    validation = None if np.isnan(scores[0]) else ValidationScores(*scores)
    ledger.emit(event)
    ledger.emit(ledger.end_pass(validation, gap))


def judged_so_far(cursor: SearchState, found: Candidates) -> CandidatesJudged:
    """Return how the candidates stand."""
    losses, accuracies = (_by_fold(cursor, cursor.scores[:, i], found) for i in (0, 1))
    means = losses.mean(axis=0)
    best = 0 if np.isnan(means).all() else int(np.nanargmin(means))
    best = best if cursor.chosen is None else cursor.chosen
    statuses = [state.status for state in cursor.states[: len(cursor.scores)]]
    running, lost = (
        _by_fold(cursor, np.array([status is wanted for status in statuses]), found)
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


def _by_fold(cursor: SearchState, values: Array, found: Candidates) -> Array:
    return by_fold(values, len(cursor.scores) // len(found.pairs))
