"""Searches of many models side by side, on the rows that are kept in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dsoftmax.solvers.base import Evaluation, Request, Rows, Solver, State, Status
from dsoftmax.tuning.members import Member
from dsoftmax.tuning.scans import Scans
from dsoftmax.tuning.stack import block_length


def searched(
    members: Sequence[Member], solvers: Sequence[Solver[Any]], states: Sequence[State],
    scans: Scans,
) -> Iterator[tuple[State, ...]]:  # fmt: skip
    """Let models go on with what they can learn from the rows in memory.

    Yields
    ------
    their states after each evaluation, until none that runs asks for one
    """
    found = list(states)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while asking := _asking(pool, solvers, found):
            length = block_length([request for _, request in asking])
            indexes, requests = zip(*asking[:length], strict=True)
            results = scans.evaluate_sample([members[index] for index in indexes], requests)
            before = [found[index] for index in indexes]
            told = pool.map(_told, [solvers[index] for index in indexes], before, results)
            for index, state in zip(indexes, told, strict=True):
                found[index] = state
            yield tuple(found)


def _asking(
    pool: ThreadPoolExecutor, solvers: Sequence[Solver[Any]], states: Sequence[State]
) -> list[tuple[int, Request]]:
    """Return which of them ask for rows in memory, and for what."""
    running = [index for index, state in enumerate(states) if state.status is Status.RUNNING]
    asked = pool.map(_asked, [solvers[i] for i in running], [states[i] for i in running])
    pairs = zip(running, asked, strict=True)
    return [(index, request) for index, request in pairs if request.rows is Rows.SAMPLE]


def _asked(solver: Solver[Any], state: State) -> Request:
    return solver.ask(state)


def _told(solver: Solver[Any], state: State, result: Evaluation) -> State:
    told: State = solver.tell(state, result)
    return told
