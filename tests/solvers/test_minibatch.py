from __future__ import annotations

import numpy as np
import pytest

from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.penalty import ElasticNet
from dsoftmax.solvers.adam import Adam
from dsoftmax.solvers.base import Status
from dsoftmax.solvers.minibatch import MiniBatch
from dsoftmax.solvers.schedules import Cosine, Inverse, Schedule, Settling, constant
from dsoftmax.solvers.sgd import SGD
from dsoftmax.typing import Array
from tests.solvers.bowls import NONE, quadratic, states


def make(
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    tol: float = 1e-6,
    epochs: int = 5,
    penalty: ElasticNet = NONE,
    clip_norm: float | None = None,
) -> SGD:
    return SGD(penalty, learning_rate, constant, clip_norm, tol, epochs, momentum)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_update_is_nesterovs_as_torch_writes_it(momentum: float) -> None:
    f, x, buffer = quadratic(np.array([1.0, 3.0])), np.zeros((2, 1)), np.zeros((2, 1))
    for state in states(make(0.05, momentum, tol=0.0), f, x, batches=7, most=25):
        np.testing.assert_allclose(state.current, x, rtol=1e-13)
        gradient = f(x)[1]
        buffer = momentum * buffer + gradient
        x = x - 0.05 * (gradient + momentum * buffer)


@pytest.mark.parametrize("epochs", [1, 4])
@pytest.mark.parametrize("batches", [1, 3])
def test_epochs_without_progress_stop_it(epochs: int, batches: int) -> None:
    def flat(point: Array) -> tuple[float, Array]:
        return 2.0, np.ones_like(point)

    trail = states(make(epochs=epochs), flat, np.zeros((2, 1)), batches=batches)
    assert trail[-1].status is Status.STUCK
    assert not trail[-1].status.converged
    assert trail[-1].step == epochs * batches
    assert not trail[-1].point.any()


def test_an_epoch_with_progress_starts_the_count_anew() -> None:
    values = iter([2.0, 2.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5])
    solver, zero = make(epochs=3, tol=1e-2), np.zeros((1, 1))
    state, count = solver.start(zero, Evaluation(np.array([2.0]), zero[None], zero[0]), zero), 0
    while state.status is Status.RUNNING:
        result = Evaluation(np.array([next(values)]), np.ones((1, 1, 1)), zero[0], 1, 1.0, True)
        state, count = solver.tell(state, result), count + 1
    assert (state.status, count, state.value) == (Status.STALLED, 9, 0.5)


def test_the_value_is_the_mean_over_the_rows_of_an_epoch() -> None:
    solver, zero = make(), np.zeros((1, 1))
    state = solver.start(zero, Evaluation(np.array([9.0]), zero[None], zero[0]), zero)
    for value, slope, share, last in [(4.0, 1.0, 0.75, False), (2.0, -3.0, 0.25, True)]:
        result = Evaluation(np.array([value]), np.full((1, 1, 1), slope), zero[0], 1, share, last)
        state = solver.tell(state, result)
    assert state.value == 3.5


@pytest.mark.parametrize("batches", [1, 3, 100])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("rate", [3.0, 100.0, 1e200])
def test_a_rate_that_is_too_large_diverges_and_keeps_the_best(
    rate: float, momentum: float, batches: int
) -> None:
    f, zero = quadratic(np.array([0.5, 1.0])), np.zeros((2, 1))
    state = states(make(rate, momentum), f, zero, batches=batches)[-1]
    assert state.status is Status.DIVERGED
    assert f(state.point)[0] <= f(zero)[0]


def test_nan_in_the_gradient_of_a_last_batch_does_not_reach_the_model() -> None:
    solver, zero = make(), np.zeros((1, 1))
    state = solver.start(zero, Evaluation(np.array([9.0]), zero[None], zero[0]), zero)
    bad = Evaluation(np.array([1.0]), np.full((1, 1, 1), np.nan), zero[0], 1, 1.0, True)
    assert np.isfinite(solver.tell(state, bad).point).all()


def lasso(threshold: float) -> ElasticNet:
    return ElasticNet(threshold, 1.0, np.ones((1, 1)))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_the_fixed_point_of_step_and_prox_is_the_minimum_with_its_zeros(
    kind: str, momentum: float
) -> None:
    """Along each axis the minimum of c / 2 (x - m)^2 + t |x| is known."""
    curvature, centre, threshold = np.array([1.0, 2.0, 0.5, 1.0]), np.array([3, -1, 0.3, 7]), 0.7
    expected = np.sign(centre) * np.maximum(np.abs(centre) - threshold / curvature, 0)
    expected[-1] = centre[-1]  # the intercept is not penalised

    def f(point: Array) -> tuple[float, Array]:
        gradient = (curvature * (point.T - centre)).T.reshape(point.shape)
        return 0.5 * float(np.vdot(point[:, 0] - centre, gradient)), gradient

    solver: MiniBatch = make(0.05, momentum, tol=0.0, penalty=lasso(threshold))
    if kind == "adam":
        solver = Adam(lasso(threshold), 0.1, Cosine(2500), None, 0.0, 5)
    state = states(solver, f, np.zeros((4, 1)), most=2500)[-1]
    np.testing.assert_allclose(state.current[:, 0], expected, atol=1e-4)
    assert state.current[2, 0] == 0


def test_adam_is_the_published_update_written_out() -> None:
    f, x = quadratic(np.array([1.0, 3.0])), np.zeros((2, 1))
    solver = Adam(NONE, 0.05, constant, None, 0.0, 5)
    m, v = np.zeros((2, 1)), np.zeros((2, 1))
    for t, state in enumerate(states(solver, f, x, batches=7, most=25), start=1):
        np.testing.assert_allclose(state.current, x, rtol=1e-12)
        gradient = f(x)[1]
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        x = x - 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


def test_clipping_shortens_a_gradient_and_keeps_its_direction() -> None:
    f, zero = quadratic(np.array([1e6, 1e6])), np.zeros((2, 1))
    trail = states(make(1.0, 0.0, tol=0.0, clip_norm=0.5), f, zero, most=1)
    step = trail[1].current - trail[0].current
    assert np.linalg.norm(step) == pytest.approx(0.5)
    np.testing.assert_allclose(step / 0.5, -f(zero)[1] / np.linalg.norm(f(zero)[1]))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (constant, [1, 1, 1, 1]),
        (Inverse(100), [1, 2 / 3, 1 / 2, 1 / 3]),
        (Cosine(200), [1, 0.5 + 0.5 * np.sqrt(0.5), 0.5, 0]),
        (Settling(90), [1, 9 / 14, 9 / 19, 1]),
    ],
)
def test_schedules_count_rows(schedule: Schedule, expected: list[float]) -> None:
    np.testing.assert_allclose([schedule(rows) for rows in (0, 50, 100, 200)], expected, atol=1e-15)
    assert schedule(10**9) <= expected[-1]
