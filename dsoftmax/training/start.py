"""Where a fit starts, and what the first read tells of the objective there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dsoftmax.errors import DataError
from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.kernel import LossSums
from dsoftmax.objective.labels import preview
from dsoftmax.objective.linear_model import LinearModel
from dsoftmax.objective.objective import Objective
from dsoftmax.objective.scaling import kernel_shift
from dsoftmax.objective.units import in_units, shift_and_factor
from dsoftmax.solvers.base import FullBatchState, Solver, State, Status
from dsoftmax.training.params import FitParams
from dsoftmax.training.run_state import DataStatistics, EpochPosition
from dsoftmax.typing import Array


def warm_start(params: FitParams, classes: Array, n_features: int) -> LinearModel | None:
    """Return the last fit, if a solver is to start from it.

    Raises
    ------
    DataError
        If it had other classes or features than the data.
    """
    last = params.start
    if last is None:
        return None
    if not np.array_equal(last.classes, classes) or len(last.coef) != n_features:
        raise DataError(
            f"the last fit had {len(last.coef)} features and the classes {preview(last.classes)}, "
            f"the data have {n_features} and {preview(classes)}; to go on from it "
            "(warm_start, partial_fit) they must be the same"
        )
    return last if params.fit_intercept else replace(last, intercept=0.0 * last.intercept)


def first_point(objective: Objective, start: LinearModel | None) -> Array:
    """Return that model, or the intercepts alone, in the coordinates of a solver."""
    if start is None:
        return objective.intercept_only
    return objective.coordinates.from_coefficients(start.coef, start.intercept)


def at_start(
    objective: Objective, start: LinearModel | None, statistics: DataStatistics | None
) -> Evaluation | None:
    """Return the objective at the start, if the first read has told it.

    It was computed before the moments were known: None where the kernel should have subtracted
    them, and the sums lost digits.
    """
    if statistics is None or statistics.at_start is None or start is None:
        return None
    coordinates = objective.coordinates
    moments = statistics.moments.in_units_of(coordinates.exponent)
    shift = shift_and_factor(start.shift)[0]
    offset = moments.mean
    if shift is not None:
        offset = offset - in_units(shift.astype(np.float64), coordinates.exponent)
    if (
        objective.fit_intercept
        and kernel_shift(offset, moments.variance, objective.dtype) is not None
    ):
        return None
    seen = replace(objective, coordinates=coordinates.on_rows_of(start.shift))
    point = first_point(objective, start)[None]
    return seen.evaluation(point, statistics.at_start, statistics.n_rows)


def first_state(
    solver: Solver[Any],
    objective: Objective,
    start: LinearModel | None,
    statistics: DataStatistics | None,
) -> State:
    """Return the first state of a solver, for what the first read has told."""
    point, known = first_point(objective, start), at_start(objective, start, statistics)
    state: State = solver.start(point, objective.at_intercept_only, objective.intercept_only)
    if known is None:
        return state
    state = solver.moved(state, point, known)
    if isinstance(state, FullBatchState) and state.gradient_norm <= state.target:
        return replace(state, status=Status.CONVERGED)
    return state


def beside_start(objective: Objective, points: Array, start: LinearModel | None) -> Array:
    """Return points with the start as the last of them, if there is one."""
    if start is None:
        return points
    return np.concatenate([points, first_point(objective, start)[None]])


def apart_from_start(position: EpochPosition, sums: LossSums) -> tuple[EpochPosition, LossSums]:
    """Return the position with what the last model's sums add to it, and those of the others."""
    loss, weight = position.at_start
    so_far = (loss + float(sums.loss[-1]), weight + float(sums.weight[-1]))
    return replace(position, at_start=so_far), sums.models(slice(-1))


def value_at_start(objective: Objective, start: LinearModel, sums: tuple[float, float]) -> float:
    """Return the objective at the start, for sums of loss and weight there; NaN without any."""
    loss, weight = sums
    if not weight > 0:
        return float("nan")
    point = first_point(objective, start)
    l2_value, _ = objective.penalty.l2_value_gradient(point)
    return loss / weight + l2_value + objective.penalty.l1_value(point)
