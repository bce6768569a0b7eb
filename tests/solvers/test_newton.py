from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import DataError, MemoryBoundError, SoftmaxRegression, plan_fit
from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.penalty import ElasticNet
from dsoftmax.solvers.base import Status
from dsoftmax.solvers.low_rank import Secant, low_rank_from
from dsoftmax.solvers.newton import Newton
from dsoftmax.solvers.newton_state import NewtonState

Arrays = tuple[np.ndarray, np.ndarray]


def blobs(n: int = 3000, d: int = 12, K: int = 4, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, n)
    return rng.normal(size=(n, d)) + 0.4 * rng.normal(size=(K, d))[y], y


def fitted(X: Any, y: Any, **params: Any) -> SoftmaxRegression:
    params = {"alpha": 1e-3, "solver": "newton", "tol": 1e-7, "random_state": 0} | params
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return SoftmaxRegression(**params).fit(X, y)


def above(surrogate: SoftmaxRegression, optimum: float, X: Any, y: Any) -> float:
    """How far the model is above the optimum, by a formula of its own."""
    raw = X @ surrogate.coef_.T + surrogate.intercept_
    if raw.shape[1] == 1:
        raw = np.hstack([np.zeros_like(raw), raw])
    loss = np.logaddexp.reduce(raw, axis=1) - raw[np.arange(len(y)), y]
    penalty = 0.5 * surrogate.alpha * (surrogate.coef_**2).sum()
    return float(loss.mean() + penalty) / optimum - 1


@pytest.mark.parametrize("K", [2, 3, 7])
def test_it_reaches_the_minimum_that_lbfgs_reaches_in_fewer_passes(K: int) -> None:
    X, y = blobs(K=K)
    ours, other = fitted(X, y, sample_size=600), fitted(X, y, solver="lbfgs", max_iter=1000)
    np.testing.assert_allclose(ours.coef_, other.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.loss_, other.loss_, rtol=1e-9)
    assert ours.n_iter_ < other.n_iter_
    assert ours.stop_reason_.startswith("converged")


@pytest.mark.parametrize("params", [{"l1_ratio": 1.0}, {"l1_ratio": 0.5}])
def test_an_l1_penalty_has_the_same_minimum_as_with_fista(params: Any) -> None:
    X, y = blobs()
    params |= {"alpha": 0.02, "max_iter": 500}
    ours = fitted(X, y, sample_size=600, **params)
    other = fitted(X, y, **params | {"solver": "sgd", "batch_size": 10**6})
    np.testing.assert_allclose(ours.loss_, other.loss_, rtol=1e-7)
    assert np.array_equal(ours.coef_ == 0, other.coef_ == 0)
    assert (ours.coef_ == 0).any()
    assert ours.n_iter_ < other.n_iter_


@pytest.mark.parametrize(
    "params",
    [{"fit_intercept": False}, {"standardize": True}, {"class_weight": "balanced"}, {"alpha": 0.0}],
    ids=str,
)
def test_every_objective_has_the_minimum_that_lbfgs_finds(params: Any) -> None:
    X, y = blobs()
    y = np.minimum(y, 2)  # unequal classes
    ours = fitted(X, y, sample_size=500, **params)
    other = fitted(X, y, solver="lbfgs", max_iter=2000, **params)
    np.testing.assert_allclose(ours.loss_, other.loss_, rtol=1e-8)


def test_a_sample_of_all_rows_is_the_objective_itself(
    digits: tuple[np.ndarray, np.ndarray],
) -> None:
    minimum = fitted(*digits, solver="lbfgs", max_iter=2000).loss_
    losses = [record["loss"] for record in fitted(*digits).history_ if record["kind"] == "pass"]
    far = np.array(losses) / minimum - 1
    assert far[2] < 1e-2  # the first pass is that of the intercepts
    assert far[3] < 1e-4
    assert far[5] < 1e-6


def test_features_of_very_different_scales_do_not_stall_it() -> None:
    X, y = blobs(d=20)
    scales = np.geomspace(1e-3, 1e3, 20)
    plain, scaled = fitted(X, y, alpha=0, tol=1e-6), fitted(X * scales, y, alpha=0, tol=1e-6)
    np.testing.assert_allclose(scaled.coef_ * scales, plain.coef_, atol=1e-3)
    assert scaled.n_iter_ <= plain.n_iter_ + 1


