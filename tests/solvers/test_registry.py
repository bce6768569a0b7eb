"""A new solver is one file and one line of the registry: here the file is this test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from dsoftmax import SoftmaxRegression
from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.penalty import largest
from dsoftmax.solvers import SOLVERS
from dsoftmax.solvers.base import FullBatchState, Request, Solver, SolverParams, Status
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array


@storable
@dataclass(frozen=True)
class ToyState(FullBatchState):
    """State of gradient descent: the next point to evaluate."""

    trial: Array


@dataclass(frozen=True)
class Toy(Solver[ToyState]):
    """Gradient descent with steps of one, in coordinates in which that is short enough."""

    tol: float

    name: ClassVar[str] = "toy"
    penalties: ClassVar[tuple[str, ...]] = ("l2",)

    @classmethod
    def from_params(cls, params: SolverParams) -> Toy:
        return cls(params.tol)

    def start(self, point: Array, at_intercept_only: Evaluation, intercept_only: Array) -> ToyState:
        value, gradient = float(at_intercept_only.value[0]), at_intercept_only.gradient[0]
        norm = largest(gradient)
        return ToyState(intercept_only, value, norm, Status.RUNNING, self.tol * norm, trial=point)

    def ask(self, state: ToyState) -> Request:
        return Request(state.trial[None])

    def tell(self, state: ToyState, result: Evaluation) -> ToyState:
        gradient = result.gradient[0]
        norm = largest(gradient)
        status = Status.CONVERGED if norm <= state.target else Status.RUNNING
        return replace(
            state,
            point=state.trial,
            value=float(result.value[0]),
            gradient_norm=norm,
            status=status,
            trial=state.trial - gradient,
        )


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOLVERS, Toy.name, Toy)


@pytest.mark.usefixtures("_registered")
def test_a_solver_of_one_file_and_one_line_fits_stops_and_resumes(
    digits: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    X, y = digits
    best = SoftmaxRegression(alpha=0.1, solver="lbfgs", tol=1e-6).fit(X, y)
    whole = SoftmaxRegression(alpha=0.1, solver="toy", max_iter=300, tol=1e-2).fit(X, y)
    assert whole.stop_reason_.startswith("converged")
    assert 0 <= whole.loss_ - best.loss_ < 0.1 * best.loss_
    parts = SoftmaxRegression(
        alpha=0.1, solver="toy", max_iter=5, tol=1e-2, checkpoint=tmp_path / "run"
    )
    with pytest.warns(UserWarning, match="budget"):
        parts.fit(X, y)
    resumed = parts.set_params(max_iter=300).fit(X, y)
    np.testing.assert_array_equal(resumed.coef_, whole.coef_)


@pytest.mark.usefixtures("_registered")
def test_a_penalty_that_a_solver_cannot_minimise_is_refused_by_name(
    digits: tuple[np.ndarray, np.ndarray],
) -> None:
    with pytest.raises(ValueError, match="'toy' minimises smooth penalties only"):
        SoftmaxRegression(l1_ratio=0.5, solver="toy").fit(*digits)
