"""Searches of many models side by side, on the rows that are kept in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dsoftmax.model_selection.models import PathModel
from dsoftmax.model_selection.reads import Scans
from dsoftmax.model_selection.stack import Group, block_length
from dsoftmax.solvers.base import FullBatchState, Request, RowSelection, Solver, Status


def searched(
    members: Sequence[PathModel],
    solvers: Sequence[Solver[Any]],
    states: Sequence[FullBatchState],
    heads: Sequence[int],
    scans: Scans,
) -> Iterator[tuple[FullBatchState, ...]]:
    """Let some of the models go on with what they can learn from the rows in memory.

    Yields
    ------
    their states after each evaluation, until none that runs asks for one
    """
    found = list(states)
    while asking := _asking(solvers, found, heads):
        length = block_length([Group(members[index], request) for index, request in asking])
        indexes, requests = zip(*asking[:length], strict=True)
        results = scans.evaluate_sample([members[index] for index in indexes], requests)
        for index, result in zip(indexes, results, strict=True):
            found[index] = solvers[index].tell(found[index], result)
        yield tuple(found)


def _asking(
    solvers: Sequence[Solver[Any]], states: Sequence[FullBatchState], heads: Sequence[int]
) -> list[tuple[int, Request]]:
    """Return which of them ask for rows in memory, and for what."""
    running = [index for index in heads if states[index].status is Status.RUNNING]
    pairs = [(index, solvers[index].ask(states[index])) for index in running]
    return [(index, request) for index, request in pairs if request.rows is RowSelection.SAMPLE]