def test_features_of_hardly_any_curvature_are_not_held_back_by_the_damping() -> None:
    X, y = blobs(d=16)
    X[:, 8:] *= 1e-4
    params = {"standardize": True, "alpha": 1e-4, "max_iter": 30}
    minimum = fitted(X, y, solver="lbfgs", **params | {"max_iter": 5000, "tol": 1e-9}).loss_
    ours = fitted(X.astype("f4"), y, sample_size=600, **params)
    np.testing.assert_allclose(ours.loss_, minimum, rtol=1e-6)


@pytest.mark.parametrize("single_model", [True, False])
def test_searches_that_rounding_error_has_ended_go_on_in_float64(single_model: bool) -> None:
    solver = Newton(
        ElasticNet(0.1, 0.0, np.ones((2, 1))), tol=0.0, noise=1e-3, single_model=single_model
    )
    at, gradient = np.zeros((3, 2)), np.full((1, 3, 2), 0.1)
    known = Evaluation(np.ones(1), gradient, np.zeros(1))
    state = solver.start(at, known, at)
    assert not solver.ask(state).use_float64
    state = solver.tell(state, replace(known, share=0.3))
    assert state.search is not None
    higher = replace(known, value=np.full(1, 2.0))  # wherever the search goes
    while state.n_passes == 0:
        state = solver.tell(state, higher)
    assert state.use_float64 == single_model
    assert solver.ask(state).use_float64 == single_model


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_the_first_model_is_damped_wherever_it_starts(start: float) -> None:
    solver = Newton(ElasticNet(0.1, 0.0, np.ones((2, 1))), tol=0.0, noise=1e-7)
    at = np.zeros((3, 2))
    known = Evaluation(np.ones(1), np.full((1, 3, 2), 0.1), np.zeros(1), share=0.3)
    state = solver.start(at + start, known, at)
    while state.surrogate is None:
        state = solver.tell(state, known)
    assert state.surrogate.damping > 1e-3


@pytest.mark.parametrize(("rows", "points"), [(6, 1), (5, 2)])
def test_a_rival_is_evaluated_where_the_sample_has_fewer_rows_than_there_are_coefficients(
    rows: int, points: int
) -> None:
    solver = Newton(ElasticNet(0.1, 0.0, np.ones((2, 1))), tol=0.0, noise=1e-7)
    state = after_a_search(solver, rows)
    assert len(solver.ask(state).points) == points


def test_a_rival_is_evaluated_once_a_model_has_failed() -> None:
    solver = Newton(ElasticNet(0.1, 0.0, np.ones((2, 1))), tol=0.0, noise=1e-7)
    state = after_a_search(solver, rows=100)
    (point,) = solver.ask(state).points
    state = solver.tell(state, quadratic(point[None], rows=100, value=9.0))
    assert state.failed
    assert len(solver.ask(searched(solver, state, rows=100)).points) == 2


def quadratic(points: np.ndarray, rows: int, value: float | None = None) -> Evaluation:
    """Half the squared distance from ones, or a value in its place."""
    values = 0.5 * ((points - 1) ** 2).sum(axis=(1, 2)) if value is None else np.full(1, value)
    return Evaluation(values, points - 1, np.zeros(len(points)), rows, share=0.3)


def searched(solver: Newton, state: NewtonState, rows: int) -> NewtonState:
    while not state.trials:
        state = solver.tell(state, quadratic(solver.ask(state).points, rows))
    return state


def after_a_search(solver: Newton, rows: int) -> NewtonState:
    at = np.zeros((3, 2))
    return searched(solver, solver.start(at, quadratic(at[None], rows), at), rows)


