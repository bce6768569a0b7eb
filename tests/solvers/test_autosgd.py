from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.penalty import ElasticNet
from dsoftmax.solvers.autosgd import AutoSGD, AutoState
from dsoftmax.solvers.base import Request, RowSelection, Status
from dsoftmax.solvers.linalg import preconditioner
from dsoftmax.solvers.schedules import Inverse, Settling, constant
from dsoftmax.typing import Array
from tests.solvers.bowls import NONE, Function, quadratic, states


def make(
    momentum: float = 0.9,
    tol: float = 0.0,
    steps: int = 1,
    penalty: ElasticNet = NONE,
    whole: bool = True,
) -> AutoSGD:
    schedule = Settling(steps) if whole else Inverse(steps)
    return AutoSGD(penalty, np.nan, schedule, None, tol, 5, momentum, whole)


def begun(solver: AutoSGD, f: Function, zero: Array) -> AutoState:
    value, gradient = f(zero)
    known = Evaluation(np.array([value]), gradient[None], np.zeros(1))
    return solver.start(zero, known, zero)


def hand(state: AutoState, rate: float) -> AutoState:
    """A state whose step length is known, and whose metric is the identity."""
    return replace(state, learning_rate=rate, asked=True)


def told(
    solver: AutoSGD, state: AutoState, functions: list[Function], step: int
) -> tuple[Request, AutoState]:
    """The state after a batch, where each batch has a function of its own."""
    request = solver.ask(state)
    batches = len(functions)
    values, gradients = zip(*map(functions[step % batches], request.points), strict=True)
    result = Evaluation(
        np.array(values),
        np.stack(gradients),
        np.zeros(len(values)),
        1,
        1 / batches,
        step % batches == batches - 1,
    )
    after = solver.tell(state, result)
    assert isinstance(after, AutoState)
    return request, after


def noisy(f: Function, noise: Array) -> list[Function]:
    """Batches whose mean is a function, and whose gradients differ from it by rows of the noise."""

    def of(own: Array) -> Function:
        return lambda x: (f(x)[0] + float(np.vdot(own, x)), f(x)[1] + own)

    return [of(own) for own in noise - noise.mean(axis=0)]


@pytest.mark.parametrize(
    "eigenvalues",
    [
        np.array([5.0]),
        np.ones(3),
        np.geomspace(1e-3, 7.0, 20),
        np.linspace(0, 1, 200),
        np.linspace(0, 1, 5) * 1e6,
        np.array([1e-8, 1e-9]),
    ],
    ids=["one", "equal", "geometric", "dense", "steep", "flat"],
)
def test_without_a_metric_the_probe_finds_the_largest_eigenvalue(eigenvalues: Array) -> None:
    f, zero = quadratic(eigenvalues, floor=0.0), np.zeros((len(eigenvalues), 1))
    solver = make()
    state, asked = begun(solver, f, zero), 0
    while np.isnan(state.learning_rate):
        request, state = told(solver, state, [f], 0)
        assert request.rows is RowSelection.SAME_BATCH
        assert len(request.points) == (1 if request.metric else 2)
        np.testing.assert_array_equal(request.points[0], zero)
        asked += 1
    assert asked <= 10
    assert 1 / state.learning_rate == pytest.approx(eigenvalues.max(), rel=0.08)
    assert state.inverse is None
    assert solver.ask(state).rows is RowSelection.BATCH


