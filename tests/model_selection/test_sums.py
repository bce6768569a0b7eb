"""One point for the models of all folds, against one point each."""

from __future__ import annotations

import numpy as np
import pytest

from dsoftmax.model_selection.sums import partial_folds, partial_stack
from dsoftmax.objective.reduction import ALL, NEVER, Chunk


@pytest.mark.parametrize("rows", [0, 1, 7, 5000])
@pytest.mark.parametrize("n_columns", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_models_of_all_folds_at_one_point_have_the_sums_of_each_of_them(
    rows: int, n_columns: int, weighted: bool
) -> None:
    rng = np.random.default_rng(rows)
    fold = rng.integers(NEVER, 3, rows)
    weight = rng.random(rows) * (rng.random(rows) > 0.1) if weighted else None
    judging = np.ones(rows) if weight is None else weight
    codes = rng.integers(0, max(2, n_columns), rows)
    X = rng.normal(size=(rows, 4)).astype("f4")
    chunk = Chunk(X, codes, weight, 0, held_out=np.where(fold < 0, 0, judging), fold=fold)
    points = rng.normal(size=(2, 5, n_columns)).astype("f4")
    which, left_out = np.array([0, 0, 1, 1, 1, 0]), np.array([0, 2, 0, 1, 2, ALL])
    shift = np.ones(4, "f4")
    each = partial_stack(chunk, points[which], left_out, shift)
    shared = partial_folds(chunk, points, np.arange(3), shift)
    for index, (point, fold) in enumerate(zip(which, left_out, strict=True)):
        mine = shared.left_out(int(fold), slice(point, point + 1), len(points))
        other = each.models(slice(index, index + 1))
        for sums, expected in ((mine.learned, other.learned), (mine.judged, other.judged)):
            for name, array in vars(expected).items():
                np.testing.assert_allclose(getattr(sums, name), array, rtol=2e-5, atol=1e-4)
