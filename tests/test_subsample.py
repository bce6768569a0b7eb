from __future__ import annotations

import numpy as np
import pytest

from dsoftmax.reduction import Chunk
from dsoftmax.subsample import (
    ByClass,
    ByInfluence,
    Influence,
    Subsample,
    auto_size,
    class_rates,
    scale_for,
)


def chunk(n: int = 4000, K: int = 3, start: int = 0) -> Chunk:
    rng = np.random.default_rng(start)
    return Chunk(rng.normal(size=(n, 4)).astype("f4"), rng.integers(0, K, n), None, start)


def test_the_first_rows_stand_for_all_of_their_class() -> None:
    rates = np.array([0.5, 0.1, 1.0])
    rows = chunk()
    picked = ByClass(rates, 7)(rows).joined()
    (codes,), (weight,) = picked.codes, picked.weight
    for code in range(3):
        own = rows.codes == code
        np.testing.assert_allclose(weight[codes == code].sum(), own.sum(), rtol=0.25)
    assert (weight[codes == 2] == 1).all()
    totals = np.array([10.0, 20.0, 30.0])
    stratified = picked.stratified(totals)
    np.testing.assert_allclose(np.bincount(codes, stratified.weight[0]), totals)


def test_what_is_picked_depends_on_the_seed_and_the_place_alone() -> None:
    rule = ByClass(np.full(3, 0.3), 7)
    first, again = rule(chunk()), rule(chunk())
    assert np.array_equal(first.X[0], again.X[0])
    assert not np.array_equal(first.X[0][:9], ByClass(rule.rates, 8)(chunk()).X[0][:9])


@pytest.mark.parametrize("size", [100, 1000, 3900])
def test_rows_are_picked_by_their_influence_as_many_as_were_asked_for(size: int) -> None:
    rng = np.random.default_rng(0)
    point = rng.normal(size=(1, 5, 3)).astype("f4")
    influence = Influence(point, rng.normal(size=(1, 5, 8)).astype("f4"), None)
    rows = chunk()
    scores = influence(rows)
    scale = scale_for(scores, np.ones(len(scores)), size)
    np.testing.assert_allclose(np.minimum(1, scale * scores).sum(), size, rtol=1e-9)
    picked = ByInfluence(influence, scale, 0)(rows)
    assert abs(picked.n_rows - size) < 5 * size**0.5
    np.testing.assert_allclose(picked.weight[0].sum(), 4000, rtol=0.2)


def test_a_row_that_the_model_is_certain_of_has_little_influence_unless_it_is_far_out() -> None:
    point = np.zeros((1, 3, 2), dtype="f4")
    point[0, 0] = [10, -10]
    sketch = np.zeros((1, 3, 2), dtype="f4")
    sketch[0, :2] = np.eye(2)
    X = np.array([[0, 1], [1, 0], [0, 50], [1, 50]], dtype="f4")
    certain_near, far, certain_far = Influence(point, sketch, None)(
        Chunk(X, np.zeros(4, int), None, 0)
    )[[1, 2, 3]]
    assert certain_near < certain_far < far


@pytest.mark.parametrize(
    ("rows", "size"), [([10, 990], 100), ([5, 5, 5], 9), ([0, 10, 10], 5), ([1, 1, 10**9], 1000)]
)
def test_class_rates_pick_as_many_rows_as_were_asked_for(rows: list[int], size: int) -> None:
    rates = class_rates(np.array(rows), size)
    assert ((rates >= 0) & (rates <= 1)).all()
    np.testing.assert_allclose((rates * rows).sum(), size)


def test_a_sample_of_all_rows_is_all_rows() -> None:
    assert (class_rates(np.array([3, 4]), 7) == 1).all()
    rows = chunk()
    assert ByClass(np.ones(3), 0)(rows).n_rows == 4000


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1_797, 64, 10, 64), 1_797), ((3, 1 << 24, 2, 1 << 24), 3), ((10**9, 784, 10, 784), 171_196)],
)
def test_the_size_is_bounded(shape: tuple[int, int, int, int], expected: int) -> None:
    assert auto_size(*shape) == expected


def test_blocks_are_joined_in_their_order() -> None:
    a, b = ByClass(np.ones(3), 0)(chunk(5)), ByClass(np.ones(3), 0)(chunk(3, start=5))
    joined = (a + b).joined()
    assert joined.n_rows == 8
    assert np.array_equal(joined.X[0], np.concatenate([chunk(5).X, chunk(3, start=5).X]))
    assert Subsample().n_rows == 0