@pytest.mark.slow
def test_rows_of_rare_features_do_not_mislead_newton() -> None:
    """A sample of a fifth misses most rows of a feature that five of them have."""
    X, y = blobs(n=4000, d=30)
    rare = np.zeros((4000, 40))
    rare[np.arange(200), np.arange(200) % 40] = 40.0
    X = np.hstack([X, rare])
    ours = fitted(X, y, sample_size=800, alpha=1e-5, max_iter=60)
    other = fitted(X, y, solver="lbfgs", alpha=1e-5, max_iter=3000)
    np.testing.assert_allclose(ours.loss_, other.loss_, rtol=1e-6)
    losses = [record["loss"] for record in ours.history_]
    assert max(losses) == losses[0]


def test_sorted_labels_and_rare_classes_cost_no_more_passes(store: Callable[..., str]) -> None:
    X, y = blobs(n=6000, K=5)
    y[y == 4] = np.where(np.arange((y == 4).sum()) % 20 == 0, 4, 0)
    order = np.argsort(y, kind="stable")
    y += 1  # no chunk of labels is all zeros
    path = store(rows=500, X=X[order], y=y[order])
    ours = fitted(f"{path}/X", f"{path}/y", sample_size=900)
    shuffled = fitted(X, y, sample_size=900)
    np.testing.assert_allclose(ours.loss_, shuffled.loss_, rtol=1e-8)
    assert ours.n_iter_ <= shuffled.n_iter_ + 3


def test_the_answer_of_a_small_budget_is_the_best_that_its_passes_give() -> None:
    X, y = blobs()
    best = fitted(X, y, solver="lbfgs", max_iter=1000).loss_
    far = [above(fitted(X, y, sample_size=600, max_iter=n), best, X, y) for n in (1, 2, 3, 4)]
    assert far == sorted(far, reverse=True)
    assert far[0] < 0.1
    assert far[-1] < 1e-4
    ours = fitted(X, y, sample_size=600, max_iter=3)
    assert ours.n_iter_ == 3
    np.testing.assert_allclose(ours.loss_ / best - 1, far[2], atol=1e-3)


def test_it_goes_on_from_the_last_fit() -> None:
    X, y = blobs()
    surrogate = fitted(X, y, sample_size=600, warm_start=True)
    passes = surrogate.n_iter_
    again = surrogate.fit(X, y)
    assert again.n_iter_ < passes
    np.testing.assert_allclose(again.loss_, fitted(X, y).loss_, rtol=1e-9)


def test_rows_without_weight_are_not_picked() -> None:
    X, y = blobs()
    weight = np.ones(len(y))
    weight[::3] = 0
    X[::3] = 1e6
    ours = SoftmaxRegression(solver="newton", sample_size=400, tol=1e-7, random_state=0)
    ours.fit(X, y, sample_weight=weight)
    other = SoftmaxRegression(solver="lbfgs", tol=1e-7, max_iter=1000).fit(
        X[weight > 0], y[weight > 0]
    )
    np.testing.assert_allclose(ours.loss_, other.loss_, rtol=1e-7)


def test_a_sample_that_is_too_small_to_hold_a_row_is_refused() -> None:
    X, y = blobs(n=50_000, d=1, K=2)
    surrogate = SoftmaxRegression(solver="newton", sample_size=1, random_state=6, max_iter=1)
    with pytest.raises(DataError, match="sample_size is 1, and no row was picked; set it larger"):
        surrogate.fit(X, y)


@pytest.mark.parametrize("n_secants", [1, 2, 5])
def test_the_low_rank_term_maps_steps_to_gradient_changes_of_a_convex_function(
    n_secants: int,
) -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(8, 8))
    matrix = root @ root.T
    secants = [Secant(step, matrix @ step) for step in rng.normal(size=(n_secants, 8))]
    low_rank = low_rank_from(secants, 8)
    assert (low_rank.weights > 0).all()
    assert all(
        secant.step @ low_rank(secant.step) >= 0.99 * secant.step @ secant.change
        for secant in secants
    )
    np.testing.assert_allclose(low_rank(np.zeros(8)), np.zeros(8))


def test_without_secant_pairs_the_low_rank_term_is_zero() -> None:
    assert not low_rank_from([], 8)(np.ones((4, 2))).any()


def test_the_statuses_say_why_it_stops() -> None:
    X, y = blobs()
    assert fitted(X, y, max_iter=2, sample_size=300).stop_reason_ == Status.BUDGET.value
    assert fitted(X, y, tol=1e-3).stop_reason_ == Status.CONVERGED.value
    assert fitted(X, y, tol=0, max_iter=80).stop_reason_ == Status.PRECISION.value


