"""Reasons to stop that no solver knows: what validation rows say, and what the data can tell."""

from __future__ import annotations

from dsoftmax.settings import Settings
from dsoftmax.solvers.base import State, Status
from dsoftmax.validation import Best

_SHARE = 1 / 300  # of what the choice of the rows leaves uncertain: a gap is known to a factor
_ROWS_A_COEFFICIENT = 10  # below, that is not half the number of coefficients over that of rows


def status_after(
    state: State, gap: float | None, settings: Settings, best: Best | None, n_rows: int
) -> Status:
    """Return how a fit goes on after a pass.

    Parameters
    ----------
    state : of the solver
    gap : its estimate of how far the objective is above its minimum, if it has one
    settings : Settings
    best : what validation rows say so far, if they are to
    n_rows : how many it learns from

    Notes
    -----
    The best coefficients for these rows are worse, on all rows that there could be, than the best
    ones for those by half the number of coefficients over that of rows, on average and without a
    penalty (Wilks, Annals of Mathematical Statistics 9, 1938). To come nearer to them than a
    fraction of that gains next to nothing on other rows (Bottou and Bousquet, The tradeoffs of
    large scale learning, 2008).
    """
    if state.status is not Status.RUNNING:
        return state.status
    if best is not None and best.stale >= settings.n_iter_no_change:
        return Status.EARLY
    near = gap is not None and settings.statistical and gap <= _SHARE * uncertain(state, n_rows)
    return Status.STATISTICAL if near else Status.RUNNING


def uncertain(state: State, n_rows: int) -> float:
    """Return what the choice of the rows leaves uncertain of the objective, 0 if too few tell."""
    height, width = state.point.shape
    n_coefficients = height * max(width - 1, 1)  # what is added to all classes alike is none
    enough = n_rows >= _ROWS_A_COEFFICIENT * n_coefficients
    return n_coefficients / (2 * n_rows) if enough else 0.0
