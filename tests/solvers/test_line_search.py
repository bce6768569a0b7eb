from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsoftmax.solvers.line_search import (
    CURVATURE,
    DECREASE,
    LineSearch,
    LineSearchStatus,
    advance,
    begin,
)

Line = Callable[[float], tuple[float, float]]


def search(line: Line, step: float, noise: float = 0.0) -> tuple[LineSearch, int]:
    """Drive a search to its end; also return how many evaluations it took."""
    state, evaluations = begin(*line(0.0), step, noise), 0
    while state.status is LineSearchStatus.RUNNING:
        assert state.step > 0
        state, evaluations = advance(state, *line(state.step)), evaluations + 1
        assert evaluations <= 30
    return state, evaluations


def assert_strong_wolfe(line: Line, state: LineSearch) -> None:
    assert state.status is LineSearchStatus.FOUND
    value, slope = line(0.0)
    at_step, slope_there = line(state.step)
    assert at_step <= value + DECREASE * state.step * slope
    assert abs(slope_there) <= CURVATURE * abs(slope)


def rational(a: float) -> tuple[float, float]:
    return -a / (a * a + 2), (a * a - 2) / (a * a + 2) ** 2


def quintic(a: float) -> tuple[float, float]:
    b = a + 0.004
    return b**5 - 2 * b**4, 5 * b**4 - 8 * b**3


def oscillating(a: float) -> tuple[float, float]:
    beta, waves = 0.01, 39 * math.pi / 2
    if abs(a - 1) >= beta:
        value, slope = abs(a - 1), math.copysign(1, a - 1)
    else:
        value, slope = (a - 1) ** 2 / (2 * beta) + beta / 2, (a - 1) / beta
    value += (1 - beta) / waves * math.sin(waves * a)
    return value, slope + (1 - beta) * math.cos(waves * a)


def yanai(b1: float, b2: float) -> Line:
    g1, g2 = (math.sqrt(1 + b * b) - b for b in (b1, b2))

    def line(a: float) -> tuple[float, float]:
        left, right = math.hypot(1 - a, b2), math.hypot(a, b1)
        return g1 * left + g2 * right, -g1 * (1 - a) / left + g2 * a / right

    return line


MORE_THUENTE = {
    "1": rational,
    "2": quintic,
    "3": oscillating,
    "4": yanai(0.001, 0.001),
    "5": yanai(0.01, 0.001),
    "6": yanai(0.001, 0.01),
}


@pytest.mark.parametrize("step", [1e-3, 1e-1, 1e1, 1e3])
@pytest.mark.parametrize("name", MORE_THUENTE)
def test_strong_wolfe_holds_on_the_functions_of_more_and_thuente(name: str, step: float) -> None:
    state, evaluations = search(MORE_THUENTE[name], step)
    assert_strong_wolfe(MORE_THUENTE[name], state)
    assert evaluations <= 20


@pytest.mark.parametrize("name", MORE_THUENTE)
def test_the_slopes_of_these_functions_are_right(name: str) -> None:
    for a in (1e-3, 0.3, 0.997, 1.4, 7.0):
        (up, _), (down, _) = (MORE_THUENTE[name](a + h) for h in (1e-7, -1e-7))
        np.testing.assert_allclose(MORE_THUENTE[name](a)[1], (up - down) / 2e-7, atol=1e-5)


@given(st.floats(1e-6, 1e6), st.floats(1e-3, 1e3), st.floats(1e-6, 1e6))
def test_strong_wolfe_holds_on_quadratics(minimum: float, start: float, slope: float) -> None:
    def line(a: float) -> tuple[float, float]:
        return slope * a * (a / (2 * minimum) - 1), slope * (a / minimum - 1)

    state, evaluations = search(line, minimum * start)
    assert_strong_wolfe(line, state)
    assert evaluations <= 12


@pytest.mark.parametrize("beyond", [math.inf, math.nan, -math.inf])
@pytest.mark.parametrize("slope", [math.inf, math.nan, -1.0, 1.0])
@pytest.mark.parametrize("step", [1e-3, 1.0, 1e3])
def test_a_value_that_is_not_finite_is_a_wall(step: float, slope: float, beyond: float) -> None:
    def line(a: float) -> tuple[float, float]:
        if a >= 1:
            return beyond, slope
        return -a - 0.05 * math.log(1 - a), -1 + 0.05 / (1 - a)

    state, evaluations = search(line, step)
    assert_strong_wolfe(line, state)
    assert evaluations <= 20


@pytest.mark.parametrize("step", [1.5, 1e3])
def test_a_slope_that_is_not_finite_is_a_wall_too(step: float) -> None:
    def line(a: float) -> tuple[float, float]:
        return a * a / 2 - a, a - 1 if a < 1.2 else math.nan

    assert_strong_wolfe(line, search(line, step)[0])


@pytest.mark.parametrize("step", [1e-2, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("size", [1e-16, 1e-13, 1e-8])
@pytest.mark.parametrize("seed", range(5))
def test_where_noise_hides_the_decrease_slopes_decide(size: float, step: float, seed: int) -> None:
    """The decrease to be had is 1e-16 of the value; the value is off by up to `size` of it."""
    rng = np.random.default_rng(seed)

    def line(a: float) -> tuple[float, float]:
        return 1 + 2e-16 * (a * a / 2 - a) + size * rng.uniform(-0.5, 0.5), 2e-16 * (a - 1)

    state, evaluations = search(line, step, noise=size)
    assert state.status is LineSearchStatus.FOUND
    assert abs(line(state.step)[1]) < 2e-16
    assert evaluations <= 8


def test_a_first_step_that_will_do_takes_one_evaluation() -> None:
    assert search(lambda a: (a * a / 2 - a, a - 1), 1.0) == (
        LineSearch(
            begin(0, -1, 1).origin,
            1.0,
            0.0,
            begin(0, -1, 1).low,
            None,
            1,
            CURVATURE,
            LineSearchStatus.FOUND,
        ),
        1,
    )


@pytest.mark.parametrize("slope", [0.0, 1.0, math.nan])
def test_no_search_goes_uphill(slope: float) -> None:
    assert begin(1.0, slope, 1.0).status is LineSearchStatus.FAILED


@pytest.mark.parametrize(
    "line",
    [
        lambda a: (-a, -1.0),
        lambda a: (a, 1.0 if a else -1.0),
        lambda a: (0.0 if a == 0 else math.nan, -1.0),
    ],
    ids=["falls for ever", "wrong slope", "all wall"],
)
def test_a_hopeless_search_ends(line: Line) -> None:
    state, evaluations = search(line, 1.0)
    assert state.status is LineSearchStatus.FAILED
    assert evaluations <= 30
