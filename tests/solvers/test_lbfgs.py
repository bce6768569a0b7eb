from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_digits

from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.solvers.base import RowSelection, Status
from dsoftmax.solvers.lbfgs import LBFGS, LBFGSState, Pair, two_loop
from dsoftmax.typing import Array

EPS = float(np.finfo(float).eps)
Function = Callable[[Array], tuple[float, Array]]


def evaluated(f: Function, point: Array) -> Evaluation:
    value, gradient = f(point)
    return Evaluation(np.array([value]), gradient[None], np.zeros(1))


def run(
    f: Function,
    at: Array,
    tol: float = 1e-8,
    *,
    point: Array | None = None,
    noise: float = EPS,
    memory: int | None = None,
    most: int = 3000,
) -> tuple[LBFGSState, int]:
    """Minimise; return the last state and the number of evaluations."""
    solver = LBFGS(tol, noise, memory)
    state, asked = solver.start(at if point is None else point, evaluated(f, at), at), 0
    while state.status is Status.RUNNING and asked < most:
        request = solver.ask(state)
        assert request.points.shape == (1, *at.shape)
        assert request.rows is RowSelection.ALL
        state, asked = solver.tell(state, evaluated(f, request.points[0])), asked + 1
    return state, asked


def rosenbrock(point: Array) -> tuple[float, Array]:
    x, y = point[:, 0]
    slope = [-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)]
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2, np.array(slope)[:, None]


def quadratic(condition: float, size: int = 30) -> Function:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0]
    hessian = rotation * np.geomspace(1, condition, size) @ rotation.T

    def f(point: Array) -> tuple[float, Array]:
        away = point.reshape(-1, 1) - 1
        gradient = hessian @ away
        return 0.5 * float(np.vdot(away, gradient)), gradient.reshape(point.shape)

    return f


@cache
def digits() -> Function:
    X, y = load_digits(return_X_y=True)
    X, one_hot = np.column_stack([X / 16, np.ones(len(X))]), np.eye(10)[y]

    def f(point: Array) -> tuple[float, Array]:
        raw, ridge = X @ point, 1e-3 * np.vstack([point[:-1], np.zeros(10)])
        value = -(log_softmax(raw, axis=1) * one_hot).sum() / len(X)
        gradient = X.T @ (softmax(raw, axis=1) - one_hot) / len(X)
        return value + 0.5 * float(np.vdot(ridge, point)), gradient + ridge

    return f


@pytest.mark.parametrize("memory", [None, 3])
def test_it_reaches_the_minimum_of_rosenbrock(memory: int | None) -> None:
    state, asked = run(rosenbrock, np.array([[-1.2], [1.0]]), 1e-10, memory=memory)
    assert state.status is Status.CONVERGED
    np.testing.assert_allclose(state.point, 1, atol=1e-7)
    assert asked <= 60


@pytest.mark.parametrize(("condition", "most"), [(1, 5), (1e2, 60), (1e6, 400)])
def test_it_reaches_the_minimum_of_a_quadratic(condition: float, most: int) -> None:
    state, asked = run(quadratic(condition), np.zeros((10, 3)), 1e-9)
    assert state.status is Status.CONVERGED
    np.testing.assert_allclose(state.point, 1, atol=1e-9 * condition)
    assert asked <= most


def test_it_reaches_the_optimum_that_scipy_finds() -> None:
    f, zero = digits(), np.zeros((65, 10))
    state, asked = run(f, zero, 1e-7)

    def flat(x: Array) -> tuple[float, Array]:
        value, gradient = f(x.reshape(65, 10))
        return value, gradient.ravel()

    options = {"ftol": 0.0, "gtol": 1e-8, "maxiter": 5000, "maxcor": 50, "maxfun": 5000}
    best = minimize(flat, zero.ravel(), jac=True, method="L-BFGS-B", options=options)
    assert state.status is Status.CONVERGED
    assert state.value <= best.fun * (1 + 1e-8)
    np.testing.assert_allclose(state.value, f(state.point)[0], rtol=1e-14)
    assert asked <= 200


def test_it_stops_at_the_target_it_was_given() -> None:
    for tol in (1e-1, 1e-3, 1e-6):
        zero = np.zeros((65, 10))
        state, _ = run(digits(), zero, tol)
        assert state.status is Status.CONVERGED
        assert state.gradient_norm == np.abs(digits()(state.point)[1]).max()
        assert state.gradient_norm <= tol * np.abs(digits()(zero)[1]).max()


def test_values_never_rise() -> None:
    solver, f, zero = LBFGS(1e-6, 0.0), digits(), np.zeros((65, 10))
    state = solver.start(zero, evaluated(f, zero), zero)
    while state.status is Status.RUNNING:
        after = solver.tell(state, evaluated(f, solver.ask(state).points[0]))
        assert after.value < state.value or after.point is state.point
        state = after


