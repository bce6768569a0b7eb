"""The loop of a search: what members ask for together is read together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dsoftmax.course import Course
from dsoftmax.events import CandidatesJudged, ValidationScores
from dsoftmax.judging import Judged
from dsoftmax.settings import Settings
from dsoftmax.solvers.base import Evaluation, Request, Status
from dsoftmax.stopping import status_after
from dsoftmax.tuning.candidates import Candidates, by_fold
from dsoftmax.tuning.cursor import SearchCursor
from dsoftmax.tuning.inmemory import searched
from dsoftmax.tuning.members import Member, reached, unhurried
from dsoftmax.tuning.options import Options
from dsoftmax.tuning.pruning import Pruning
from dsoftmax.tuning.room import are_few
from dsoftmax.tuning.scans import Scans
from dsoftmax.tuning.stack import block_length
from dsoftmax.validation import Apart

_FEW = 0.25  # of the rows: as long as so many judge at most, to ask them once more is cheap


class Drive:
    """Runs the solvers of all members until none goes on.

    In a round, all members search in memory, and are then evaluated on all rows, in as many reads
    as they need. At its end those leave that cannot win any more.

    Parameters
    ----------
    members : those of the candidates, and then perhaps the winner on all rows
    found, options, settings : of the search
    scans, course : of the run
    apart : rows that judge the members, if those are no part of the source
    """

    def __init__(
        self, members: Sequence[Member], found: Candidates, options: Options, settings: Settings,
        scans: Scans, course: Course[SearchCursor], apart: Apart | None,
    ) -> None:  # fmt: skip
        self._members, self._found, self._options = members, found, options
        self._settings, self._scans, self._course, self._apart = settings, scans, course, apart
        n_tried = len(course.cursor.scores)
        self._n_folds = n_tried // len(found.pairs)
        self._prunes = options.prune and options.scoring == "neg_log_loss"
        self._pruning = Pruning(
            members[:n_tried], self._n_folds, options.select, scans.n_used,
            None if apart is None else apart.source.n_samples,
        )  # fmt: skip

    def run(self) -> bool:
        """Move the cursor on to where no member runs any more, unless the user interrupts.

        Returns
        -------
        whether it was interrupted; the cursor is then where the search goes on
        """
        try:
            self._course.ledger.emit(self._candidates(self._course.cursor))
            while self._course.cursor.running:
                self._round()
        except KeyboardInterrupt:
            return True
        return False

    def _round(self) -> None:
        self._begin_round()
        if not self._course.cursor.waiting:
            self._search_in_memory()
            cursor = self._pruned_by_sample(self._course.cursor)
            reads, reserve = self._reads(cursor), self._reserve(cursor)
            if reads and not self._scans.affordable(reads, reserve):
                self._move(self._spent(self._course.cursor))
                return
            self._move(replace(cursor, waiting=cursor.running, renewed=False))
        while waiting := self._course.cursor.waiting:
            self._read(waiting)

    def _reads(self, cursor: SearchCursor) -> int:
        """Return how many reads a round of all members that go on takes: a round is all or none."""
        requests = [self._solvers[i].ask(cursor.states[i]) for i in cursor.running]
        reads = 0
        while requests:
            requests, reads = requests[block_length(requests) :], reads + 1
        return reads

    def _reserve(self, cursor: SearchCursor) -> int:
        """Return how many passes the candidates leave to the fit of the winner to all rows."""
        candidates_only = len(cursor.states) == len(cursor.scores)
        refit = self._options.refit and self._apart is None and candidates_only
        return self._settings.max_iter // 4 if refit else 0

    def _spent(self, cursor: SearchCursor) -> SearchCursor:
        """Return the cursor whose members go on no more, since the budget has no room."""
        return (cursor if self._apart is None else self._judged_apart(cursor, self._apart)).spent()

    def _begin_round(self) -> None:
        """Let members that are few take what they would take alone: they cost little more."""
        cursor = self._course.cursor
        if cursor.few is None:
            n_columns = cursor.states[0].point.shape[1]
            cursor = replace(cursor, few=are_few(len(cursor.running), n_columns))
            self._move(cursor)
        own = [member.solver for member in self._members]
        self._solvers = [unhurried(solver) for solver in own] if cursor.few else own

    def _search_in_memory(self) -> None:
        """Let all members go on with what they can learn from the rows in memory."""
        cursor = self._course.cursor
        for states in searched(self._members, self._solvers, cursor.states, self._scans):
            self._move(replace(self._course.cursor, states=states))

    def _read(self, waiting: tuple[int, ...]) -> None:
        """Evaluate as many members on all rows as one read serves."""
        cursor = self._course.cursor
        requests = [self._solvers[i].ask(cursor.states[i]) for i in waiting]
        length = block_length(requests)
        own, requests = waiting[:length], requests[:length]
        members = [self._members[index] for index in own]
        # Candidates that a larger budget lets go on are to find the rows that they left.
        may_renew = len(cursor.states) == len(cursor.scores) and not cursor.renewed
        renew = may_renew and any(request.renew is not None for request in requests)
        results = self._scans.evaluate(members, requests, renew=renew)
        renewed = cursor.renewed or results[0][0].renewed
        cursor = replace(
            cursor, waiting=waiting[length:], renewed=renewed, sample=self._scans.sample
        )
        for index, request, (result, judged) in zip(own, requests, results, strict=True):
            cursor = self._told(cursor, index, request, replace(result, renewed=renewed), judged)
        if not cursor.waiting:
            cursor = replace(self._end_round(cursor), few=None)
        self._tell(cursor)
        self._move(cursor, pass_ended=True)

    def _told(
        self, cursor: SearchCursor, index: int, request: Request, result: Evaluation,
        judged: Judged,
    ) -> SearchCursor:  # fmt: skip
        """Return the cursor after the evaluation of a member."""
        before, solver = cursor.states[index], self._solvers[index]
        state = solver.tell(before, result)
        status = status_after(state, solver.gap(state), self._settings, None, self._scans.n_rows)
        cursor = cursor.with_state(index, replace(state, status=status))
        where = [i for i, point in enumerate(request.points) if np.array_equal(point, state.point)]
        if index >= len(cursor.scores) or not (where or self._apart):
            return cursor
        scores = cursor.scores.copy()
        scores[index, :2] = np.nan
        if not where:
            return replace(cursor, scores=scores)
        best = where[0]
        scores[index, 2] = result.accuracy[best]
        if judged.weight[best] > 0:
            scores[index, :2] = judged.loss[best], judged.correct[best]
            scores[index, :2] /= judged.weight[best]
        return replace(cursor, scores=scores)

    def _end_round(self, cursor: SearchCursor) -> SearchCursor:
        """Have rows that are apart judge, and let those go that cannot win any more."""
        if self._apart is not None:
            cursor = self._judged_apart(cursor, self._apart)
        return self._pruning.pruned(cursor) if self._prunes else cursor

    def _pruned_by_sample(self, cursor: SearchCursor) -> SearchCursor:
        """Let candidates go that the sample alone rules out: no pass is for them."""
        apart = self._apart
        if not self._prunes or apart is None or not self._pruning.is_first(cursor):
            return cursor
        if apart.source.n_samples > _FEW * self._scans.n_rows:
            return cursor
        out = cursor.all_as(Status.RUNNING, Status.RULED_OUT)
        cursor = self._pruning.pruned(self._judged_apart(out, apart))
        goes_on = [[state.status is Status.RUNNING] for state in cursor.states]
        return replace(cursor, scores=np.where(goes_on, np.nan, cursor.scores))

    def _judged_apart(self, cursor: SearchCursor, apart: Apart) -> SearchCursor:
        """Return the cursor with scores by the rows that are apart, where there are none yet."""
        scores = cursor.scores.copy()
        new = np.flatnonzero(np.isnan(scores[:, 0])).tolist()
        while new:
            points = [reached(self._members[index], cursor.states[index])[0] for index in new]
            length = block_length([Request(point[None]) for point in points])
            own, new = new[:length], new[length:]
            members = [self._members[index] for index in own]
            sums = self._scans.judge(apart, members, points[:length])
            scores[own, :2] = np.stack([sums.loss, sums.correct], axis=1) / sums.weight[:, None]
        return replace(cursor, scores=scores)

    def _gap(self, cursor: SearchCursor, index: int) -> float | None:
        return self._members[index].solver.gap(cursor.states[index])

    def _tell(self, cursor: SearchCursor) -> None:
        """Tell of a read, by how the candidate stands that is the best so far."""
        event = self._candidates(cursor)
        members = [i for i in range(len(cursor.scores)) if self._members[i].candidate == event.best]
        if len(cursor.states) > len(cursor.scores):
            members = [len(cursor.scores)]
        states = [cursor.states[index] for index in members]
        loss, norm = (
            float(np.mean([getattr(state, name) for state in states]))
            for name in ("value", "gradient_norm")
        )
        gaps = [gap for index in members if (gap := self._gap(cursor, index)) is not None]
        accuracy = by_fold(cursor.scores[:, 2], self._n_folds)[:, event.best].mean()
        ledger = self._course.ledger
        ledger.see(loss, norm, Evaluation(np.array([loss]), np.empty(0), np.array([accuracy])))
        scores = event.losses[event.best], event.accuracies[event.best]
        validation = None if np.isnan(scores[0]) else ValidationScores(*scores)
        ledger.emit(event)
        ledger.emit(ledger.end_pass(validation, max(gaps, default=None)))

    def _candidates(self, cursor: SearchCursor) -> CandidatesJudged:
        losses = by_fold(cursor.scores[:, 0], self._n_folds)
        means = losses.mean(axis=0)
        best = 0 if np.isnan(means).all() else int(np.nanargmin(means))
        best = best if cursor.chosen is None else cursor.chosen
        statuses = [state.status for state in cursor.states[: len(cursor.scores)]]
        running, lost = (
            by_fold(np.array([status is wanted for status in statuses]), self._n_folds)
            for wanted in (Status.RUNNING, Status.RULED_OUT)
        )
        alphas, l1_ratios = zip(*self._found.pairs, strict=True)
        return CandidatesJudged(
            alphas, l1_ratios, tuple(means.tolist()),
            tuple((losses.std(axis=0) / max(len(losses) - 1, 1) ** 0.5).tolist()),
            tuple(by_fold(cursor.scores[:, 1], self._n_folds).mean(axis=0).tolist()),
            tuple(running.sum(axis=0).tolist()), tuple(map(any, lost.T.tolist())), best,
        )  # fmt: skip

    def _move(self, cursor: SearchCursor, *, pass_ended: bool = False) -> None:
        self._course.move(cursor, pass_ended=pass_ended)
