"""When a fit stops before its solver converges: early stopping, and the rule of tol='auto'."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dsoftmax.events import PassEnded
from dsoftmax.solvers.base import State, Status
from dsoftmax.training.params import FitParams
from dsoftmax.training.run_state import BestModel
from dsoftmax.typing import Array

# Of the expected excess loss due to sampling: a gap is only known to a factor.
_GAP_FRACTION = 1 / 300
# With fewer rows, n_params / (2 * n_rows) is no estimate of the excess loss.
_MIN_ROWS_PER_COEFFICIENT = 10


def best_after(
    best: BestModel | None, coefficients: tuple[Array, Array], event: PassEnded, tol: float
) -> BestModel:
    """Return the best model after another pass.

    Only a validation loss lower by more than `tol` times the best one counts as progress.
    """
    assert event.validation is not None, "there are validation rows"
    loss, passes = event.validation.loss, int(event.passes)
    if best is None or np.isinf(best.loss):
        return BestModel(coefficients, event.loss, loss if np.isfinite(loss) else np.inf, passes)
    n_no_improvement = 0 if loss < best.loss - tol * best.loss else best.n_no_improvement + 1
    if loss < best.loss:
        return BestModel(coefficients, event.loss, loss, passes, n_no_improvement)
    return replace(best, n_no_improvement=n_no_improvement)


def status_after(
    state: State, gap: float | None, params: FitParams, best: BestModel | None, n_rows: int
) -> Status:
    """Return the status of a fit after a pass: that of its solver, or one of ours.

    Parameters
    ----------
    state : of the solver
    gap : its estimate of how far the objective is above its minimum, or None
    params : FitParams
    best : the model of the lowest validation loss, with early stopping
    n_rows : number of training rows

    Notes
    -----
    The expected excess loss due to sampling is ``n_params / (2 * n_rows)`` without a penalty
    (Wilks, Annals of Mathematical Statistics 9, 1938). Optimising beyond a small fraction of it
    gains next to nothing on new rows (Bottou and Bousquet, The tradeoffs of large scale learning,
    2008).
    """
    if state.status is not Status.RUNNING:
        return state.status
    if best is not None and best.n_no_improvement >= params.n_iter_no_change:
        return Status.EARLY
    if not params.tol_auto or gap is None:
        return Status.RUNNING
    near = gap <= _GAP_FRACTION * excess_loss(state, n_rows)
    return Status.STATISTICAL if near else Status.RUNNING


def excess_loss(state: State, n_rows: int) -> float:
    """Return the expected excess loss due to sampling; 0 with too few rows to estimate it."""
    height, width = state.point.shape
    n_coefficients = height * max(width - 1, 1)  # a constant added to all classes changes nothing
    enough = n_rows >= _MIN_ROWS_PER_COEFFICIENT * n_coefficients
    return n_coefficients / (2 * n_rows) if enough else 0.0
