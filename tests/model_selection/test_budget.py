"""How a search ends early, and goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import SoftmaxRegressionCV
from dsoftmax.events import CandidatesJudged
from tests.callbacks import Once

Arrays = tuple[np.ndarray, np.ndarray]


def search(**params: object) -> SoftmaxRegressionCV:
    given = {"alphas": [1e-2, 1.0, 100.0], "cv": 3, "random_state": 0, "tol": 1e-3} | params
    return SoftmaxRegressionCV(**given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data(digits: Arrays) -> Arrays:
    return digits[0][:400, ::2], digits[1][:400]


@pytest.mark.slow
def test_a_search_whose_budget_is_spent_says_so_and_goes_on_with_a_larger_one(
    data: Arrays, tmp_path: Path
) -> None:
    whole = search(tol=1e-6).fit(*data)
    assert whole.n_iter_ > 4
    for budget in range(1, whole.n_iter_):
        place = tmp_path / str(budget)
        with pytest.warns(ConvergenceWarning, match="budget"):
            early = search(tol=1e-6, max_iter=budget, checkpoint=place).fit(*data)
        with pytest.warns(ConvergenceWarning, match="budget"):
            again = search(tol=1e-6, max_iter=budget, checkpoint=place).fit(*data)
        assert early.n_iter_ == again.n_iter_ == budget
        assert early.coef_.tobytes() == again.coef_.tobytes()
        assert early.stop_reason_.startswith("budget")
        later = search(tol=1e-6, checkpoint=place).fit(*data)
        assert later.coef_.tobytes() == whole.coef_.tobytes()
        assert later.scores_.tobytes() == whole.scores_.tobytes()


def test_a_search_that_is_interrupted_returns_the_best_so_far_and_can_go_on(
    data: Arrays, tmp_path: Path
) -> None:

    def interrupt() -> None:
        raise KeyboardInterrupt

    in_second_round = Once(CandidatesJudged, interrupt, number=3)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        model = search(tol=1e-6, callbacks=[in_second_round], checkpoint=tmp_path).fit(*data)
    assert in_second_round.done
    assert model.stop_reason_.startswith("interrupted")
    assert model.score(*data) > 0.9
    later = search(tol=1e-6, checkpoint=tmp_path).fit(*data)
    assert later.coef_.tobytes() == search(tol=1e-6).fit(*data).coef_.tobytes()