@pytest.mark.parametrize("alpha", [1e-1, pytest.param(1e-3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("n_classes", [2, 10])
def test_the_gap_is_about_the_distance_to_the_minimum(n_classes: int, alpha: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5000, 50))
    y = (X @ rng.normal(size=(50, n_classes)) / 2 + rng.gumbel(size=(5000, n_classes))).argmax(1)
    params = {"sample_size": 300, "alpha": alpha}
    minimum = fitted(X, y, tol=1e-12, max_iter=60, **params).loss_
    surrogate = fitted(X, y, tol=1e-6, **params)
    passes = [record for record in surrogate.history_ if record["kind"] == "pass"]
    above = [(r["gap"], r["loss"] - minimum) for r in passes if "gap" in r]
    ratios = [gap / distance for gap, distance in above if distance > 1e-10]
    assert len(ratios) >= 2
    assert max(ratios) < 30
    assert min(ratios) > 0.2
    assert surrogate.gap_ == passes[-1].get("gap")
    stopped = fitted(X, y, tol="auto", **params)
    if stopped.stop_reason_.startswith("converged statistically"):
        assert stopped.loss_ - minimum < 0.01 * 51 * max(n_classes - 1, 1) / (2 * 5000)


def test_at_the_end_of_the_budget_the_gap_is_what_the_last_step_was_to_gain(
    digits: tuple[np.ndarray, np.ndarray],
) -> None:
    minimum = fitted(*digits, tol=1e-12, max_iter=60).loss_
    surrogate = SoftmaxRegression(alpha=1e-3, max_iter=2, random_state=0)
    with pytest.warns(ConvergenceWarning, match="by estimate .* above the minimum: budget"):
        surrogate.fit(*digits)
    assert surrogate.gap_ is not None
    assert 0 < surrogate.loss_ - minimum < surrogate.gap_


def test_where_nothing_tells_the_gap_there_is_none(digits: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = digits
    assert fitted(X, y, l1_ratio=0.5, tol=1e-3).gap_ is None
    assert fitted(X, y, solver="lbfgs", tol=0.1).gap_ is None
    assert SoftmaxRegression().fit([[0.0], [0.0]], [0, 1]).gap_ is None


def test_auto_stops_where_the_choice_of_the_rows_leaves_more_uncertain() -> None:
    X, y = blobs(6000, K=5)
    minimum = fitted(X, y, tol=1e-12, max_iter=60).loss_
    surrogate, further = (fitted(X, y, tol=tol, sample_size=1000) for tol in ("auto", 1e-6))
    assert surrogate.stop_reason_.startswith("converged statistically")
    assert surrogate.n_iter_ < further.n_iter_
    assert surrogate.loss_ - minimum < 0.01 * 13 * 4 / (2 * len(y))
    assert not fitted(X, y, solver="lbfgs", tol="auto").stop_reason_.startswith("converged stat")


def test_auto_is_no_other_than_its_tolerance_where_there_are_few_rows_a_coefficient() -> None:
    X, y = blobs(300, d=60, K=2)
    surrogate = fitted(X, y, tol="auto", sample_size=100)
    assert not surrogate.stop_reason_.startswith("converged stat")
    assert surrogate.loss_ == fitted(X, y, tol=1e-4, sample_size=100).loss_


def test_a_sample_that_the_memory_cannot_hold_is_refused_with_what_it_can(
    monkeypatch: pytest.MonkeyPatch, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    X, y = digits
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", 3 * 512 * 1000)
    monkeypatch.setattr("dsoftmax.runtime.threads.own_limit", lambda: 1 << 40)  # for its tasks
    for ask in (fitted, lambda X, y, **params: plan_fit(X, y, SoftmaxRegression(**params))):
        with pytest.raises(
            MemoryBoundError, match=r"is 1,200 rows.*set sample_size to at most 1,0"
        ):
            ask(X, y, solver="newton", sample_size=1200)
    assert fitted(X, y, sample_size=1000, tol=0.1).n_iter_ > 1
