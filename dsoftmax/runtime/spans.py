"""Spans and the tree that adds them up: functions of the data's chunking alone.

Floating-point sums depend on their order. Here the leaves are spans, runs of whole chunks,
and the order is a binary tree over the index of the span. Whoever computes a part of the
tree, and in whatever order the parts arrive, the total has the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Sums = TypeVar("Sums")
Span = tuple[int, int]

_SPAN_BYTES = 1 << 22
_MOST_TASK_BYTES = 1 << 28
_MORE_A_SLOT = 1 << 22  # by which the bound on tasks grows with each slot, beyond 64 slots
_SMALLEST_TASK = 8  # one in so many of the largest
_TASKS_A_SLOT = 2  # that a slot is given at once: one that runs, and one that waits


def cut_spans(boundaries: tuple[int, ...], row_bytes: int, sums_bytes: int = 0) -> tuple[Span, ...]:
    """Return runs of whole chunks of at least 4 MiB decoded (the last may be shorter).

    They are also at least four times `sums_bytes`, the size of the sums of each span, so that it
    costs little to add these up.

    Examples
    --------
    >>> cut_spans((0, 10, 20, 25), row_bytes=1 << 22)
    ((0, 10), (10, 20), (20, 25))
    >>> cut_spans((0, 10, 20, 25), row_bytes=1)
    ((0, 25),)
    """
    spans, start = [], boundaries[0]
    least = max(_SPAN_BYTES, 4 * sums_bytes)
    for stop in boundaries[1:]:
        if (stop - start) * row_bytes >= least or stop == boundaries[-1]:
            spans.append((start, stop))
            start = stop
    return tuple(spans)


def most_rows(spans: Sequence[Span]) -> int:
    """Return the rows of the longest span."""
    return max((stop - start for start, stop in spans), default=0)


def spans_without(excluded: Sequence[Span], spans: Sequence[Span]) -> list[Span]:
    """Return spans without excluded rows, which do not reach beyond the span they begin in.

    Examples
    --------
    >>> around([(10, 20), (30, 50)], [(0, 30), (30, 50)])
    [(0, 10), (20, 30)]
    """
    remaining = []
    for start, stop in spans:
        holes = sorted(hole for hole in excluded if start <= hole[0] < stop)
        edges = [start, *(row for hole in holes for row in hole), stop]
        remaining += [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]
    return remaining


def cut_tasks(n_leaves: int, leaf_bytes: int, slots: int, *, in_memory: bool = False) -> list[Span]:
    """Return runs of 2^k leaves, each a whole subtree, that become shorter towards the end.

    Tasks become shorter so that slots end together (guided self-scheduling: Polychronopoulos and
    Kuck, 1987): each takes about half of a slot's share of the leaves that are left, since a slot
    is given two at once. But a task of less than 32 MiB is mostly overhead, and one of more than
    256 MiB is long to lose; from 64 slots on both bounds grow with their number, so that the
    scheduler keeps up. No slot stays without a task. Where the rows are `in_memory` a task costs
    nothing, and has no least size.

    Examples
    --------
    >>> [stop - start for start, stop in cut_tasks(50, 1 << 24, slots=2)]
    [16, 8, 8, 4, 4, 2, 2, 2, 2, 2]
    """
    even = max(1, n_leaves // slots)
    largest = max(_MOST_TASK_BYTES, slots * _MORE_A_SLOT)
    bounds = largest // _SMALLEST_TASK, largest
    least, most = (max(1, size // max(leaf_bytes, 1)) for size in bounds)
    least = 1 if in_memory else least
    runs, start = [], 0
    while start < n_leaves:
        share = _nearest_power((n_leaves - start) / (_TASKS_A_SLOT * slots))
        leaves = max(min(share, most, even), min(least, even), 1)
        stop = start + (1 << (leaves.bit_length() - 1))
        runs.append((start, min(stop, n_leaves)))
        start = stop
    return runs


def cut_groups(runs: Sequence[Span], fan_in: int) -> list[Span]:
    """Return ranges of consecutive tasks whose sums are best added up before they travel on.

    A range has at most `fan_in` tasks, all within a subtree of `fan_in` times the leaves of its
    first task: so their sums become one, or few.

    Parameters
    ----------
    runs : the leaves of each task, in order
    fan_in : int, a power of two

    Examples
    --------
    >>> cut_groups([(0, 4), (4, 8), (8, 12), (12, 16), (16, 20), (20, 22)], fan_in=4)
    [(0, 4), (4, 6)]
    """
    groups, first = [], 0
    while first < len(runs):
        start, stop = runs[first]
        leaves = fan_in << (stop - start - 1).bit_length()
        end, last = (start // leaves + 1) * leaves, first + 1
        while last < min(first + fan_in, len(runs)) and runs[last][1] <= end:
            last += 1
        groups.append((first, last))
        first = last
    return groups


def missing_parts(runs: Sequence[Span], missing: Collection[int]) -> Iterator[Span]:
    """Yield the parts of runs of leaves that are missing.

    Examples
    --------
    >>> list(within([(0, 4), (4, 6)], missing={0, 2, 3}))
    [(0, 1), (2, 4)]
    """
    for first, last in runs:
        start = first
        for index in range(first, last + 1):
            if index == last or index not in missing:
                if start < index:
                    yield start, index
                start = index + 1


def _nearest_power(number: float) -> int:
    """Return the power of two that is nearest to a number by its ratio, and at least one."""
    return 1 << max(0, round(math.log2(number)))


@dataclass
class Tree(Generic[Sums]):
    """The sum under way: finished nodes, merged as siblings meet.

    Attributes
    ----------
    n_leaves : how many leaves the whole sum has
    combine : adds the sums of a left and a right sibling
    nodes : finished sums by (level, index); a node covers leaves index << level on
    """

    n_leaves: int
    combine: Callable[[Sums, Sums], Sums]
    nodes: dict[tuple[int, int], Sums] = field(default_factory=dict)

    def add(self, level: int, index: int, sums: Sums) -> None:
        """Add a finished node, and merge it upwards as far as its siblings are there."""
        while (1 << level) < self.n_leaves:
            sibling = index ^ 1
            # A node at the right edge may have no sibling: it moves up as it is.
            if sibling << level < self.n_leaves:
                if (level, sibling) not in self.nodes:
                    break
                other = self.nodes.pop((level, sibling))
                sums = self.combine(sums, other) if index < sibling else self.combine(other, sums)
            level, index = level + 1, index >> 1
        self.nodes[(level, index)] = sums

    def missing(self) -> list[int]:
        """Return the leaves that no node covers yet."""
        covered = {
            leaf
            for level, index in self.nodes
            for leaf in range(index << level, (index + 1) << level)
        }
        return [leaf for leaf in range(self.n_leaves) if leaf not in covered]

    @property
    def total(self) -> Sums:
        """The sum of all leaves, once they are all there."""
        (total,) = self.nodes.values()
        return total
