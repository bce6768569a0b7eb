"""The loop of a search: what members ask for together is read together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from dsoftmax.model_selection.candidates import Candidates
from dsoftmax.model_selection.inmemory import searched
from dsoftmax.model_selection.leading import SCOUTED, followed, promised, scouted, settled
from dsoftmax.model_selection.memory import are_few
from dsoftmax.model_selection.models import PathModel, for_last_step, reached, unhurried
from dsoftmax.model_selection.options import Options
from dsoftmax.model_selection.racing import Pruning
from dsoftmax.model_selection.reads import Scans, Told
from dsoftmax.model_selection.report import judged_so_far, report
from dsoftmax.model_selection.roles import Roles
from dsoftmax.model_selection.stack import Group, block_length, stack_width
from dsoftmax.model_selection.state import BeforeBudget, SearchState
from dsoftmax.solvers.base import FullBatchState, Request, Status
from dsoftmax.solvers.newton_state import NewtonState
from dsoftmax.training.checkpointer import Checkpointer
from dsoftmax.training.params import FitParams
from dsoftmax.training.validation import ValidationSet, status_after

_FEW = 0.25  # of the rows: as long as so many judge at most, to ask them once more is cheap


class Drive:
    """Runs the solvers of all members until none goes on.

    In a round, those that are ahead of others, or go their own ways, search in memory, and are then
    evaluated on all rows, in as many reads as they need. At its end those leave that cannot win any
    more.

    Parameters
    ----------
    members : those of the candidates, then perhaps a leader of each, and last the winner on all
        rows, once it is known
    found, options, settings : of the search
    scans, course : of the run
    apart : rows that judge the members, if those are no part of the source
    """

    def __init__(
        self,
        members: Sequence[PathModel],
        found: Candidates,
        options: Options,
        settings: FitParams,
        scans: Scans,
        course: Checkpointer[SearchState],
        apart: ValidationSet | None,
    ) -> None:
        self._members, self._found, self._options = members, found, options
        self._settings, self._scans, self._course, self._apart = settings, scans, course, apart
        self._n_tried = len(course.cursor.scores)
        self._roles = Roles(members, self._n_tried, self._n_tried // len(found.pairs))
        self._prunes = options.prune and options.scoring == "neg_log_loss"
        tried = members if course.cursor.chosen is None else members[:-1]
        self._pruning = Pruning(
            tried,
            self._roles.n_folds,
            options.select,
            scans.n_used,
            None if apart is None else apart.source.n_samples,
        )

    def run(self) -> bool:
        """Move the cursor on to where no member runs any more, unless the user interrupts.

        Returns
        -------
        whether it was interrupted; the cursor is then where the search goes on
        """
        try:
            cursor = self._course.cursor
            self._course.ledger.emit(judged_so_far(cursor, self._found))
            while self._roles.heads(self._begun()):
                self._round()
            if self._apart is not None:
                self._move(self._judged_apart(self._course.cursor, self._apart))
        except KeyboardInterrupt:
            return True
        return False

    def _group(self, cursor: SearchState, head: int) -> Group:
        """Return what a member asks for, and who follows it."""
        request = self._solvers[head].ask(cursor.states[head])
        followers = (self._members[index] for index in self._roles.followers(cursor, head))
        return Group(self._members[head], request, tuple(followers))

    def _begun(self) -> SearchState:
        """Return the cursor in the round under way, or at the beginning of the next one."""
        cursor = self._course.cursor
        if cursor.n_heads is None:
            if not cursor.is_spent:
                cursor = self._roles.parted(self._scouted(cursor))
            self._move(replace(cursor, n_heads=len(self._roles.heads(cursor))))
        return self._course.cursor

    def _round(self) -> None:
        self._choose_solvers()
        if not self._course.cursor.waiting:
            self._search_in_memory()
            cursor = self._pruned_by_sample(self._course.cursor)
            waiting = self._roles.heads(cursor)
            reads, reserve = self._reads(cursor, waiting), self._reserve(cursor)
            if reads and not self._scans.affordable(reads, reserve):
                self._move(replace(self._cut_short(cursor), n_heads=None))
                return
            n_heads = cursor.n_heads if waiting else None
            self._move(replace(cursor, waiting=waiting, renewed=False, n_heads=n_heads))
        while waiting := self._course.cursor.waiting:
            self._read(waiting)

    def _cut_short(self, cursor: SearchState) -> SearchState:
        """Return the cursor in which the budget has leaders go no further, or else all members."""
        if not self._roles.leading(cursor):
            return self._spent(cursor)
        before = BeforeBudget(cursor.led, cursor.states, cursor.scores)
        return replace(self._roles.without_leaders(cursor, cursor.led), parting=before)

    def _reads(self, cursor: SearchState, waiting: tuple[int, ...]) -> int:
        """Return how many reads a round of all of them takes: a round is all or none."""
        last = [index for index in waiting if self._settles(cursor, index)]
        groups = [self._group(cursor, head) for head in waiting if head not in last]
        reads = 0
        while groups:
            groups, reads = groups[block_length(groups) :], reads + 1
        return max(reads, -(-len(last) // self._width))

    def _reserve(self, cursor: SearchState) -> int:
        """Return how many passes are left to others: to models that follow, and to the winner."""
        if self._roles.leading(cursor):
            return self._settings.max_iter // 2
        refit = self._options.refit and self._apart is None and cursor.chosen is None
        return self._settings.max_iter // 4 if refit else 0

    def _spent(self, cursor: SearchState) -> SearchState:
        """Return the cursor whose members go on no more, since the budget has no room."""
        if self._apart is None:
            return cursor.spent()
        return self._judged_apart(cursor, self._apart).spent()

    def _choose_solvers(self) -> None:
        """Let members that are few take what they would take alone: they cost little more."""
        cursor = self._course.cursor
        n_heads, n_columns = cursor.n_heads or 0, cursor.states[0].point.shape[1]
        self._solvers = [
            unhurried(member, n_heads) if are_few(n_heads, n_columns) else member.solver
            for member in self._members
        ]
        for index in cursor.settling:
            self._solvers[index] = for_last_step(self._members[index].solver)

    def _search_in_memory(self) -> None:
        """Let members go on with what they can learn from the rows in memory."""
        states, heads = self._course.cursor.states, self._roles.heads(self._course.cursor)
        for found in searched(self._members, self._solvers, states, heads, self._scans):
            self._move(replace(self._course.cursor, states=found))

    def _read(self, waiting: tuple[int, ...]) -> None:
        """Evaluate as many members on all rows as one read serves."""
        cursor = self._course.cursor
        last = [index for index in waiting if self._settles(cursor, index)]
        heads = [index for index in waiting if index not in last]
        groups = [self._group(cursor, head) for head in heads]
        length = block_length(groups) if groups else 0
        own, groups, settling = heads[:length], groups[:length], last[: self._width]
        # Candidates that a larger budget lets go on are to find the rows that they left.
        may_renew = cursor.chosen is None and cursor.parting is None and not cursor.renewed
        renew = may_renew and any(group.request.renew is not None for group in groups)
        ends = [settled(self._members[index], cursor.states[index]) for index in settling]
        beside = [(self._members[i], end.point) for i, end in zip(settling, ends, strict=True)]
        results, judged = self._scans.evaluate(groups, renew=renew, beside=beside)
        renewed = cursor.renewed or any(found.result.renewed for found, *_ in results)
        left = (*heads[length:], *last[self._width :])
        cursor = replace(cursor, waiting=left, renewed=renewed, sample=self._scans.sample)
        for head, group, (found, *others) in zip(own, groups, results, strict=True):
            cursor = self._told(cursor, head, group.request, found)
            cursor = self._followed(cursor, head, group.request, others)
        for index, end, means in zip(settling, ends, judged, strict=True):
            cursor = self._settled(cursor, index, end, means)
        if not cursor.waiting:
            cursor = replace(self._end_round(cursor), n_heads=None)
        report(cursor, self._members, self._found, self._course.ledger)
        self._move(cursor, pass_ended=True)

    @property
    def _width(self) -> int:
        """How many points one read serves."""
        height, n_columns = self._course.cursor.states[0].point.shape
        return stack_width(height - 1, n_columns)

    def _settles(self, cursor: SearchState, index: int) -> bool:
        """Whether a member is only to be judged: its step is short, and its model to be trusted."""
        if index not in cursor.settling:
            return False
        gain = promised(self._members[index], cursor.states[index])
        return gain is not None and self._pruning.is_short(cursor, index, gain)

    def _settled(
        self, cursor: SearchState, index: int, end: FullBatchState, means: tuple[float, float]
    ) -> SearchState:
        """Return the cursor in which a member is where it settles, or is to be evaluated there."""
        gain = cursor.states[index].value - end.value
        if self._pruning.is_likely(cursor, index, gain, means):
            return _judged(cursor.with_state(index, end), index, means)
        settling = tuple(other for other in cursor.settling if other != index)
        return replace(cursor, settling=settling)

    def _told(self, cursor: SearchState, index: int, request: Request, found: Told) -> SearchState:
        """Return the cursor after the evaluation of a member."""
        before, solver = cursor.states[index], self._solvers[index]
        result = replace(found.result, renewed=cursor.renewed)
        cursor = self._with_state(cursor, index, solver.tell(before, result))
        best = _which(request, cursor.states[index])
        if index < self._n_tried and best is not None:
            return _scored(cursor, index, found, best)
        return cursor if self._apart is None else _unjudged(cursor, [index])

    def _followed(
        self, cursor: SearchState, head: int, request: Request, results: Sequence[Told]
    ) -> SearchState:
        """Return the cursor in which the followers of a member are where that has gone."""
        ahead, leader = cursor.states[head], self._members[head]
        best = _which(request, ahead)
        if best is None:
            return cursor
        for index, found in zip(self._roles.followers(cursor, head), results, strict=True):
            follower, known = self._members[index], found.result.at(best)
            state = followed(follower, cursor.states[index], leader, ahead, known)
            cursor = _scored(cursor.with_state(index, state), index, found, best)
        return cursor

    def _with_state(self, cursor: SearchState, index: int, state: FullBatchState) -> SearchState:
        gap = self._members[index].solver.gap(state)
        status = status_after(state, gap, self._settings, None, self._scans.n_rows)
        return cursor.with_state(index, replace(state, status=status))

    def _end_round(self, cursor: SearchState) -> SearchState:
        """Have rows that are apart judge, and let those go that cannot win any more."""
        if self._apart is not None:
            cursor = self._judged_apart(cursor, self._apart)
        return self._pruning.pruned(cursor) if self._prunes else cursor

    def _scouted(self, cursor: SearchState) -> SearchState:
        """Have all candidates go on from where the scout is, if that has gone its way."""
        if cursor.scout is None or self._apart is None:
            return cursor
        scout, ahead = self._members[cursor.scout], cursor.states[cursor.scout]
        assert isinstance(ahead, NewtonState)
        if ahead.status is Status.RUNNING and ahead.rounds < SCOUTED:
            return cursor
        moved = []
        for index in (other for other in cursor.running if other != cursor.scout):
            before = cursor.states[index]
            state = scouted(self._members[index], before, scout, ahead)
            moved += [index] if state is not before else []
            cursor = cursor.with_state(index, state)
        cursor = _unjudged(replace(cursor, scout=None), moved)
        return self._judged_apart(cursor, self._apart)

    def _pruned_by_sample(self, cursor: SearchState) -> SearchState:
        """Let candidates go that the sample alone rules out: no pass is for them.

        Of many that are left, the one that is best so far is to scout.
        """
        apart = self._apart
        if not self._prunes or apart is None or not self._pruning.is_first(cursor):
            return cursor
        if apart.source.n_samples > _FEW * self._scans.n_rows:
            return cursor
        cursor = _unjudged(self._pruning.at_minima_of_sample(cursor), range(self._n_tried))
        cursor = self._pruning.pruned(self._judged_apart(cursor, apart))
        running = cursor.running
        if are_few(len(running), cursor.states[0].point.shape[1]):
            return replace(cursor, scout=None)
        return replace(cursor, scout=min(running, key=lambda index: cursor.scores[index, 0]))

    def _judged_apart(self, cursor: SearchState, apart: ValidationSet) -> SearchState:
        """Return the cursor with scores by the rows that are apart, where there are none yet."""
        scores = cursor.scores.copy()
        new = np.flatnonzero(np.isnan(scores[:, 0])).tolist()
        while new:
            points = [reached(self._members[index], cursor.states[index])[0] for index in new]
            members = [self._members[index] for index in new]
            requests = [Request(point[None]) for point in points]
            length = block_length(list(map(Group, members, requests)))
            own, new, members = new[:length], new[length:], members[:length]
            sums = self._scans.judge(apart, members, points[:length])
            scores[own, :2] = [sums.means(place) for place in range(length)]
        return replace(cursor, scores=scores)

    def _move(self, cursor: SearchState, *, pass_ended: bool = False) -> None:
        self._course.move(cursor, pass_ended=pass_ended)


def _which(request: Request, state: FullBatchState) -> int | None:
    """Return which of the points asked for a model has gone to."""
    found = (i for i, point in enumerate(request.points) if np.array_equal(point, state.point))
    return next(found, None)


def _scored(cursor: SearchState, index: int, found: Told, best: int) -> SearchState:
    """Return the cursor with what is known of a member at one of its points."""
    scores = cursor.scores.copy()
    scores[index] = *found.judged.means(best), found.result.accuracy[best]
    return replace(cursor, scores=scores)


def _judged(cursor: SearchState, index: int, means: tuple[float, float]) -> SearchState:
    """Return the cursor with what rows held out say of a member."""
    scores = cursor.scores.copy()
    scores[index, :2] = means
    return replace(cursor, scores=scores)


def _unjudged(cursor: SearchState, members: Iterable[int]) -> SearchState:
    """Return the cursor without what rows that are apart have said of some members."""
    scores = cursor.scores.copy()
    scores[list(members), :2] = np.nan
    return replace(cursor, scores=scores)
