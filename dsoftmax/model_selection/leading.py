"""Models that go ahead, and those that go on from where they are.

The models of a candidate differ by their folds alone, so little that the way to all their minima
is that of one model of all rows. It leads: a read evaluates it, for the rows of each fold apart,
which tells the objectives of its followers there. They go their own ways when what is left of its
way is less than what tells them apart.

Candidates differ by their penalties alone. Where rows that are apart judge, one of them scouts:
the loss where it is, and its gradient, are those of all candidates there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dsoftmax.model_selection.models import PathModel, carried, guess_of_sample
from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.solvers.base import FullBatchState, Status
from dsoftmax.solvers.newton import Newton
from dsoftmax.solvers.newton_state import NewtonState
from dsoftmax.typing import Array

SCOUTED = 2  # rounds of a scout
_OWN_WAY = 0.1
_NEARER = 1 / 3  # of its gradient may be left of what its leader has left a follower
_TRUSTED = 0.5  # of what a model has promised was so


def followed(
    follower: PathModel,
    state: FullBatchState,
    leader: PathModel,
    ahead: FullBatchState,
    known: Evaluation,
) -> FullBatchState:
    """Return the state of a follower where its leader is.

    Parameters
    ----------
    follower, state : the model, and where it is
    leader, ahead : the other, and where that is
    known : the objective of the follower there
    """
    assert isinstance(follower.solver, Newton)
    assert isinstance(state, NewtonState)
    assert isinstance(ahead, NewtonState)
    # What the leader knows holds in its own coordinates alone.
    base = state if follower.whole is None else replace(ahead, target=state.target)
    return follower.solver.moved(base, carried(ahead.point, leader, follower), known)


def is_ahead(leader: PathModel, ahead: FullBatchState, gaps: Sequence[float | None]) -> bool:
    """Whether followers still go the way of their leader.

    Parameters
    ----------
    leader, ahead : the model, and where it is
    gaps : by how much each follower is above its own minimum there, by estimate
    """
    if ahead.status is not Status.RUNNING:
        return ahead.status is Status.RULED_OUT  # and may come back
    gap, known = leader.solver.gap(ahead), [own for own in gaps if own is not None]
    return gap is None or not known or gap > _OWN_WAY * float(np.mean(known))


def left(member: PathModel, state: FullBatchState) -> tuple[FullBatchState, bool]:
    """Return the state of a follower whose leader has left it, and whether it is to settle.

    It has not left the rows that judge it yet, which were among those of its leader: its gradient
    is to fall to a third. Where that is small enough already, the model of the rows in memory,
    corrected by it, tells the last step, and a read is to judge that alone: approximate
    cross-validation (Wilson, Kasy and Mackey, Approximate cross-validation: guarantees for model
    assessment and selection, 2020), with a search in place of a single Newton step.
    """
    target = min(state.target, _NEARER * state.gradient_norm)
    return replace(state, target=target), state.gradient_norm <= state.target


def promised(member: PathModel, state: FullBatchState) -> float | None:
    """Return by how much a last step is to lower an objective, None if that is not to be trusted.

    The model has to be one that the leader could trust, of enough rows.
    """
    found = member.solver.guess(state)
    if member.whole is None or found is None or not isinstance(state, NewtonState):
        return None
    return found[2] if state.ratio >= _TRUSTED and not state.thin else None


def settled(member: PathModel, state: FullBatchState) -> FullBatchState:
    """Return the state at its guess, as if that had been found to be what it is promised."""
    found = member.solver.guess(state)
    assert isinstance(state, NewtonState)
    assert found is not None, "it has one"
    point, value, gap = found
    after = replace(state, point=point, value=value, distance=gap, trials=(), surrogate=None)
    return replace(after, status=Status.CONVERGED)


def scouted(
    member: PathModel, state: FullBatchState, scout: PathModel, ahead: FullBatchState
) -> FullBatchState:
    """Return the state of a candidate after a scout, where that is better than what it knows.

    Parameters
    ----------
    member, state : the candidate, with the minimum that it has in the sample to be evaluated
    scout, ahead : the other, and where that is
    """
    assert isinstance(member.solver, Newton)
    if not (isinstance(state, NewtonState) and isinstance(ahead, NewtonState)):
        return state
    point = carried(ahead.point, scout, member)
    known = _known(member, point, scout, ahead)
    moved = member.solver.moved(state, point, known)
    if moved.gradient_norm <= moved.target:
        return replace(moved, status=Status.CONVERGED)
    if moved.value > state.value:
        return state
    guess = guess_of_sample(member, state)
    # In the sample, a minimum is as far below that of all rows as it is above that in all rows.
    return moved if guess is None or moved.value <= guess[1] + 2 * state.distance else state


def _known(member: PathModel, point: Array, scout: PathModel, ahead: NewtonState) -> Evaluation:
    """Return a candidate's objective where the scout is: the loss is that of both."""
    own, other = member.objective.penalty, scout.objective.penalty
    value, gradient = other.l2_value_gradient(ahead.point)
    loss = ahead.value - value - other.l1_value(ahead.point)
    slope = ahead.gradient - gradient
    scale, scouts = member.objective.coordinates.scale, scout.objective.coordinates.scale
    slope[:-1] *= (scouts / scale)[:, None]
    value, gradient = own.l2_value_gradient(point)
    return Evaluation(np.array([loss + value]), (slope + gradient)[None], np.empty(0))