def test_two_loops_are_the_inverse_of_bfgs() -> None:
    rng, size = np.random.default_rng(0), 6
    hessian = np.diag(np.arange(1.0, 7.0))
    steps = rng.normal(size=(4, size))
    pairs = [Pair(s, hessian @ s, 1 / float(s @ hessian @ s)) for s in steps]
    _, y, rho = pairs[-1]
    inverse = np.eye(size) / (rho * float(y @ y))
    for s, y, rho in pairs:
        left = np.eye(size) - rho * np.outer(s, y)
        inverse = left @ inverse @ left.T + rho * np.outer(s, s)
    for gradient in rng.normal(size=(5, size)):
        kept = gradient.copy()
        np.testing.assert_allclose(two_loop(gradient, pairs), inverse @ gradient, rtol=1e-11)
        np.testing.assert_array_equal(gradient, kept)
    np.testing.assert_array_equal(two_loop(kept, ()), kept)


def test_the_memory_is_bounded_and_keeps_the_newest() -> None:
    state, _ = run(quadratic(1e4), np.zeros((10, 3)), most=40, memory=4)
    assert len(state.pairs) == 4
    long, _ = run(quadratic(1e4), np.zeros((10, 3)), most=40)
    assert len(long.pairs) > 4
    _, last = long.pairs[-2:]
    assert last.rho * float(last.step @ last.change) == pytest.approx(1, rel=1e-12)


def test_nothing_is_asked_at_the_optimum() -> None:
    state, asked = run(quadratic(10), np.ones((10, 3)), tol=0.0)
    assert (state.status, asked) == (Status.CONVERGED, 0)


def test_a_start_at_the_optimum_stops_at_the_first_evaluation() -> None:
    state, asked = run(quadratic(10), np.zeros((10, 3)), point=np.ones((10, 3)))
    assert (state.status, asked) == (Status.CONVERGED, 1)
    assert state.value == 0


@pytest.mark.parametrize("tol", [1e-4, 1e-8])
def test_a_warm_start_has_the_target_of_a_cold_one(tol: float) -> None:
    zero = np.zeros((10, 3))
    state, _ = run(quadratic(100), zero, tol, point=np.full((10, 3), 1.5))
    assert state.status is Status.CONVERGED
    assert state.gradient_norm <= tol * np.abs(quadratic(100)(zero)[1]).max()


def test_a_start_whose_value_is_not_finite_is_said_to_be_that() -> None:
    def f(point: Array) -> tuple[float, Array]:
        value, gradient = quadratic(1)(point)
        return (np.inf, gradient) if point.max() > 100 else (value, gradient)

    state, _ = run(f, np.zeros((10, 3)), point=np.full((10, 3), 1e3))
    assert state.status is Status.NOT_FINITE


def test_a_start_whose_gradient_is_not_finite_has_not_converged() -> None:
    def f(point: Array) -> tuple[float, Array]:
        value, gradient = quadratic(1)(point)
        return value, gradient * (np.nan if point.max() > 100 else 1)

    state, _ = run(f, np.zeros((10, 3)), point=np.full((10, 3), 1e3))
    assert not state.status.converged


def test_the_line_search_does_not_cross_values_that_are_not_finite() -> None:
    def f(point: Array) -> tuple[float, Array]:
        x = float(point[0, 0])
        if x >= 1:
            return np.nan, np.full((1, 1), np.nan)
        return -x - 1e-3 * np.log(1 - x), np.full((1, 1), -1 + 1e-3 / (1 - x))

    state, _ = run(f, np.zeros((1, 1)))
    assert state.status is Status.CONVERGED
    np.testing.assert_allclose(state.point, 0.999, rtol=1e-6)


@pytest.mark.parametrize(("slope", "status"), [(1e-7, Status.PRECISION), (1.0, Status.IMPRECISE)])
def test_rounding_error_is_the_reason_only_where_it_can_be(slope: float, status: Status) -> None:
    """No step lowers the value; one along the steeper gradient should do so."""

    def wrong(point: Array) -> tuple[float, Array]:
        return 1.0 + float(np.abs(point).sum()), np.full_like(point, slope)

    state, asked = run(wrong, np.zeros((2, 1)))
    assert state.status is status
    assert not status.converged or slope < 1e-6
    assert not state.point.any()
    assert asked <= 62


@pytest.mark.parametrize("dtype", ["f4", pytest.param("f8", marks=pytest.mark.slow)])
def test_it_ends_by_itself_when_rounding_is_all_that_is_left(dtype: str) -> None:
    """With tol=0 it goes on to the last digit, and is still within noise of the optimum."""
    f, zero = digits(), np.zeros((65, 10))
    exact, eps = run(f, zero, 1e-9)[0].value, float(np.finfo(dtype).eps)

    def rounded(point: Array) -> tuple[float, Array]:
        value, gradient = f(point.astype(dtype).astype(float))
        return float(np.dtype(dtype).type(value)), gradient.astype(dtype).astype(float)

    state, asked = run(rounded, zero, 0.0, noise=eps, most=800)
    assert state.status is Status.PRECISION
    assert asked < 800
    assert state.value <= exact * (1 + 10 * eps)


def test_a_straight_slope_is_followed_to_its_end() -> None:
    def f(point: Array) -> tuple[float, Array]:
        beyond = max(0.0, float(point[0, 0]) - 500)
        return beyond**2 / 2 - float(point[0, 0]), np.full((1, 1), beyond - 1)

    state, asked = run(f, np.zeros((1, 1)))
    assert state.status is Status.CONVERGED
    np.testing.assert_allclose(state.point, 501)
    assert asked <= 25
    assert all(0 < pair.rho < np.inf for pair in state.pairs)
