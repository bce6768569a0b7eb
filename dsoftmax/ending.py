"""How a fit ends: which model is returned, and what is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsoftmax.objective import Objective
from dsoftmax.passes import Passes
from dsoftmax.reduction import Array
from dsoftmax.solvers.base import Request, Rows, Solver, State, Status
from dsoftmax.validation import Best


@dataclass(frozen=True)
class Final:
    """The model that a fit returns.

    Attributes
    ----------
    coef : (n_features, n_columns), in units of the data
    intercept : (n_columns,)
    loss : penalised objective there
    gap : estimate of how far that is above its minimum, or None
    status : why the fit has ended
    best_pass : the pass whose model validation rows called the best, if it is that one
    """

    coef: Array
    intercept: Array
    loss: float
    gap: float | None
    status: Status
    best_pass: int | None


def settle(
    passes: Passes, objective: Objective, solver: Solver[Any], state: State, best: Best | None
) -> Final:
    """Return the model that validation rows call the best, or else the one of the solver.

    The mean over the batches of an epoch belongs to no one point: after mini-batches the model is
    evaluated once more. Should it be worse than the intercepts alone, those are returned.
    """
    worst, status = float(objective.known.value[0]), state.status
    for model in _candidates(objective, state, best):
        point, value, best_pass = model
        loss, evaluated, status = _objective_at(point, value, passes, objective, status)
        if loss <= worst if evaluated else np.isfinite(loss):
            break
    else:
        point, loss, best_pass = objective.intercept_only, worst, None
        status = Status.DIVERGED if evaluated else status
    gap = None if best_pass else solver.gap(state)
    if status is Status.BUDGET and best is None and (guess := solver.guess(state)):
        point, loss, gap = guess
    if passes.separated and best_pass is None and status is not Status.INTERRUPTED:
        status = Status.SEPARABLE
    return Final(*objective.coefficients(point), loss, gap, status, best_pass)


def _candidates(
    objective: Objective, state: State, best: Best | None
) -> Iterator[tuple[Array, float, int | None]]:
    if best is not None:
        point = objective.coordinates.from_coefficients(*best.coefficients)
        yield point, best.value, best.passes
    yield state.point, state.value, None


def _objective_at(
    point: Array, value: float, passes: Passes, objective: Objective, status: Status
) -> tuple[float, bool, Status]:
    """Return the objective at a point, whether it was read for that, and the status after it.

    What was known of it stands in where the budget has no room, or the user interrupts.
    """
    request = Request(point[None], Rows.ALL)
    known = np.isfinite(value) and not passes.only_batches
    if known or status is Status.INTERRUPTED or not passes.affordable(request):
        return value, False, status
    try:
        found = objective.whole(point, passes.evaluate(objective, request))[0]
        passes.tell(passes.close(objective, point))
    except KeyboardInterrupt:
        return value, False, Status.INTERRUPTED
    return found, True, status
