from __future__ import annotations

import numpy as np
import pytest

from dsoftmax.data.folds import HoldOut
from dsoftmax.data.label_counts import count_labels
from dsoftmax.data.opening import open_data
from dsoftmax.data.source import Source


def source(hold_out: HoldOut, weight: np.ndarray | None = None) -> Source:
    X = np.arange(200.0).reshape(100, 2)
    opened = open_data(X, np.arange(100) % 4, weight)
    return opened.__class__(**vars(opened) | {"hold_out": hold_out})


def test_which_rows_are_held_out_depends_on_index_and_seed_alone() -> None:
    hold_out = HoldOut(0.3, 7)
    whole = hold_out.rows(0, 1000)
    pieces = [hold_out.rows(start, min(start + 17, 1000)) for start in range(0, 1000, 17)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert not np.array_equal(HoldOut(0.3, 8).rows(0, 1000), whole)
    far = HoldOut(0.3, 2**31 - 1).rows(2**40, 2**40 + 1000)
    assert 200 < far.sum() < 400


@pytest.mark.parametrize("fraction", [1e-3, 0.1, 0.5, 0.999])
def test_the_fraction_is_held_out_on_average(fraction: float) -> None:
    n = 200_000
    shares = [HoldOut(fraction, seed).rows(0, n).mean() for seed in range(5)]
    deviation = np.sqrt(fraction * (1 - fraction) / n)
    assert np.abs(np.array(shares) - fraction).max() < 5 * deviation


def test_more_is_held_out_with_a_larger_fraction() -> None:
    assert HoldOut(0.4, 0).rows(0, 500)[HoldOut(0.1, 0).rows(0, 500)].all()


def test_neighbours_and_neighbouring_seeds_are_independent() -> None:
    first, second = (HoldOut(0.5, seed).rows(0, 100_000) for seed in (0, 1))
    for one, other in ((first, second), (first[1:], first[:-1]), (first[1:], second[:-1])):
        assert abs(np.mean(one == other) - 0.5) < 0.01


def test_a_chunk_holds_the_weight_of_its_rows_apart() -> None:
    weight = np.arange(1.0, 101.0)
    held = HoldOut(0.4, 0).rows(10, 60)
    chunk = source(HoldOut(0.4, 0), weight).read(10, 60)
    np.testing.assert_array_equal(chunk.sample_weight, np.where(held, 0, weight[10:60]))
    validation = chunk.only_held_out()
    np.testing.assert_array_equal(validation.sample_weight, weight[10:60][held])
    np.testing.assert_array_equal(validation.X, chunk.X[held])
    assert validation.where(1) == f"row {10 + np.flatnonzero(held)[1]}"


def test_a_chunk_that_is_shuffled_and_cut_still_knows_which_rows_are_held_out() -> None:
    chunk = source(HoldOut(0.4, 0)).read(10, 60)
    order = np.random.default_rng(0).permutation(50)
    validation = chunk.take(order).rows(20, 50).only_held_out()
    expected = [row for row in order[20:50] if HoldOut(0.4, 0).rows(10, 60)[row]]
    np.testing.assert_array_equal(validation.X[:, 0], 2.0 * (10 + np.array(expected)))
    assert validation.where(0) == f"row {10 + expected[0]}"


def test_labels_are_counted_without_the_rows_held_out_which_are_told_apart() -> None:
    held = HoldOut(0.4, 0).rows(0, 100)
    counts = count_labels(source(HoldOut(0.4, 0)).read_targets(0, 100))
    assert counts.counts.tolist() == [int((~held[k::4]).sum()) for k in range(4)]
    assert counts.weight.tolist() == counts.counts.tolist()
    assert counts.held_out.tolist() == [int(held[k::4].sum()) for k in range(4)]