def test_with_a_metric_one_question_is_enough_and_the_scales_do_not_matter() -> None:
    eigenvalues = np.geomspace(1.0, 1e6, 6)
    f, zero = quadratic(eigenvalues), np.zeros((6, 1))
    hessian = np.column_stack([f(unit[:, None])[1] - f(zero)[1] for unit in np.eye(6)])
    solver = make(momentum=0.0)
    first = begun(solver, f, zero)
    request = solver.ask(first)
    assert (request.rows, request.metric) == (RowSelection.SAME_BATCH, True)
    value, gradient = f(zero)
    gradient[-1] = 0.0  # of an intercept, where the batch has each class as often as all rows
    result = Evaluation(np.array([value]), gradient[None], np.zeros(1), rows=10**6, metric=hessian)
    state = solver.tell(first, result)
    assert isinstance(state, AutoState)
    for step in range(4):
        _, state = told(solver, state, [f], step)
    np.testing.assert_allclose(state.current, 1, atol=0.02)


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_a_batch_of_few_classes_counts_for_few_rows(n_classes: int) -> None:
    n_columns = n_classes if n_classes > 2 else 1
    zero, rng = np.zeros((3, n_columns)), np.random.default_rng(0)
    solver, rates = make(), []
    for classes in (n_classes, 1):
        labels = rng.integers(0, classes, 1000)
        surplus = 1 / n_classes - np.bincount(labels, minlength=n_classes) / 1000
        gradient = np.zeros((1, 3, n_columns))
        gradient[0, -1] = surplus[-n_columns:]
        state = solver.start(zero, Evaluation(np.ones(1), gradient, np.zeros(1)), zero)
        result = Evaluation(np.ones(1), gradient, np.zeros(1), rows=1000, metric=np.eye(3))
        rates.append(solver.tell(state, result).learning_rate / (1 - 0.9))
    assert rates[0] > 0.98
    assert rates[1] == pytest.approx(0.5, abs=0.02)


def test_an_epoch_that_is_worse_begins_anew_where_the_full_gradient_is_known() -> None:
    f, zero = quadratic(np.ones(2)), np.zeros((2, 1))
    solver = make()
    state = hand(begun(solver, f, zero), 0.01)
    for step in range(4):
        state = told(solver, state, [f, f], step)[1]
    best, rate = state.point, state.learning_rate

    def worse(point: Array) -> tuple[float, Array]:
        return f(point)[0] + 4.0, f(point)[1]

    for step in range(2):
        state = told(solver, state, [worse, worse], step)[1]
    assert state.learning_rate == rate / 4
    for point in (state.point, state.current, state.average):
        np.testing.assert_array_equal(point, best)
    assert state.snapshot is not None
    np.testing.assert_array_equal(state.snapshot.point, best)
    np.testing.assert_allclose(state.snapshot.gradient, f(best)[1])


def test_a_metric_that_is_not_finite_is_not_used() -> None:
    f, zero = quadratic(np.ones(2)), np.zeros((2, 1))
    solver = make()
    state = begun(solver, f, zero)
    bad = Evaluation(np.ones(1), zero[None], np.zeros(1), metric=np.full((2, 2), np.inf))
    after = solver.tell(state, bad)
    assert not solver.ask(after).metric
    assert len(solver.ask(after).points) == 2


def test_without_curvature_the_rate_is_finite() -> None:
    trail = states(make(tol=1e-6), lambda x: (1.0, np.zeros_like(x)), np.zeros((3, 2)))
    assert trail[-1].status is Status.STALLED
    assert np.isfinite(trail[-1].current).all()


def test_it_finds_the_minimum_of_a_quadratic() -> None:
    f = quadratic(np.linspace(0.1, 1, 5))
    state = states(make(tol=1e-10, steps=50), f, np.zeros((5, 1)), batches=50)[-1]
    assert state.status is Status.STALLED
    np.testing.assert_allclose(state.point, 1, atol=1e-3)
    np.testing.assert_allclose(state.value, 0.5, atol=1e-5)


def test_iterates_are_averaged_with_weights_that_grow_as_the_square_of_the_step() -> None:
    f, zero = quadratic(np.array([1.0, 3.0])), np.zeros((2, 1))
    solver = make(whole=False)
    state, iterates = hand(begun(solver, f, zero), 0.01), []
    for step in range(1, 9):
        _, state = told(solver, state, [f] * 8, step - 1)
        iterates.append(state.current)
        weights = [t * (t + 1) for t in range(1, step + 1)]
        np.testing.assert_allclose(state.average, np.average(iterates, 0, weights), rtol=1e-12)
    assert state.model is state.average


def test_the_noise_of_batches_is_taken_out_from_the_third_epoch_on() -> None:
    f, zero = quadratic(np.array([0.5, 1.0, 1.0])), np.zeros((3, 1))
    batches = noisy(f, np.random.default_rng(0).normal(size=(6, 3, 1)))
    solver = make(momentum=0.0)
    solver = replace(solver, schedule=constant)
    state = hand(begun(solver, f, zero), 0.3)
    asked = []
    for step in range(30 * 6):
        request, after = told(solver, state, batches, step)
        asked.append(len(request.points))
        if step >= 12:
            slope = (state.current - after.current) / 0.3
            np.testing.assert_allclose(slope, f(state.current)[1], atol=1e-12)
        state = after
    assert asked == [1] * 6 + [2] * 6 + [3] * (28 * 6)
    np.testing.assert_allclose(state.current, 1, atol=1e-9)


