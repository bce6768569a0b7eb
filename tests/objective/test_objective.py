from __future__ import annotations

import pickle
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from dsoftmax.data.batches import Epoch, permutation
from dsoftmax.errors import DataError
from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.first_read import moments_of
from dsoftmax.objective.importance_sample import LeverageSampler
from dsoftmax.objective.objective import Objective, build_objective
from dsoftmax.objective.reduction import Chunk
from dsoftmax.solvers import SOLVERS
from dsoftmax.solvers.adam import AUTO_RATE
from dsoftmax.solvers.autosgd import AutoSGD
from dsoftmax.solvers.base import Request, RowSelection, State, Status
from dsoftmax.solvers.lbfgs import LBFGS
from dsoftmax.solvers.schedules import constant
from dsoftmax.solvers.sgd import SGD
from dsoftmax.typing import Array

FACES = [(K, i, s, w) for K in (2, 3) for i in (0, 1) for s in (0, 1) for w in (0, 1)]
faces = pytest.mark.parametrize(("K", "intercept", "standardize", "weighted"), FACES)


def rows(K: int, weighted: bool = False, *, dtype: str = "f8", mean: float = 2.0) -> Chunk:
    rng = np.random.default_rng(K)
    X = np.column_stack([rng.normal(mean, [1, 5, 0.1], (150, 3)), np.full(150, 3.0)])
    y = np.minimum(rng.integers(0, K + 1, 150), K - 1)
    X[:, 0] += y
    return Chunk(X.astype(dtype), y, rng.random(150) + 0.1 if weighted else None, 0)


def build(
    chunk: Chunk,
    K: int,
    *,
    alpha: float = 0.01,
    fit_intercept: bool = True,
    standardize: bool = False,
    dtype: str = "f8",
    l1_ratio: float = 0.0,
) -> Objective:
    kernel = np.dtype(dtype)
    return build_objective(
        moments_of(K, kernel).chunk(chunk),
        class_weight=np.bincount(chunk.codes, chunk.sample_weight, K).astype(float),
        n_rows=len(chunk.X),
        alpha=alpha,
        l1_ratio=l1_ratio,
        fit_intercept=fit_intercept,
        standardize=standardize,
        scaled=True,
        dtype=kernel,
    )


def evaluate(objective: Objective, chunk: Chunk, points: Array, **options: Any) -> Evaluation:
    sums = objective.reduction(objective.to_kernel(points)).chunk(chunk)
    return objective.evaluation(points, sums, len(chunk.X), **options)


@faces
@pytest.mark.parametrize("n_points", [1, 2])
def test_rows_picked_beside_the_gradient_are_those_that_matter_at_the_first_point(
    K: int, intercept: int, standardize: int, weighted: int, n_points: int
) -> None:
    chunk = rows(K, bool(weighted))
    objective = build(chunk, K, fit_intercept=bool(intercept), standardize=bool(standardize))
    rng = np.random.default_rng(0)
    points = rng.normal(size=(n_points, *objective.intercept_only.shape))
    ends = np.stack([points[0], objective.intercept_only])
    leverage = objective.leverage(ends, rng.normal(size=(5, 8)))
    rule = LeverageSampler(leverage, 60 / leverage.parts(chunk).sum(), 0)
    kernel_points = objective.to_kernel(points)
    sums, picked = objective.reduction_and_rows(kernel_points, rule).chunk(chunk).parts
    alone = objective.reduction(objective.to_kernel(points)).chunk(chunk)
    for name in ("loss", "gradient", "correct", "weight"):
        np.testing.assert_allclose(getattr(sums, name), getattr(alone, name), rtol=1e-10, atol=1e-9)
    expected = rule(chunk)
    assert 10 < picked.n_rows < 150
    assert np.array_equal(picked.X[0], expected.X[0])
    assert np.array_equal(picked.weight[0], expected.weight[0])


