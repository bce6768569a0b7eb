from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsoftmax.data.batches import Epoch, RowSlice, auto_batch_size, dealt, lane_count, permutation


def spans_of(sizes: list[int]) -> tuple[tuple[int, int], ...]:
    ends = list(itertools.accumulate(sizes, initial=0))
    return tuple(itertools.pairwise(ends))


@st.composite
def epochs(draw: st.DrawFn) -> Epoch:
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=9))
    lanes = draw(st.integers(1, len(sizes)))
    batch = draw(st.integers(lanes, max(lanes, sum(sizes))))
    number, shuffle = draw(st.integers(0, 3)), draw(st.booleans())
    return Epoch(spans_of(sizes), lanes, batch, draw(st.integers(0, 2**64)), number, shuffle)


def rows_of(row_slice: RowSlice) -> list[int]:
    return (row_slice.start + permutation(row_slice)[row_slice.low : row_slice.high]).tolist()


def rows_by_step(epoch: Epoch) -> list[list[int]]:
    return [
        [row for leaf in epoch.batch(step) for row_slice in leaf for row in rows_of(row_slice)]
        for step in range(epoch.n_steps)
    ]


@given(epochs())
def test_an_epoch_uses_every_row_once_in_batches_of_equal_size(epoch: Epoch) -> None:
    steps = rows_by_step(epoch)
    assert sorted(itertools.chain(*steps)) == list(range(epoch.n_rows))
    assert {len(step) for step in steps[:-1]} <= {epoch.batch_size}
    assert 0 < len(steps[-1]) <= epoch.batch_size


@given(epochs())
def test_no_piece_is_without_rows(epoch: Epoch) -> None:
    for step in range(epoch.n_steps):
        leaves = epoch.batch(step)
        assert len(leaves) == epoch.n_lanes
        assert all(row_slice.rows > 0 for leaf in leaves for row_slice in leaf)


@given(epochs())
def test_lanes_run_down_together(epoch: Epoch) -> None:
    sizes = [sum(np.diff(epoch.spans[i])[0] for i in lane) for lane in epoch.lanes]
    assert sorted(itertools.chain(*epoch.lanes)) == list(range(len(epoch.spans)))
    used = np.zeros(epoch.n_lanes)
    for step in range(epoch.n_steps):
        used += [sum(row_slice.rows for row_slice in leaf) for leaf in epoch.batch(step)]
        share = used.sum() / epoch.n_rows
        assert np.all(np.abs(used - share * np.array(sizes)) <= 1 + math.log2(epoch.n_lanes))
    np.testing.assert_array_equal(used, sizes)


@given(epochs())
def test_a_lane_takes_the_rows_of_its_spans_in_order(epoch: Epoch) -> None:
    for lane, spans in enumerate(epoch.lanes):
        row_slices = [
            row_slice for step in range(epoch.n_steps) for row_slice in epoch.batch(step)[lane]
        ]
        got = [row for row_slice in row_slices for row in rows_of(row_slice)]
        key = (epoch.seed, epoch.number) if epoch.shuffle else None
        bounds = [epoch.spans[i] for i in spans]
        assert got == [r for a, b in bounds for r in rows_of(RowSlice(a, b, 0, b - a, key))]


def test_without_shuffle_the_order_is_that_of_the_source() -> None:
    epoch = Epoch(spans_of([7, 3, 5]), 1, 4, seed=3, shuffle=False)
    assert list(itertools.chain(*rows_by_step(epoch))) == list(range(15))
    assert rows_by_step(epoch.next()) == rows_by_step(epoch)
    two = Epoch(spans_of([4, 4, 4, 4]), 2, 4, seed=3, shuffle=False)
    assert rows_by_step(two)[:2] == [[0, 1, 4, 5], [2, 3, 6, 7]]


def test_another_seed_or_epoch_gives_another_order_and_the_same_one_the_same() -> None:
    one = Epoch(spans_of([50] * 6), 2, 20, seed=1)
    orders = [one, one.next(), one.next().next(), Epoch(one.spans, 2, 20, seed=2)]
    assert len({str(rows_by_step(epoch)) for epoch in orders}) == 4
    assert len({epoch.lanes for epoch in orders}) == 4
    assert rows_by_step(Epoch(one.spans, 2, 20, seed=1, number=1)) == rows_by_step(one.next())


def test_the_rows_of_a_span_are_shuffled_anew_in_each_epoch() -> None:
    epochs = [Epoch(spans_of([50]), 1, 50, seed=1, number=number) for number in range(3)]
    orders = {str(rows_by_step(epoch)) for epoch in epochs}
    assert len(orders) == 3  # one span has one order of spans: what differs is the order within


def test_spans_of_equal_length_are_shuffled_differently() -> None:
    orders = [permutation(RowSlice(start, start + 50, 0, 50, (1, 0))) for start in (0, 50, 100)]
    assert len({order.tobytes() for order in orders}) == 3
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), range(50))


def test_a_batch_does_not_depend_on_those_before_it() -> None:
    epoch = Epoch(spans_of([9, 30, 4]), 2, 5, seed=1)
    expected = [epoch.batch(step) for step in range(epoch.n_steps)]
    for step in reversed(range(epoch.n_steps)):
        assert Epoch(epoch.spans, 2, 5, seed=1).batch(step) == expected[step]


def test_the_first_batches_decode_the_first_spans() -> None:
    epoch = Epoch(spans_of([20, 30, 40, 50, 5]), 3, 6, seed=1)
    first = [(leaf[0].start, leaf[0].stop) for leaf in epoch.first_spans()]
    assert first == [(leaf[0].start, leaf[0].stop) for leaf in epoch.batch(0)]
    for (row_slice,) in epoch.first_spans():
        assert (row_slice.low, row_slice.high) == (0, row_slice.stop - row_slice.start)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=33))
def test_dealt_adds_up_is_monotone_and_bounded(sizes: list[int]) -> None:
    array, before = np.array(sizes), [0] * len(sizes)
    for total in range(0, sum(sizes) + 1, max(1, sum(sizes) // 50)):
        counts = dealt(total, array)
        assert sum(counts) == total
        assert all(a <= b <= c for a, b, c in zip(before, counts, sizes, strict=True))
        before = counts
    assert dealt(sum(sizes), array) == sizes
    assert dealt(0, array) == [0] * len(sizes)


def test_dealt_does_not_overflow() -> None:
    sizes = np.array([2**40 + 1, 2**40, 3])
    assert sum(dealt(2**40, sizes)) == 2**40
    assert dealt(int(sizes.sum()), sizes) == sizes.tolist()


@given(*[st.integers(1, 10**12)] * 3)
def test_lanes_are_bounded(n_spans: int, span_bytes: int, batch: int) -> None:
    lanes = lane_count(n_spans, span_bytes, batch)
    assert 1 <= lanes <= min(n_spans, batch, 32)
    assert lanes == 1 or lanes * span_bytes <= max(1 << 26, n_spans * span_bytes // 32)


@pytest.mark.parametrize(("rows", "batch"), [(1, 64), (8192, 64), (10**9, 65_536)])
def test_the_default_batch_is_bounded(rows: int, batch: int) -> None:
    assert auto_batch_size(rows) == batch
