from __future__ import annotations

import numpy as np

from dsoftmax.objective.first_read import moments_of
from dsoftmax.objective.importance_sample import StratifiedSampler
from dsoftmax.objective.objective import Objective, build_objective
from dsoftmax.objective.reduction import Chunk
from dsoftmax.runtime.threads import ThreadExecutor
from dsoftmax.solvers.base import Request, RowSelection
from dsoftmax.training.sample_objective import SampleObjective


def problem(dtype: str) -> tuple[SampleObjective, Objective]:
    rng = np.random.default_rng(0)
    rows = Chunk(rng.normal(size=(500, 6)).astype("f4"), rng.integers(0, 3, 500), None, 0)
    kernel = np.dtype(dtype)
    moments = moments_of(3, kernel).chunk(rows)
    objective = build_objective(
        moments,
        class_weight=moments.class_weight,
        n_rows=500,
        alpha=1e-3,
        l1_ratio=0.0,
        fit_intercept=True,
        standardize=False,
        scaled=True,
        dtype=kernel,
    )
    sample = StratifiedSampler(np.full(3, 0.6), 0)(rows).joined()
    return SampleObjective(sample, kernel, ThreadExecutor()), objective


def test_the_sample_is_evaluated_in_float64_on_request() -> None:
    points = np.random.default_rng(1).normal(size=(2, 7, 3))
    single, use_float64 = (
        Request(points, RowSelection.SAMPLE),
        Request(points, RowSelection.SAMPLE, use_float64=True),
    )
    narrow, objective = problem("f4")
    rough, fine = narrow.evaluate(objective, single), narrow.evaluate(objective, use_float64)
    wide = SampleObjective(narrow.rows, np.dtype("f8"), narrow.executor)
    exact = wide.evaluate(problem("f8")[1], single)
    assert 1e-12 < np.abs(rough.gradient - exact.gradient).max() < 1e-5
    np.testing.assert_allclose(rough.value, exact.value, rtol=1e-5)
    np.testing.assert_allclose(fine.value, exact.value, rtol=1e-7)  # float32 moments
    assert np.array_equal(fine.gradient, narrow.evaluate(objective, use_float64).gradient)


def test_a_sample_knows_its_share_of_the_rows() -> None:
    sample, objective = problem("f8")
    found = sample.evaluate(objective, Request(np.zeros((1, 7, 3)), RowSelection.SAMPLE))
    assert found.share == sample.rows.share
    np.testing.assert_allclose(found.share, 0.6)
