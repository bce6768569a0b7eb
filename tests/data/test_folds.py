from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from dsoftmax.data.folds import UserFolds, parts_of, stratified
from dsoftmax.errors import DataError
from dsoftmax.objective.reduction import NEVER, Chunk, fold_weights


def chunks_of(y: np.ndarray, bounds: list[int]) -> list[Chunk]:
    edges = [0, *bounds, len(y)]
    return [Chunk(np.empty((b - a, 0)), y[a:b], None, a) for a, b in pairwise(edges)]


def folds_of(y: np.ndarray, n_folds: int, seed: int, bounds: list[int] | None = None) -> np.ndarray:
    chunks = chunks_of(y, bounds or [])
    reduction = parts_of(int(y.max()) + 1)
    parts = np.concatenate([reduction.chunk(chunk) for chunk in chunks])
    folds = stratified(n_folds, seed, parts)
    return np.concatenate([folds.of(chunk) for chunk in chunks])


@pytest.mark.parametrize("n_folds", [2, 5, 10])
@pytest.mark.parametrize("order", ["sorted", "mixed"])
def test_the_folds_of_a_class_differ_by_a_row_at_most(n_folds: int, order: str) -> None:
    y = np.repeat([0, 1, 2, 3], [997, 103, 10, 1])
    if order == "mixed":
        np.random.default_rng(0).shuffle(y)
    folds = folds_of(y, n_folds, seed=3)
    assert folds.min() == 0
    assert folds.max() == n_folds - 1
    for label in range(4):
        counts = np.bincount(folds[y == label], minlength=n_folds)
        assert counts.max() - counts.min() <= 1


def test_how_the_rows_are_chunked_does_not_change_their_folds() -> None:
    y = np.random.default_rng(0).integers(0, 3, 500)
    whole = folds_of(y, 5, seed=1)
    np.testing.assert_array_equal(whole, folds_of(y, 5, seed=1, bounds=[1, 77, 78, 400]))


def test_another_seed_deals_other_folds_that_are_about_independent() -> None:
    y = np.zeros(50_000, int)
    one, other = folds_of(y, 5, seed=0), folds_of(y, 5, seed=1)
    assert abs((one == other).mean() - 0.2) < 0.01
    assert abs((one[1:] == one[:-1]).mean() - 0.04) < 0.01  # equal only where two blocks meet
    counts = np.histogram2d(one, other, bins=5)[0]
    assert counts.min() > 0.9 * counts.mean()


def test_rows_that_are_left_out_are_in_no_fold_and_count_for_none() -> None:
    y = np.zeros(10, int)
    left_out = np.array([1, 0] * 5, np.uint8)
    chunk = Chunk(np.empty((10, 0)), y, None, 0, left_out=left_out)
    folds = stratified(5, 0, parts_of(1).chunk(chunk)).of(chunk)
    assert (folds[left_out > 0] == NEVER).all()
    assert sorted(folds[left_out == 0]) == [0, 1, 2, 3, 4]


def test_a_task_gets_only_what_it_needs_of_the_folds() -> None:
    y = np.random.default_rng(0).integers(0, 3, 500)
    chunks = chunks_of(y, [100, 200])
    parts = np.concatenate([parts_of(3).chunk(chunk) for chunk in chunks])
    folds = stratified(4, 0, parts)
    part = folds.part(100, 200)
    assert len(part.starts) == 1
    np.testing.assert_array_equal(part.of(chunks[1]), folds.of(chunks[1]))


def test_more_folds_than_any_class_has_rows_are_refused() -> None:
    with pytest.raises(DataError, match="cv is 5 folds, and no class has more than 3 rows"):
        folds_of(np.array([0, 0, 0, 1]), 5, seed=0)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, "U3"])
def test_given_folds_are_known_by_their_names(dtype: str) -> None:
    names = np.array([10, 20, 30]).astype(dtype)
    given = np.array([20, 10, 30, 20]).astype(dtype)
    chunk = Chunk(np.empty((4, 0)), np.zeros(4, int), None, 0)
    np.testing.assert_array_equal(UserFolds(names).of(chunk, given), [1, 0, 2, 1])


def test_a_name_that_is_none_puts_a_row_in_no_fold() -> None:
    chunk = Chunk(np.empty((3, 0)), np.zeros(3, int), None, 0)
    np.testing.assert_array_equal(
        UserFolds(np.array([0, 1])).of(chunk, np.array([-1, 1, 0])), [NEVER, 1, 0]
    )


def test_a_model_learns_from_all_folds_but_its_own_by_which_it_is_judged() -> None:
    fold, weight = np.array([0, 1, NEVER]), np.array([2.0, 3.0, 4.0])
    judging = np.array([1.0, 1.5, 2.0])
    chunk = Chunk(np.empty((3, 1)), np.zeros(3, int), weight, 0, held_out=judging, fold=fold)
    learned, judged = fold_weights(chunk, np.array([0, 1, -2]))
    np.testing.assert_array_equal(learned, [[0, 3, 4], [2, 0, 4], [2, 3, 4]])
    np.testing.assert_array_equal(judged, [[1, 0, 0], [0, 1.5, 0], [0, 0, 0]])