@faces
def test_the_moments_tell_the_objective_at_the_intercept_only_model(
    K: int, intercept: int, standardize: int, weighted: int
) -> None:
    chunk = rows(K, bool(weighted))
    objective = build(chunk, K, fit_intercept=bool(intercept), standardize=bool(standardize))
    at = evaluate(objective, chunk, objective.intercept_only[None])
    known = objective.at_intercept_only
    np.testing.assert_allclose(known.value, at.value, rtol=1e-12)
    np.testing.assert_allclose(known.gradient, at.gradient, rtol=1e-11, atol=1e-13)
    assert known.gradient.shape == (1, *objective.intercept_only.shape)
    if intercept:
        np.testing.assert_allclose(at.gradient[0, -1], 0, atol=1e-14)


@pytest.mark.parametrize("intercept", [False, True])
def test_a_class_without_rows_leaves_the_intercept_only_model_finite(intercept: bool) -> None:
    chunk = rows(3)
    objective = build(chunk, 5, fit_intercept=intercept)
    at = evaluate(objective, chunk, objective.intercept_only[None])
    np.testing.assert_allclose(objective.at_intercept_only.value, at.value, rtol=1e-10)
    np.testing.assert_allclose(objective.at_intercept_only.gradient, at.gradient, atol=1e-10)


@faces
def test_the_gradient_is_the_finite_difference_of_the_value(
    K: int, intercept: int, standardize: int, weighted: int
) -> None:
    chunk = rows(K, bool(weighted))
    objective = build(chunk, K, fit_intercept=bool(intercept), standardize=bool(standardize))
    point = np.random.default_rng(0).normal(size=objective.intercept_only.shape) * 0.3
    point[-1] *= intercept
    gradient, step = evaluate(objective, chunk, point[None]).gradient[0], 1e-5
    for place in np.ndindex(*point.shape):
        nudge = np.zeros_like(point)
        nudge[place] = step
        up, down = evaluate(objective, chunk, np.stack([point + nudge, point - nudge])).value
        slope = (up - down) / (2 * step) if intercept or place[0] < len(point) - 1 else 0.0
        np.testing.assert_allclose(gradient[place], slope, rtol=1e-6, atol=1e-9)