def test_parts_of_a_stream_have_no_snapshots() -> None:
    f, zero = quadratic(np.ones(2)), np.zeros((2, 1))
    solver = make(whole=False)
    state = hand(begun(solver, f, zero), 0.1)
    for step in range(6):
        request, state = told(solver, state, [f, f], step)
        assert len(request.points) == 1


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("rate", [3.0, 100.0, 1e200])
def test_steps_that_are_too_long_are_undone_and_shortened(rate: float, momentum: float) -> None:
    f, zero = quadratic(np.array([0.5, 1.0])), np.zeros((2, 1))
    solver = make(momentum)
    state = hand(begun(solver, f, zero), rate)
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(1200):
            state = told(solver, state, [f] * 4, step)[1]
            if state.status is not Status.RUNNING:
                state = replace(state, status=Status.RUNNING, n_no_improvement=0)
    assert state.learning_rate < 4.0
    assert f(state.point)[0] == pytest.approx(0.5, abs=1e-3)


def test_epochs_that_are_never_better_than_the_intercepts_end_it() -> None:
    solver, zero = make(tol=1e-6), np.zeros((1, 1))
    values: Any = itertools.chain([2.0], itertools.repeat(2.1))
    state, steps = hand(begun(solver, lambda x: (next(values), x + 1), zero), 0.1), 0
    while state.status is Status.RUNNING:
        _, state = told(solver, state, [lambda x: (next(values), x + 1)], 0)
        steps += 1
    assert (state.status, steps) == (Status.STUCK, 5)
    np.testing.assert_array_equal(state.point, zero)


def test_an_l1_penalty_keeps_its_zeros() -> None:
    """Along each axis the minimum of c / 2 (x - m)^2 + t |x| is known."""
    curvature, centre, threshold = np.array([1.0, 2.0, 0.5, 1.0]), np.array([3, -1, 0.3, 7]), 0.7
    expected = np.sign(centre) * np.maximum(np.abs(centre) - threshold / curvature, 0)
    expected[-1] = centre[-1]  # the intercept is not penalised

    def f(point: Array) -> tuple[float, Array]:
        gradient = (curvature * (point.T - centre)).T.reshape(point.shape)
        return 0.5 * float(np.vdot(point[:, 0] - centre, gradient)) + 1.0, gradient

    solver = make(steps=4, penalty=ElasticNet(threshold, 1.0, np.ones((1, 1))))
    state = states(solver, f, np.zeros((4, 1)), batches=4, most=400)[-1]
    np.testing.assert_allclose(state.point[:, 0], expected, atol=1e-6)
    assert state.point[2, 0] == 0
    assert not solver.ask(begun(solver, f, np.zeros((4, 1)))).metric


@pytest.mark.parametrize("n_rows", [1, 7, 40, 10**6])
def test_a_batch_is_not_asked_for_more_directions_than_it_has_rows(n_rows: int) -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(50, 50))
    metric = root @ root.T
    inverse, length = preconditioner(metric, n_rows)
    effective = float(np.trace(metric @ inverse))
    assert effective <= min(n_rows, 50) * (1 + 1e-9)
    assert length == pytest.approx(n_rows / (n_rows + effective))
    assert 0.5 <= length <= 1
    # No more is added than has to be: the next smaller ridge would ask for too much.
    ridge = np.linalg.inv(inverse) - metric
    np.testing.assert_allclose(ridge, ridge[0, 0] * np.eye(50), atol=1e-6 * ridge[0, 0] + 1e-6)
    if n_rows < 50:
        smaller = np.linalg.inv(metric + ridge[0, 0] / 1.11 * np.eye(50))
        assert np.trace(metric @ smaller) > n_rows
    else:
        assert ridge[0, 0] == pytest.approx(0.01, rel=1e-4)


def test_a_metric_of_low_rank_has_an_inverse() -> None:
    inverse, _ = preconditioner(np.diag([4.0, 0.0]), 100)
    np.testing.assert_allclose(inverse, np.diag([1 / 4.01, 100.0]))
