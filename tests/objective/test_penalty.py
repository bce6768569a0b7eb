from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from dsoftmax.objective.penalty import ElasticNet

POINT = np.random.default_rng(0).normal(size=(5, 3))
UNIT = np.array([[1.0], [0.1], [3.0], [7.0]])


@pytest.mark.parametrize("l1_ratio", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 1e-4, 2.5])
@pytest.mark.parametrize("columns", [1, 3])
def test_the_value_is_the_elastic_net_of_the_penalised_coefficients(
    alpha: float, l1_ratio: float, columns: int
) -> None:
    penalty, point = ElasticNet(alpha, l1_ratio, UNIT), POINT[:, :columns]
    theta = UNIT * point[:-1]
    l1, l2 = np.linalg.norm(theta.ravel(), 1), np.linalg.norm(theta.ravel()) ** 2
    value = penalty.l2_value_gradient(point)[0] + penalty.l1_value(point)
    np.testing.assert_allclose(value, alpha * (l1_ratio * l1 + (1 - l1_ratio) / 2 * l2), rtol=1e-14)


@pytest.mark.parametrize("l1_ratio", [0.0, 0.3, 1.0])
def test_the_gradient_is_the_finite_difference_of_the_smooth_part(l1_ratio: float) -> None:
    penalty = ElasticNet(0.7, l1_ratio, UNIT)
    gradient = penalty.l2_value_gradient(POINT)[1]
    for place in np.ndindex(*POINT.shape):
        nudge = np.zeros_like(POINT)
        nudge[place] = 1e-5
        change = (
            penalty.l2_value_gradient(POINT + nudge)[0]
            - penalty.l2_value_gradient(POINT - nudge)[0]
        )
        np.testing.assert_allclose(gradient[place], change / 2e-5, rtol=1e-7, atol=1e-9)


def test_the_intercept_is_not_penalised() -> None:
    penalty, moved = ElasticNet(2.0, 0.5, UNIT), POINT.copy()
    moved[-1] += 100
    assert penalty.l2_value_gradient(moved)[0] == penalty.l2_value_gradient(POINT)[0]
    assert penalty.l1_value(moved) == penalty.l1_value(POINT)
    assert not penalty.l2_value_gradient(moved)[1][-1].any()
    np.testing.assert_array_equal(penalty.prox(moved, 10.0)[-1], moved[-1])


@pytest.mark.parametrize("step", [0.01, 0.5, 4.0])
def test_prox_minimises_what_it_says(step: float) -> None:
    penalty = ElasticNet(0.4, 0.5, UNIT)
    result = penalty.prox(POINT, step)
    for (row, column), start in np.ndenumerate(POINT[:-1]):
        slope = 0.4 * 0.5 * UNIT[row, 0]

        def cost(v: float, start: float = start, slope: float = slope) -> float:
            return (v - start) ** 2 / (2 * step) + slope * abs(v)

        best = minimize_scalar(cost, bounds=(-5, 5), method="bounded", options={"xatol": 1e-10})
        np.testing.assert_allclose(result[row, column], best.x, atol=1e-6)
        assert cost(result[row, column]) <= best.fun + 1e-15


def test_prox_gives_exact_zeros_within_the_threshold_and_only_there() -> None:
    threshold = 2.0 * 0.4 * 0.5 * UNIT
    within = np.abs(POINT[:-1]) <= threshold
    assert within.any()
    assert not within.all()
    np.testing.assert_array_equal(ElasticNet(0.4, 0.5, UNIT).prox(POINT, 2.0)[:-1] == 0, within)


@pytest.mark.parametrize(("alpha", "l1_ratio"), [(0.0, 1.0), (3.0, 0.0)])
def test_without_an_l1_part_nothing_is_changed(alpha: float, l1_ratio: float) -> None:
    penalty, kept = ElasticNet(alpha, l1_ratio, UNIT), POINT.copy()
    np.testing.assert_array_equal(penalty.prox(POINT, 5.0), kept)
    np.testing.assert_array_equal(penalty.min_norm_subgradient(-POINT, POINT), kept)
    assert penalty.l1_value(POINT) == 0
    np.testing.assert_array_equal(POINT, kept)


@pytest.mark.parametrize("l1_ratio", [0.0, 0.3, 1.0])
def test_the_objective_falls_along_the_subgradient_as_fast_as_its_length_says(
    l1_ratio: float,
) -> None:
    penalty = ElasticNet(0.7, l1_ratio, UNIT)
    point = np.where(np.abs(POINT) < 0.5, 0.0, POINT)  # zeros too, where the L1 part has a corner
    gradient = np.random.default_rng(1).normal(size=point.shape)
    steepest = penalty.min_norm_subgradient(point, gradient)

    def value(moved: np.ndarray) -> float:
        return float(np.vdot(gradient, moved)) + penalty.l1_value(moved)

    step = 1e-7
    slope = (value(point - step * steepest) - value(point)) / step
    assert slope == pytest.approx(-np.vdot(steepest, steepest), rel=1e-6)
