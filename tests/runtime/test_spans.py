from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsoftmax.runtime.failures import _rows
from dsoftmax.runtime.spans import Tree, cut_spans, cut_tasks

SPAN = 4 << 20


@given(st.lists(st.integers(1, 10**5), min_size=1, max_size=30), st.integers(1, 1 << 23))
def test_spans_are_runs_of_whole_chunks_that_cover_all_rows(
    sizes: list[int], row_bytes: int
) -> None:
    boundaries = tuple(itertools.accumulate(sizes, initial=0))
    spans = cut_spans(boundaries, row_bytes)
    assert [row for span in spans for row in range(*span)][:1] == [0]
    assert [a for a, _ in spans[1:]] == [b for _, b in spans[:-1]]
    assert (spans[0][0], spans[-1][1]) == (0, boundaries[-1])
    assert {edge for span in spans for edge in span} <= set(boundaries)
    for start, stop in spans[:-1]:
        last = max(edge for edge in boundaries if edge < stop)
        assert (stop - start) * row_bytes >= SPAN
        assert last == start or (last - start) * row_bytes < SPAN


@given(st.integers(1, 3000), st.integers(1, 10**9), st.integers(1, 1000))
def test_tasks_are_whole_subtrees_of_32_to_256_mib_where_no_slot_goes_without(
    n_leaves: int, leaf_bytes: int, slots: int
) -> None:
    runs = cut_tasks(n_leaves, leaf_bytes, slots)
    assert [leaf for run in runs for leaf in range(*run)] == list(range(n_leaves))
    sizes, most = [stop - start for start, stop in runs], max(1 << 28, slots << 22)
    assert sizes == sorted(sizes, reverse=True)
    for (start, _), size in zip(runs[:-1], sizes[:-1], strict=True):
        assert size.bit_count() == 1
        assert start % size == 0
        assert size == 1 or leaf_bytes * size <= most
        assert size == 1 or size * slots <= n_leaves
        assert 2 * size * leaf_bytes > most // 8 or 2 * size * slots > n_leaves
    assert len(runs) >= min(slots, n_leaves)


def test_the_last_tasks_are_short_so_that_slots_end_together() -> None:
    sizes = [stop - start for start, stop in cut_tasks(147, 6 << 20, slots=2)]
    assert sizes == [32] * 2 + [16] * 3 + [8] * 2 + [4] * 4 + [3]


def test_few_leaves_in_memory_are_shared_out_evenly() -> None:
    sizes = [stop - start for start, stop in cut_tasks(12, 4 << 20, slots=2, in_memory=True)]
    assert sizes == [4, 2, 2, 1, 1, 1, 1]


def total(leaves: list[Any], level: int, order: list[int], combine: Any) -> Any:
    """Add up tasks of 2^level leaves, whose nodes arrive in an order."""
    size, tree = 1 << level, Tree(len(leaves), combine)
    tasks = []
    for first in range(0, len(leaves), size):
        part = Tree(len(leaves), combine)
        for index in range(first, min(first + size, len(leaves))):
            part.add(0, index, leaves[index])
        tasks.append(part.nodes)
    for task in sorted(range(len(tasks)), key=lambda i: order[i]):
        for (node_level, index), sums in tasks[task].items():
            tree.add(node_level, index, sums)
    return tree.total


def recursive(leaves: list[Any]) -> Any:
    """The tree written out: the left half has the largest power of two of leaves."""
    if len(leaves) == 1:
        return leaves[0]
    left = 1 << ((len(leaves) - 1).bit_length() - 1)
    return recursive(leaves[:left]) + recursive(leaves[left:])


@given(n=st.integers(1, 70), level=st.integers(0, 7), data=st.data())
def test_the_total_has_the_same_bits_for_any_tasks_and_any_arrival(
    n: int, level: int, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(n)))
    rng = np.random.default_rng(n)
    leaves = [rng.normal(size=3) * 10.0 ** rng.integers(-8, 8) for _ in range(n)]
    got = total(leaves, level, order, lambda a, b: a + b)
    assert got.tobytes() == recursive(leaves).tobytes()


@given(n=st.integers(1, 70), level=st.integers(0, 7), data=st.data())
def test_siblings_are_combined_left_to_right(n: int, level: int, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(n)))
    got = total([(i,) for i in range(n)], level, order, lambda a, b: a + b)
    assert got == tuple(range(n))


def test_finished_siblings_are_not_kept() -> None:
    tree: Tree[int] = Tree(1 << 10, lambda a, b: a + b)
    for index in range(1 << 10):
        tree.add(0, index, 1)
        assert len(tree.nodes) == (index + 1).bit_count()
    assert tree.total == 1 << 10


def test_an_unfinished_sum_has_no_total() -> None:
    tree: Tree[int] = Tree(3, lambda a, b: a + b)
    tree.add(0, 0, 1)
    tree.add(0, 2, 1)
    with pytest.raises(ValueError, match="unpack"):
        _ = tree.total


def test_a_message_names_the_runs_of_spans_that_tasks_read() -> None:
    spans = [(485, 582), (97, 194), (0, 97), (485, 582)]
    assert _rows(spans) == "0 to 193, 485 to 581"
