"""By how much the score of a candidate may still change, and who is out of the race for that."""

from __future__ import annotations

import numpy as np
import pytest

from dsoftmax.model_selection.racing import score_bound


@pytest.mark.parametrize(("gap", "n_judging"), [(1e-3, 50), (0.2, 10_000)])
def test_the_bound_of_a_score_allows_three_standard_errors_of_the_rows_that_judge(
    gap: float, n_judging: int
) -> None:
    without_coefficients = score_bound(gap, 0.0, 1000, n_judging)
    assert without_coefficients == pytest.approx(gap + 3 * np.sqrt(2 * gap / n_judging))


def test_the_bound_of_a_score_grows_with_coefficients_and_with_judges_that_were_seen() -> None:
    gap, n_free, n_learned, n_judging = 0.01, 40.0, 1000, 250
    chance = 3 * np.sqrt(2 * gap / n_judging)
    way = 2 * np.sqrt(gap * n_free / (2 * n_learned))
    bound = score_bound(gap, n_free, n_learned, n_judging)
    assert bound == pytest.approx(gap + way + chance)
    seen = score_bound(gap, n_free, n_learned, n_judging, seen=1.0)
    assert seen == pytest.approx(gap + way * (1 + np.sqrt(n_learned / n_judging)) + chance)


def test_without_an_estimate_of_the_gap_a_score_may_change_by_anything() -> None:
    assert score_bound(None, 1.0, 10, 10) == np.inf
