from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.penalty import ElasticNet
from dsoftmax.solvers.base import Status
from dsoftmax.solvers.fista import FISTA, FISTAState
from dsoftmax.typing import Array

Function = Callable[[Array], tuple[float, Array]]


def bowl(condition: float, size: int = 20) -> Function:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0]
    hessian = rotation * np.geomspace(1, condition, size) @ rotation.T
    centre = np.random.default_rng(1).normal(size=(size, 1)) * 3

    def f(point: Array) -> tuple[float, Array]:
        gradient = hessian @ (point - centre)
        return 1.0 + 0.5 * float(np.vdot(point - centre, gradient)), gradient

    return f


def penalty(l1: float, size: int = 20) -> ElasticNet:
    return ElasticNet(l1, 1.0, np.ones((size - 1, 1)))


def evaluated(f: Function, points: Array) -> Evaluation:
    with np.errstate(all="ignore"):
        values, gradients = zip(*map(f, points), strict=True)
    return Evaluation(np.array(values), np.stack(gradients), np.zeros(len(points)))


def run(
    solver: FISTA, f: Function, point: Array | None = None, most: int = 5000, size: int = 20
) -> tuple[FISTAState, int]:
    zero = np.zeros((size, 1))
    state = solver.start(zero if point is None else point, evaluated(f, zero[None]), zero)
    for count in range(most):
        if state.status is not Status.RUNNING:
            return state, count
        state = solver.tell(state, evaluated(f, solver.ask(state).points))
    return state, most


@pytest.mark.parametrize("noise", [1e-15, 1e-10])
@pytest.mark.parametrize("l1", [0.0, 0.5, 5.0, 1e6])
@pytest.mark.parametrize("condition", [1.0, 100.0])
def test_it_finds_the_minimum_that_a_split_into_positive_parts_finds(
    l1: float, condition: float, noise: float
) -> None:
    f, size = bowl(condition), 20
    state, _ = run(FISTA(penalty(l1), 1e-9, noise), f)
    assert state.status is Status.CONVERGED
    weights = np.append(np.full(size - 1, l1), 0.0)

    def split(parts: Array) -> tuple[float, Array]:
        value, gradient = f((parts[:size] - parts[size:])[:, None])
        slope = np.concatenate([gradient[:, 0], -gradient[:, 0]]) + np.tile(weights, 2)
        return value + float(np.tile(weights, 2) @ parts), slope

    best = minimize(
        split,
        np.zeros(2 * size),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * 2 * size,
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 20_000},
    )
    assert state.value <= best.fun * (1 + 1e-8)
    if l1 == 1e6:
        assert not state.point[:-1].any()


def test_momentum_and_restarts_pay() -> None:
    _, count = run(FISTA(penalty(0.0), 1e-8, 1e-15), bowl(1e4))
    assert count < 1500  # plain steps need some 1e4 * log(1e8)


@pytest.mark.parametrize("step", [1e-6, 1.0, 1e6])
def test_the_first_step_length_hardly_matters(step: float) -> None:
    f = bowl(50.0)
    state, count = run(FISTA(penalty(0.5), 1e-8, 1e-15, step), f)
    usual, expected = run(FISTA(penalty(0.5), 1e-8, 1e-15), f)
    assert state.status is Status.CONVERGED
    assert state.value == pytest.approx(usual.value, rel=1e-10)
    assert count < expected + 120


def test_the_best_point_never_gets_worse() -> None:
    f, solver, zero = bowl(1e3), FISTA(penalty(0.5), 0.0, 1e-15), np.zeros((20, 1))
    state, values = solver.start(zero, evaluated(f, zero[None]), zero), []
    for _ in range(200):
        state = solver.tell(state, evaluated(f, solver.ask(state).points))
        values.append(state.value)
        here = f(state.point)[0] + penalty(0.5).l1_value(state.point)
        assert state.value == pytest.approx(here, rel=1e-12)
    assert (np.diff(values) <= 1e-12).all()


def test_a_wall_of_values_that_are_not_finite_is_stepped_back_from() -> None:
    inner = bowl(10.0)

    def f(point: Array) -> tuple[float, Array]:
        value, gradient = inner(point)
        return (np.inf if np.abs(point).max() > 9 else value), gradient

    state, _ = run(FISTA(penalty(0.0), 1e-8, 1e-15, step=100.0), f)
    assert state.status is Status.CONVERGED


def test_starting_at_the_minimum_stops_at_once_and_elsewhere_goes_on() -> None:
    f, solver = bowl(10.0), FISTA(penalty(0.5), 1e-8, 1e-15)
    best, _ = run(solver, f)
    again, count = run(solver, f, best.point)
    assert (again.status, count) == (Status.CONVERGED, 1)
    far, _ = run(solver, f, best.point + 5)
    assert far.value == pytest.approx(best.value, rel=1e-10)


def test_it_ends_when_rounding_hides_all_progress() -> None:
    smooth = bowl(10.0)

    def f(point: Array) -> tuple[float, Array]:
        value, gradient = smooth(point)
        return float(np.float32(value)), gradient.astype(np.float32).astype(np.float64)

    state, count = run(FISTA(penalty(0.5), 0.0, 6e-8), f)
    assert state.status is Status.PRECISION
    assert count < 1000


def test_asking_changes_nothing_and_a_stopped_run_goes_on_with_the_same_bits() -> None:
    f, solver, zero = bowl(100.0), FISTA(penalty(0.5), 0.0, 1e-15), np.zeros((20, 1))
    first = solver.start(zero, evaluated(f, zero[None]), zero)
    trail = [first]
    for _ in range(30):
        trail.append(solver.tell(trail[-1], evaluated(f, solver.ask(trail[-1]).points)))
    state = replace(trail[10])
    for expected in trail[11:]:
        solver.ask(state)
        state = solver.tell(state, evaluated(f, solver.ask(state).points))
        assert state.point.tobytes() == expected.point.tobytes()
