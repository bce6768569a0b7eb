from __future__ import annotations

import numpy as np
import pytest

from dsoftmax.objective.importance_sample import (
    ImportanceSample,
    LeverageSampler,
    LeverageScore,
    StratifiedSampler,
    auto_size,
    class_rates,
    scale_for,
)
from dsoftmax.objective.reduction import Chunk


def chunk(n: int = 4000, K: int = 3, start: int = 0) -> Chunk:
    rng = np.random.default_rng(start)
    return Chunk(rng.normal(size=(n, 4)).astype("f4"), rng.integers(0, K, n), None, start)


def test_the_first_rows_stand_for_all_of_their_class() -> None:
    rates = np.array([0.5, 0.1, 1.0])
    rows = chunk()
    picked = StratifiedSampler(rates, 7)(rows).joined()
    (codes,), (weight,) = picked.codes, picked.weight
    for code in range(3):
        own = rows.codes == code
        np.testing.assert_allclose(weight[codes == code].sum(), own.sum(), rtol=0.25)
    assert (weight[codes == 2] == 1).all()
    totals = np.array([10.0, 20.0, 30.0])
    stratified = picked.stratified(totals)
    np.testing.assert_allclose(np.bincount(codes, stratified.weight[0]), totals)


def test_what_is_picked_depends_on_the_seed_and_the_place_alone() -> None:
    rule = StratifiedSampler(np.full(3, 0.3), 7)
    first, again = rule(chunk()), rule(chunk())
    assert np.array_equal(first.X[0], again.X[0])
    assert not np.array_equal(first.X[0][:9], StratifiedSampler(rule.rates, 8)(chunk()).X[0][:9])


@pytest.mark.parametrize("size", [100, 1000, 3900])
def test_rows_are_picked_by_their_influence_as_many_as_were_asked_for(size: int) -> None:
    rng = np.random.default_rng(0)
    ends = rng.normal(size=(2, 5, 3)).astype("f4")
    leverage = LeverageScore(ends, rng.normal(size=(1, 5, 8)).astype("f4"), None)
    rows = chunk()
    scores = leverage.total(leverage.parts(rows))
    scale = scale_for(scores, np.ones(len(scores)), size)
    np.testing.assert_allclose(np.minimum(1, scale * scores).sum(), size, rtol=1e-9)
    picked = LeverageSampler(leverage, scale, 0)(rows)
    assert abs(picked.n_rows - size) < 5 * size**0.5
    np.testing.assert_allclose(picked.weight[0].sum(), 4000, rtol=0.2)


def test_a_row_that_the_model_is_certain_of_has_little_influence_unless_it_is_far_out() -> None:
    point = np.zeros((1, 3, 2), dtype="f4")
    point[0, 0] = [10, -10]
    sketch = np.zeros((1, 3, 2), dtype="f4")
    sketch[0, :2] = np.eye(2)
    X = np.array([[0, 1], [1, 0], [0, 50], [1, 50]], dtype="f4")
    leverage = LeverageScore(np.concatenate([point, point]), sketch, None)
    parts = leverage.parts(Chunk(X, np.zeros(4, int), None, 0))
    certain_near, far, certain_far = leverage.total(parts)[[1, 2, 3]]
    assert certain_near < certain_far < far


@pytest.mark.parametrize("n_columns", [1, 2, 5])
def test_the_influence_on_a_way_is_the_curvature_of_the_loss_along_it(n_columns: int) -> None:
    rng = np.random.default_rng(0)
    ends = rng.normal(size=(2, 5, n_columns))
    rows = chunk(50, K=max(n_columns, 2))
    found = LeverageScore(ends, np.ones((1, 5, 1)), None).parts(rows)[:, 1]

    def losses(share: float) -> np.ndarray:
        point = ends[1] + share * (ends[0] - ends[1])
        raw = rows.X @ point[:-1] + point[-1]
        raw = np.hstack([np.zeros((50, 1)), raw]) if n_columns == 1 else raw
        return np.logaddexp.reduce(raw, axis=1)

    step = 1e-4
    curvature = [
        (losses(at + step) - 2 * losses(at) + losses(at - step)) / step**2 for at in (0.0, 1.0)
    ]
    np.testing.assert_allclose(found, np.max(curvature, axis=0), rtol=1e-4, atol=1e-6)


def test_both_influences_count_alike_and_a_way_of_no_length_not_at_all() -> None:
    rng = np.random.default_rng(0)
    ends, sketch = rng.normal(size=(2, 5, 3)), rng.normal(size=(1, 5, 8))
    leverage = LeverageScore(ends, sketch, None)
    parts = leverage.parts(chunk())
    balanced = leverage.balanced(parts)
    np.testing.assert_allclose((parts * balanced.shares).sum(axis=0), 1)
    nowhere = LeverageScore(np.stack([ends[0], ends[0]]), sketch, None)
    parts = nowhere.parts(chunk())
    scores = nowhere.balanced(parts).total(parts)
    np.testing.assert_allclose(scores, parts[:, 0] / parts[:, 0].sum())


def test_a_row_that_the_model_was_certain_of_before_a_step_matters_after_it() -> None:
    ends = np.zeros((2, 2, 2))
    ends[1, 0] = [8, -8]  # certain of both rows, at the other end of neither
    rows = Chunk(np.array([[1.0], [1e-3]]), np.zeros(2, int), None, 0)
    far, near = LeverageScore(ends, np.ones((1, 2, 1)), None).parts(rows)[:, 1]
    assert far > 1e4 * near


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
    assert StratifiedSampler(np.ones(3), 0)(rows).n_rows == 4000


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1_797, 64, 10, 64), 1_797), ((3, 1 << 24, 2, 1 << 24), 3), ((10**9, 784, 10, 784), 171_196)],
)
def test_the_size_is_bounded(shape: tuple[int, int, int, int], expected: int) -> None:
    assert auto_size(*shape) == expected


def test_blocks_are_joined_in_their_order() -> None:
    a, b = (
        StratifiedSampler(np.ones(3), 0)(chunk(5)),
        StratifiedSampler(np.ones(3), 0)(chunk(3, start=5)),
    )
    joined = (a + b).joined()
    assert joined.n_rows == 8
    assert np.array_equal(joined.X[0], np.concatenate([chunk(5).X, chunk(3, start=5).X]))
    assert ImportanceSample().n_rows == 0


def test_the_share_of_a_sample_is_that_of_the_rows_that_count() -> None:
    rows = chunk()
    assert StratifiedSampler(np.ones(3), 7)(rows).share == 1
    np.testing.assert_allclose(StratifiedSampler(np.full(3, 0.3), 7)(rows).share, 0.3)
    weight = np.where(np.arange(4000) < 1000, 0.0, 2.0)
    weighted = StratifiedSampler(np.ones(3), 7)(rows._replace(sample_weight=weight))
    assert weighted.n_rows == 3000
    assert weighted.share == 1


def test_a_step_gone_astray_gives_rows_that_the_model_is_certain_of_no_influence() -> None:
    ends = np.zeros((2, 2, 2), "f4")
    ends[:, 0, 0] = 3e19, 1e19  # the square of the step is infinite in float32
    rows = Chunk(np.ones((4, 1), "f4"), np.zeros(4, int), None, 0)
    parts = LeverageScore(ends, np.ones((1, 2, 1), "f4"), None).parts(rows)
    assert np.array_equal(parts[:, 1], np.zeros(4))
