"""The start of a search on folds: at the minimum that a candidate has in the sample as a whole.

The models of a candidate differ by their folds alone, so little that one search in memory serves
them all, and one point in the first read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from dsoftmax.reduction import Array
from dsoftmax.solvers.base import State, Status
from dsoftmax.solvers.newton_state import NewtonState
from dsoftmax.tuning.inmemory import searched
from dsoftmax.tuning.members import Member, started
from dsoftmax.tuning.scans import Scans


def led(members: Sequence[Member], leaders: Sequence[Member], scans: Scans) -> Iterator[State]:
    """Yield the states of members that go where the leaders of their candidates have gone.

    Parameters
    ----------
    members : of all candidates and folds
    leaders : of each candidate, the model of all rows
    scans : with rows in memory
    """
    states = [started(leader, leader.objective.intercept_only) for leader in leaders]
    for found in searched(leaders, [leader.solver for leader in leaders], states, scans):
        states = list(found)
    for member in members:
        yield _following(member, leaders[member.candidate], states[member.candidate])


def _following(member: Member, leader: Member, ahead: State) -> State:
    own = started(member, member.objective.intercept_only)
    if own.status is not Status.RUNNING:
        return own
    assert isinstance(own, NewtonState)
    assert isinstance(ahead, NewtonState)
    if member.whole is None:
        coef, intercept = leader.objective.coefficients(_end(ahead))
        return started(member, member.objective.coordinates.from_coefficients(coef, intercept))
    return replace(
        ahead, value=own.value, gradient=own.gradient, gradient_norm=own.gradient_norm,
        target=own.target, status=own.status,
    )  # fmt: skip


def _end(state: NewtonState) -> Array:
    return state.trials[0].point if state.trials else state.point
