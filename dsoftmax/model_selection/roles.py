"""Who of a search goes ahead, who follows, and who goes a way of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dsoftmax.model_selection.leading import is_ahead, left
from dsoftmax.model_selection.models import PathModel
from dsoftmax.model_selection.state import SearchState
from dsoftmax.solvers.base import Status


@dataclass(frozen=True)
class Roles:
    """Tells the members of a search apart by what a cursor says.

    Attributes
    ----------
    members : those of the candidates, then perhaps a leader of each, and last the winner on all
        rows, once it is known
    n_tried : how many are those of the candidates
    n_folds : of each candidate
    """

    members: Sequence[PathModel]
    n_tried: int
    n_folds: int

    def heads(self, run_state: SearchState) -> tuple[int, ...]:
        """Return the members that are ahead of others, or go their own ways."""
        if run_state.chosen is not None:
            heads: Sequence[int] = [len(run_state.states) - 1]
        elif run_state.scout is not None:
            heads = [run_state.scout]
        else:
            followers = {
                i for c in run_state.led for i in self.followers(run_state, self._leader(c))
            }
            own = [i for i in range(self.n_tried) if i not in followers]
            heads = [*own, *map(self._leader, run_state.led)]
        return tuple(i for i in heads if run_state.states[i].status is Status.RUNNING)

    def leading(self, run_state: SearchState) -> bool:
        """Whether leaders are ahead."""
        return run_state.chosen is None and any(i >= self.n_tried for i in self.heads(run_state))

    def followers(self, run_state: SearchState, head: int) -> tuple[int, ...]:
        """Return the members that follow one: those of its candidate, if it leads.

        But for those that are where they end from the start, since they have nothing to learn; and
        for those that are to know nothing of a class, of which the leader does.
        """
        first = (head - self.n_tried) * self.n_folds
        if run_state.chosen is not None or first < 0:
            return ()
        known = self.members[head].objective.class_share > 0
        return tuple(
            index
            for index in range(first, first + self.n_folds)
            if run_state.states[index].status is not Status.CONVERGED
            and np.array_equal(self.members[index].objective.class_share > 0, known)
        )

    def parted(self, run_state: SearchState) -> SearchState:
        """Return the cursor in which those go their own ways whose leader is done."""
        if run_state.chosen is not None:
            return run_state
        return self.without_leaders(
            run_state, [c for c in run_state.led if not self._led(run_state, c)]
        )

    def without_leaders(self, run_state: SearchState, candidates: Sequence[int]) -> SearchState:
        """Return the cursor in which the models of some candidates go their own ways."""
        settling = list(run_state.settling)
        for candidate in candidates:
            for index in self.followers(run_state, self._leader(candidate)):
                state, settles = left(self.members[index], run_state.states[index])
                run_state = run_state.with_state(index, state)
                settling += [index] if settles else []
        led = tuple(candidate for candidate in run_state.led if candidate not in candidates)
        return replace(run_state, led=led, settling=tuple(settling))

    def _leader(self, candidate: int) -> int:
        return self.n_tried + candidate

    def _led(self, run_state: SearchState, candidate: int) -> bool:
        head, states = self._leader(candidate), run_state.states
        own = self.followers(run_state, head)
        gaps = [self.members[index].solver.gap(states[index]) for index in own]
        return is_ahead(self.members[head], states[head], gaps)
