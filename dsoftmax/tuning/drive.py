"""The loop of a search: what members ask for together is read together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from dsoftmax.course import Course
from dsoftmax.events import CandidatesJudged, ValidationScores
from dsoftmax.judging import Judged
from dsoftmax.reduction import Array
from dsoftmax.settings import Settings
from dsoftmax.solvers.base import Evaluation, Request, Rows, Solver, State, Status
from dsoftmax.stopping import status_after
from dsoftmax.tuning.candidates import Candidates, by_fold, doubt, ruled_out
from dsoftmax.tuning.cursor import SearchCursor
from dsoftmax.tuning.members import Member, unhurried
from dsoftmax.tuning.moments import FoldMoments
from dsoftmax.tuning.options import Options
from dsoftmax.tuning.room import are_few
from dsoftmax.tuning.scans import Scans
from dsoftmax.tuning.stack import block_length
from dsoftmax.validation import Apart


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
        self._n_folds = len(course.cursor.scores) // len(found.pairs)

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
            cursor = self._course.cursor
            reads, reserve = self._reads(cursor), self._reserve(cursor)
            if reads and not self._scans.affordable(reads, reserve):
                self._move(self._spent(cursor))
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
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            while asking := self._asking(pool):
                length = block_length([request for _, request in asking])
                indexes, requests = zip(*asking[:length], strict=True)
                members = [self._members[index] for index in indexes]
                solvers = [self._solvers[index] for index in indexes]
                results = self._scans.evaluate_sample(members, requests)
                cursor = self._course.cursor
                states = [cursor.states[index] for index in indexes]
                for index, state in zip(
                    indexes, pool.map(_told, solvers, states, results), strict=True
                ):
                    cursor = cursor.with_state(index, state)
                self._move(cursor)

    def _asking(self, pool: ThreadPoolExecutor) -> list[tuple[int, Request]]:
        """Return which members ask for rows in memory, and for what."""
        cursor = self._course.cursor
        solvers = [self._solvers[index] for index in cursor.running]
        asked = pool.map(_asked, solvers, [cursor.states[index] for index in cursor.running])
        pairs = zip(cursor.running, asked, strict=True)
        return [(index, request) for index, request in pairs if request.rows is Rows.SAMPLE]

    def _read(self, waiting: tuple[int, ...]) -> None:
        """Evaluate as many members on all rows as one read serves."""
        cursor = self._course.cursor
        requests = [self._solvers[i].ask(cursor.states[i]) for i in waiting]
        length = block_length(requests)
        own, requests = waiting[:length], requests[:length]
        members = [self._members[index] for index in own]
        # Candidates that a larger budget lets go on are to find the rows that they left.
        may_renew = len(cursor.states) == len(cursor.scores) and not cursor.renewed
        renew = may_renew and any(request.renew for request in requests)
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
        if index >= len(cursor.scores) or not where:
            return cursor
        scores, best = cursor.scores.copy(), where[0]
        scores[index, 2] = result.accuracy[best]
        scores[index, :2] = np.nan
        if judged.weight[best] > 0:
            scores[index, :2] = judged.loss[best], judged.correct[best]
            scores[index, :2] /= judged.weight[best]
        return replace(cursor, scores=scores)

    def _end_round(self, cursor: SearchCursor) -> SearchCursor:
        """Have rows that are apart judge, and let those go that cannot win any more."""
        if self._apart is not None:
            cursor = self._judged_apart(cursor, self._apart)
        options = self._options
        if not options.prune or options.scoring != "neg_log_loss":
            return cursor
        losses = by_fold(cursor.scores[:, 0], self._n_folds)
        lost = ruled_out(-losses, self._doubts(cursor), options.select)
        for index, state in enumerate(cursor.states[: len(cursor.scores)]):
            if state.status is Status.RUNNING and lost[self._members[index].candidate]:
                cursor = cursor.with_state(index, replace(state, status=Status.RULED_OUT))
            elif state.status is Status.RULED_OUT and not lost[self._members[index].candidate]:
                # What was the best has become worse on its way to its minimum.
                cursor = cursor.with_state(index, replace(state, status=Status.RUNNING))
        return cursor

    def _judged_apart(self, cursor: SearchCursor, apart: Apart) -> SearchCursor:
        """Return the cursor with scores by the rows that are apart, where there are none yet."""
        scores = cursor.scores.copy()
        new = np.flatnonzero(np.isnan(scores[:, 0])).tolist()
        while new:
            requests = [Request(cursor.states[index].point[None]) for index in new]
            length = block_length(requests)
            own, new = new[:length], new[length:]
            members = [self._members[index] for index in own]
            sums = self._scans.judge(apart, members, [cursor.states[i].point for i in own])
            scores[own, :2] = np.stack([sums.loss, sums.correct], axis=1) / sums.weight[:, None]
        return replace(cursor, scores=scores)

    def _doubts(self, cursor: SearchCursor) -> Array:
        """Return by how much losses on held-out rows may still change (n_folds, n_candidates)."""
        assert cursor.first is not None, "it was read"
        height, width = cursor.states[0].point.shape
        n_coefficients, doubts = height * max(width - 1, 1), []
        for index in range(len(cursor.scores)):
            n_judging = self._n_judging(cursor.first, self._members[index].fold)
            n_learned = self._scans.n_used - (n_judging if self._apart is None else 0)
            gap = self._gap(cursor, index)
            doubts.append(doubt(gap, n_coefficients, max(n_learned, 1), max(n_judging, 1)))
        return by_fold(np.array(doubts), self._n_folds)

    def _n_judging(self, first: FoldMoments, fold: int) -> int:
        """Return how many rows judge the models without a fold, by what they weigh."""
        if self._apart is not None:
            return self._apart.source.n_samples
        share = first.judging[fold].sum() / first.judging.sum()
        return int(share * self._scans.n_used)

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


def _asked(solver: Solver[Any], state: State) -> Request:
    return solver.ask(state)


def _told(solver: Solver[Any], state: State, result: Evaluation) -> State:
    told: State = solver.tell(state, result)
    return told
