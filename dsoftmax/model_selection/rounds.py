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
from dsoftmax.training.stopping import status_after
from dsoftmax.training.validation import ValidationSet

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
    found, options, params : of the search
    scans, checkpointer : of the run
    validation : rows that judge the members, if those are no part of the source
    """

    def __init__(
        self,
        members: Sequence[PathModel],
        found: Candidates,
        options: Options,
        params: FitParams,
        scans: Scans,
        checkpointer: Checkpointer[SearchState],
        validation: ValidationSet | None,
    ) -> None:
        self._members, self._found, self._options = members, found, options
        self._settings, self._scans, self._course, self._apart = (
            params,
            scans,
            checkpointer,
            validation,
        )
        self._n_tried = len(checkpointer.run_state.scores)
        self._roles = Roles(members, self._n_tried, self._n_tried // len(found.pairs))
        self._prunes = options.prune and options.scoring == "neg_log_loss"
        tried = members if checkpointer.run_state.chosen is None else members[:-1]
        self._pruning = Pruning(
            tried,
            self._roles.n_folds,
            options.select,
            scans.n_used,
            None if validation is None else validation.source.n_samples,
        )

    def run(self) -> bool:
        """Move the cursor on to where no member runs any more, unless the user interrupts.

        Returns
        -------
        whether it was interrupted; the cursor is then where the search goes on
        """
        try:
            run_state = self._course.run_state
            self._course.progress.emit(judged_so_far(run_state, self._found))
            while self._roles.heads(self._begun()):
                self._round()
            if self._apart is not None:
                self._move(self._judged_apart(self._course.run_state, self._apart))
        except KeyboardInterrupt:
            return True
        return False

    def _group(self, run_state: SearchState, head: int) -> Group:
        """Return what a member asks for, and who follows it."""
        request = self._solvers[head].ask(run_state.states[head])
        followers = (self._members[index] for index in self._roles.followers(run_state, head))
        return Group(self._members[head], request, tuple(followers))

    def _begun(self) -> SearchState:
        """Return the cursor in the round under way, or at the beginning of the next one."""
        run_state = self._course.run_state
        if run_state.n_heads is None:
            if not run_state.is_spent:
                run_state = self._roles.parted(self._scouted(run_state))
            self._move(replace(run_state, n_heads=len(self._roles.heads(run_state))))
        return self._course.run_state

    def _round(self) -> None:
        self._choose_solvers()
        if not self._course.run_state.waiting:
            self._search_in_memory()
            run_state = self._pruned_by_sample(self._course.run_state)
            waiting = self._roles.heads(run_state)
            reads, reserve = self._reads(run_state, waiting), self._reserve(run_state)
            if reads and not self._scans.affordable(reads, reserve):
                self._move(replace(self._cut_short(run_state), n_heads=None))
                return
            n_heads = run_state.n_heads if waiting else None
            self._move(replace(run_state, waiting=waiting, resampled=False, n_heads=n_heads))
        while waiting := self._course.run_state.waiting:
            self._read(waiting)

    def _cut_short(self, run_state: SearchState) -> SearchState:
        """Return the cursor in which the budget has leaders go no further, or else all members."""
        if not self._roles.leading(run_state):
            return self._spent(run_state)
        before = BeforeBudget(run_state.led, run_state.states, run_state.scores)
        return replace(self._roles.without_leaders(run_state, run_state.led), parting=before)

    def _reads(self, run_state: SearchState, waiting: tuple[int, ...]) -> int:
        """Return how many reads a round of all of them takes: a round is all or none."""
        last = [index for index in waiting if self._settles(run_state, index)]
        groups = [self._group(run_state, head) for head in waiting if head not in last]
        reads = 0
        while groups:
            groups, reads = groups[block_length(groups) :], reads + 1
        return max(reads, -(-len(last) // self._width))

    def _reserve(self, run_state: SearchState) -> int:
        """Return how many passes are left to others: to models that follow, and to the winner."""
        if self._roles.leading(run_state):
            return self._settings.max_iter // 2
        refit = self._options.refit and self._apart is None and run_state.chosen is None
        return self._settings.max_iter // 4 if refit else 0

    def _spent(self, run_state: SearchState) -> SearchState:
        """Return the cursor whose members go on no more, since the budget has no room."""
        if self._apart is None:
            return run_state.spent()
        return self._judged_apart(run_state, self._apart).spent()

    def _choose_solvers(self) -> None:
        """Let members that are few take what they would take alone: they cost little more."""
        run_state = self._course.run_state
        n_heads, n_columns = run_state.n_heads or 0, run_state.states[0].point.shape[1]
        self._solvers = [
            unhurried(member, n_heads) if are_few(n_heads, n_columns) else member.solver
            for member in self._members
        ]
        for index in run_state.settling:
            self._solvers[index] = for_last_step(self._members[index].solver)

    def _search_in_memory(self) -> None:
        """Let members go on with what they can learn from the rows in memory."""
        states, heads = self._course.run_state.states, self._roles.heads(self._course.run_state)
        for found in searched(self._members, self._solvers, states, heads, self._scans):
            self._move(replace(self._course.run_state, states=found))

    def _read(self, waiting: tuple[int, ...]) -> None:
        """Evaluate as many members on all rows as one read serves."""
        run_state = self._course.run_state
        last = [index for index in waiting if self._settles(run_state, index)]
        heads = [index for index in waiting if index not in last]
        groups = [self._group(run_state, head) for head in heads]
        length = block_length(groups) if groups else 0
        own, groups, settling = heads[:length], groups[:length], last[: self._width]
        # Candidates that a larger budget lets go on are to find the rows that they left.
        may_renew = (
            run_state.chosen is None and run_state.parting is None and not run_state.resampled
        )
        resample_at = may_renew and any(group.request.resample_at is not None for group in groups)
        ends = [settled(self._members[index], run_state.states[index]) for index in settling]
        beside = [(self._members[i], end.point) for i, end in zip(settling, ends, strict=True)]
        results, judged = self._scans.evaluate(groups, resample_at=resample_at, beside=beside)
        resampled = run_state.resampled or any(found.result.resampled for found, *_ in results)
        left = (*heads[length:], *last[self._width :])
        run_state = replace(run_state, waiting=left, resampled=resampled, sample=self._scans.sample)
        for head, group, (found, *others) in zip(own, groups, results, strict=True):
            run_state = self._told(run_state, head, group.request, found)
            run_state = self._followed(run_state, head, group.request, others)
        for index, end, means in zip(settling, ends, judged, strict=True):
            run_state = self._settled(run_state, index, end, means)
        if not run_state.waiting:
            run_state = replace(self._end_round(run_state), n_heads=None)
        report(run_state, self._members, self._found, self._course.progress)
        self._move(run_state, pass_ended=True)

    @property
    def _width(self) -> int:
        """How many points one read serves."""
        height, n_columns = self._course.run_state.states[0].point.shape
        return stack_width(height - 1, n_columns)

    def _settles(self, run_state: SearchState, index: int) -> bool:
        """Whether a member is only to be judged: its step is short, and its model to be trusted."""
        if index not in run_state.settling:
            return False
        gain = promised(self._members[index], run_state.states[index])
        return gain is not None and self._pruning.is_short(run_state, index, gain)

    def _settled(
        self, run_state: SearchState, index: int, end: FullBatchState, means: tuple[float, float]
    ) -> SearchState:
        """Return the cursor in which a member is where it settles, or is to be evaluated there."""
        gain = run_state.states[index].value - end.value
        if self._pruning.is_likely(run_state, index, gain, means):
            return _judged(run_state.with_state(index, end), index, means)
        settling = tuple(other for other in run_state.settling if other != index)
        return replace(run_state, settling=settling)

    def _told(
        self, run_state: SearchState, index: int, request: Request, found: Told
    ) -> SearchState:
        """Return the cursor after the evaluation of a member."""
        before, solver = run_state.states[index], self._solvers[index]
        result = replace(found.result, resampled=run_state.resampled)
        run_state = self._with_state(run_state, index, solver.tell(before, result))
        best = _which(request, run_state.states[index])
        if index < self._n_tried and best is not None:
            return _scored(run_state, index, found, best)
        return run_state if self._apart is None else _unjudged(run_state, [index])

    def _followed(
        self, run_state: SearchState, head: int, request: Request, results: Sequence[Told]
    ) -> SearchState:
        """Return the cursor in which the followers of a member are where that has gone."""
        ahead, leader = run_state.states[head], self._members[head]
        best = _which(request, ahead)
        if best is None:
            return run_state
        for index, found in zip(self._roles.followers(run_state, head), results, strict=True):
            follower, known = self._members[index], found.result.at(best)
            state = followed(follower, run_state.states[index], leader, ahead, known)
            run_state = _scored(run_state.with_state(index, state), index, found, best)
        return run_state

    def _with_state(self, run_state: SearchState, index: int, state: FullBatchState) -> SearchState:
        gap = self._members[index].solver.gap(state)
        status = status_after(state, gap, self._settings, None, self._scans.n_rows)
        return run_state.with_state(index, replace(state, status=status))

    def _end_round(self, run_state: SearchState) -> SearchState:
        """Have rows that are apart judge, and let those go that cannot win any more."""
        if self._apart is not None:
            run_state = self._judged_apart(run_state, self._apart)
        return self._pruning.pruned(run_state) if self._prunes else run_state

    def _scouted(self, run_state: SearchState) -> SearchState:
        """Have all candidates go on from where the scout is, if that has gone its way."""
        if run_state.scout is None or self._apart is None:
            return run_state
        scout, ahead = self._members[run_state.scout], run_state.states[run_state.scout]
        assert isinstance(ahead, NewtonState)
        if ahead.status is Status.RUNNING and ahead.rounds < SCOUTED:
            return run_state
        moved = []
        for index in (other for other in run_state.running if other != run_state.scout):
            before = run_state.states[index]
            state = scouted(self._members[index], before, scout, ahead)
            moved += [index] if state is not before else []
            run_state = run_state.with_state(index, state)
        run_state = _unjudged(replace(run_state, scout=None), moved)
        return self._judged_apart(run_state, self._apart)

    def _pruned_by_sample(self, run_state: SearchState) -> SearchState:
        """Let candidates go that the sample alone rules out: no pass is for them.

        Of many that are left, the one that is best so far is to scout.
        """
        validation = self._apart
        if not self._prunes or validation is None or not self._pruning.is_first(run_state):
            return run_state
        if validation.source.n_samples > _FEW * self._scans.n_rows:
            return run_state
        run_state = _unjudged(self._pruning.at_minima_of_sample(run_state), range(self._n_tried))
        run_state = self._pruning.pruned(self._judged_apart(run_state, validation))
        running = run_state.running
        if are_few(len(running), run_state.states[0].point.shape[1]):
            return replace(run_state, scout=None)
        return replace(run_state, scout=min(running, key=lambda index: run_state.scores[index, 0]))

    def _judged_apart(self, run_state: SearchState, validation: ValidationSet) -> SearchState:
        """Return the cursor with scores by the rows that are apart, where there are none yet."""
        scores = run_state.scores.copy()
        new = np.flatnonzero(np.isnan(scores[:, 0])).tolist()
        while new:
            points = [reached(self._members[index], run_state.states[index])[0] for index in new]
            members = [self._members[index] for index in new]
            requests = [Request(point[None]) for point in points]
            length = block_length(list(map(Group, members, requests)))
            own, new, members = new[:length], new[length:], members[:length]
            sums = self._scans.judge(validation, members, points[:length])
            scores[own, :2] = [sums.means(place) for place in range(length)]
        return replace(run_state, scores=scores)

    def _move(self, run_state: SearchState, *, pass_ended: bool = False) -> None:
        self._course.commit(run_state, pass_ended=pass_ended)


def _which(request: Request, state: FullBatchState) -> int | None:
    """Return which of the points asked for a model has gone to."""
    found = (i for i, point in enumerate(request.points) if np.array_equal(point, state.point))
    return next(found, None)


def _scored(run_state: SearchState, index: int, found: Told, best: int) -> SearchState:
    """Return the cursor with what is known of a member at one of its points."""
    scores = run_state.scores.copy()
    scores[index] = *found.judged.means(best), found.result.accuracy[best]
    return replace(run_state, scores=scores)


def _judged(run_state: SearchState, index: int, means: tuple[float, float]) -> SearchState:
    """Return the cursor with what rows held out say of a member."""
    scores = run_state.scores.copy()
    scores[index, :2] = means
    return replace(run_state, scores=scores)


def _unjudged(run_state: SearchState, members: Iterable[int]) -> SearchState:
    """Return the cursor without what rows that are apart have said of some members."""
    scores = run_state.scores.copy()
    scores[list(members), :2] = np.nan
    return replace(run_state, scores=scores)
