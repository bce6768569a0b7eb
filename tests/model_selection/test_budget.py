"""How a search ends early, and goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import SoftmaxRegressionCV
from dsoftmax.events import CandidatesJudged, Event

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


class Interrupt:
    """Presses Ctrl-C in the second round."""

    def __init__(self) -> None:
        self.heard, self.pressed = 0, False

    def on_event(self, event: Event) -> None:
        if not isinstance(event, CandidatesJudged):
            return
        self.heard += 1
        if self.heard == 3:
            assert sum(event.running) > 0
            self.pressed = True
            raise KeyboardInterrupt


def test_a_search_that_is_interrupted_returns_the_best_so_far_and_can_go_on(
    data: Arrays, tmp_path: Path
) -> None:
    interrupt = Interrupt()
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        model = search(tol=1e-6, callbacks=[interrupt], checkpoint=tmp_path).fit(*data)
    assert interrupt.pressed
    assert model.stop_reason_.startswith("interrupted")
    assert model.score(*data) > 0.9
    later = search(tol=1e-6, checkpoint=tmp_path).fit(*data)
    assert later.coef_.tobytes() == search(tol=1e-6).fit(*data).coef_.tobytes()
