"""Reasons to stop that no solver knows: what validation rows say, and what the data can tell."""

from __future__ import annotations

from dsoftmax.settings import Settings
from dsoftmax.solvers.base import State, Status
from dsoftmax.validation import Best

_SHARE = 0.01  # of what the choice of the rows leaves uncertain


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
    The minimum for these rows is above that for all rows that there could be by half the number of
    coefficients over that of rows, on average (Wilks, Annals of Mathematical Statistics 9, 1938).
    To come nearer to it than a fraction of that gains nothing on other rows (Bottou and Bousquet,
    The tradeoffs of large scale learning, 2008).
    """
    if state.status is not Status.RUNNING:
        return state.status
    if best is not None and best.stale >= settings.n_iter_no_change:
        return Status.EARLY
    uncertain = state.point.size / (2 * max(n_rows, 1))
    near = gap is not None and gap <= _SHARE * uncertain
    return Status.STATISTICAL if near and settings.statistical else Status.RUNNING