@faces
def test_mini_batches_average_to_the_whole(
    K: int, intercept: int, standardize: int, weighted: int
) -> None:
    chunk = rows(K, bool(weighted))
    objective = build(chunk, K, fit_intercept=bool(intercept), standardize=bool(standardize))
    points = np.random.default_rng(0).normal(size=(2, *objective.intercept_only.shape)) * 0.3
    epoch, parts = Epoch(((0, 50), (50, 100), (100, 150)), 2, 40, seed=1), []
    for step in range(epoch.n_steps):
        pieces = [piece for leaf in epoch.batch(step) for piece in leaf]
        index = [p.start + permutation(p)[p.low : p.high] for p in pieces]
        parts.append(evaluate(objective, chunk.take(np.concatenate(index)), points))
    whole = evaluate(objective, chunk, points)
    assert sum(part.share for part in parts) == pytest.approx(1)
    for field in ("value", "gradient"):
        mean = sum(part.share * getattr(part, field) for part in parts)
        np.testing.assert_allclose(mean, getattr(whole, field), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("mean", [0.0, 1e3])
def test_float32_and_float64_agree(mean: float) -> None:
    chunk = rows(3, dtype="f4", mean=mean)
    wide = chunk._replace(X=chunk.X.astype("f8"))
    exact = build(wide, 3)
    narrow = build(chunk, 3, dtype="f4")
    coef, intercept = np.random.default_rng(0).normal(size=(4, 3)) * 0.1, np.zeros(3)
    values = [
        evaluate(o, c, o.coordinates.from_coefficients(coef, intercept)[None]).value[0]
        for o, c in ((exact, wide), (narrow, chunk))
    ]
    np.testing.assert_allclose(*values, rtol=2e-6)


def test_the_whole_objective_adds_the_absolute_part() -> None:
    chunk = rows(3)
    objective = build(chunk, 3, alpha=0.5, l1_ratio=0.4)
    point = np.ones((5, 3))
    result = evaluate(objective, chunk, point[None])
    value, norm = objective.value_and_norm(point, result)
    coef, _ = objective.coordinates.to_coefficients(point)
    np.testing.assert_allclose(value - result.value[0], 0.2 * np.abs(coef).sum())
    assert norm == np.abs(objective.penalty.min_norm_subgradient(point, result.gradient[0])).max()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused_with_its_place(bad: float) -> None:
    chunk = rows(3)
    objective = build(chunk, 3)
    chunk.X[17, 2] = bad
    chunk = chunk._replace(start=1000)
    shuffled = chunk.take(np.arange(149, -1, -1))
    for part in (chunk, shuffled):
        with pytest.raises(DataError, match=rf"{bad} at row 1017, column 2, which is not finite"):
            moments_of(3, np.dtype("f8")).chunk(part)
        with pytest.raises(DataError, match=rf"{bad} at row 1017, column 2, which is not finite"):
            objective.reduction(objective.to_kernel(np.ones((1, 5, 3)))).chunk(part)


def test_a_value_too_large_for_float32_is_refused() -> None:
    chunk = rows(3)
    chunk.X[3, 1] = 1e39
    with pytest.raises(DataError, match="too large for float32"):
        moments_of(3, np.dtype("f4")).chunk(chunk)


def test_a_point_gone_astray_is_no_error() -> None:
    chunk = rows(3, dtype="f4")
    objective = build(chunk, 3, dtype="f4")
    points = np.random.default_rng(0).normal(size=(1, 5, 3)) * 1e200
    assert not np.isfinite(evaluate(objective, chunk, points).value).all()


@pytest.mark.parametrize("unit", [1e-25, 1e-10, 1e10, 1e25])
def test_the_objective_of_float32_follows_the_unit_of_the_data(unit: float) -> None:
    chunk = rows(3, dtype="f4", mean=0.0)
    same = build(chunk, 3, alpha=0.0, dtype="f4").at_intercept_only
    other = build(
        chunk._replace(X=chunk.X * np.float32(unit)), 3, alpha=0.0, dtype="f4"
    ).at_intercept_only
    np.testing.assert_allclose(other.gradient, same.gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_objective_of_float32_does_not_depend_on_the_size_of_the_weights(size: float) -> None:
    chunk, values = rows(3, True, dtype="f4"), []
    for factor in (1.0, size):
        weighted = chunk._replace(sample_weight=chunk.sample_weight * factor)
        objective = build(weighted, 3, dtype="f4")
        values.append(evaluate(objective, weighted, np.full((1, 5, 3), 0.1)).value)
    np.testing.assert_allclose(values[1], values[0], rtol=1e-5)


KNOBS = {
    "tol": 1e-6,
    "noise": 1e-16,
    "learning_rate": AUTO_RATE,
    "whole": True,
    "momentum": 0.9,
    "n_iter_no_change": 5,
    "schedule": constant,
    "clip_norm": None,
}


KINDS = SOLVERS | {"sgd": AutoSGD, "sgd with a rate": SGD}


class Run:
    """A solver on an objective, without a trainer."""

    def __init__(self, name: str, K: int, **options: Any) -> None:
        self.chunk, kind = rows(K), KINDS[name]
        self.objective = build(self.chunk, K, **options)
        knobs = KNOBS | {"penalty": self.objective.penalty}
        self.solver: Any = kind(**{f.name: knobs[f.name] for f in fields(kind) if f.name in knobs})
        self.step = 0

    def start(self) -> State:
        at = self.objective.intercept_only
        return self.solver.start(at, self.objective.at_intercept_only, at)

    def evaluate(self, request: Request) -> Evaluation:
        if request.rows is RowSelection.ALL:
            return evaluate(self.objective, self.chunk, request.points)
        part = self.chunk.take(np.arange(self.step % 5, 150, 5))
        last = self.step % 5 == 4
        self.step += request.rows is RowSelection.BATCH
        return evaluate(
            self.objective,
            part,
            request.points,
            epoch_ended=last and request.rows is RowSelection.BATCH,
        )


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("name", KINDS)
def test_every_solver_lowers_the_objective(name: str, K: int) -> None:
    run = Run(name, K)
    state = first = run.start()
    for _ in range(300):
        if state.status is Status.RUNNING:
            state = run.solver.tell(state, run.evaluate(run.solver.ask(state)))
    optimum = evaluate(run.objective, run.chunk, _optimum(run.objective, run.chunk)[None]).value[0]
    value = evaluate(run.objective, run.chunk, state.point[None]).value[0]
    assert value - optimum < 0.2 * (first.value - optimum)


@pytest.mark.parametrize("name", KINDS)
def test_a_solver_can_be_stopped_and_continued_with_the_same_bits(name: str) -> None:
    straight, broken = Run(name, 3), Run(name, 3)
    a, b = straight.start(), broken.start()
    for _ in range(40):
        if a.status is not Status.RUNNING:
            break
        a = straight.solver.tell(a, straight.evaluate(straight.solver.ask(a)))
        b = pickle.loads(pickle.dumps(b))
        b = broken.solver.tell(b, broken.evaluate(pickle.loads(pickle.dumps(broken.solver)).ask(b)))
        assert a.point.tobytes() == b.point.tobytes()
        assert (a.value, a.gradient_norm, a.status) == (b.value, b.gradient_norm, b.status)


@pytest.mark.parametrize("name", KINDS)
def test_ask_and_tell_leave_the_state_as_it_is(name: str) -> None:
    run = Run(name, 3)
    state = run.start()
    for _ in range(25):
        kept = pickle.dumps(state)
        request, again = run.solver.ask(state), run.solver.ask(state)
        np.testing.assert_array_equal(request.points, again.points)
        assert request.rows is again.rows
        result = run.evaluate(request)
        request.points.flags.writeable = result.gradient.flags.writeable = False
        after = run.solver.tell(state, result)
        assert pickle.dumps(state) == kept
        if after.status is not Status.RUNNING:
            break
        state = after


def _optimum(objective: Objective, chunk: Chunk) -> Array:
    solver = LBFGS(1e-9, 1e-16)
    at = objective.intercept_only
    state = solver.start(at, objective.at_intercept_only, at)
    while state.status is Status.RUNNING:
        state = solver.tell(state, evaluate(objective, chunk, solver.ask(state).points))
    assert state.status.converged
    return state.point


@faces
def test_its_minimum_is_that_of_scikit_learn(
    K: int, intercept: int, standardize: int, weighted: int
) -> None:
    chunk = rows(K, bool(weighted))
    weight = np.ones(150) if chunk.sample_weight is None else chunk.sample_weight
    objective = build(chunk, K, fit_intercept=bool(intercept), standardize=bool(standardize))
    coef, b = objective.coordinates.to_coefficients(_optimum(objective, chunk))
    centre = np.average(chunk.X, axis=0, weights=weight)
    sd = np.sqrt(np.average((chunk.X - centre) ** 2, axis=0, weights=weight))
    unit = np.where(sd > 1e-9, sd, 1) if standardize else np.ones(4)
    X = chunk.X / unit
    model = LogisticRegression(
        C=1 / (weight.sum() * 0.01),
        fit_intercept=bool(intercept),
        tol=1e-10,
        max_iter=10_000,
        solver="newton-cholesky",
    ).fit(X, chunk.codes, weight)
    np.testing.assert_allclose(coef, model.coef_.T / unit[:, None], rtol=1e-5, atol=1e-7)
    raw = chunk.X @ coef + b
    wanted = X @ model.coef_.T + model.intercept_
    raw, wanted = (z - z.mean(axis=1, keepdims=True) if K > 2 else z for z in (raw, wanted))
    np.testing.assert_allclose(raw, wanted, atol=1e-5)
