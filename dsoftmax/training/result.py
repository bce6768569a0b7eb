"""How a fit ends: which model is returned, and what is known about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from dsoftmax.data.retry import BadChunk
from dsoftmax.events import ChunkQuarantined, StepEnded
from dsoftmax.objective.linear_model import LinearModel
from dsoftmax.objective.objective import Objective
from dsoftmax.solvers.base import Request, RowSelection, Solver, State, Status
from dsoftmax.training.evaluator import Evaluator
from dsoftmax.training.progress import Progress
from dsoftmax.training.run_state import EpochPosition, FitState, FittedModel
from dsoftmax.training.start import at_start, first_point, value_at_start
from dsoftmax.typing import Array


@dataclass(frozen=True)
class FitResult:
    """A fitted model, and how it came about.

    Attributes
    ----------
    classes : (K,)
    model : the coefficients, and what is known about them
    shift : (n_features,), what the kernel subtracts from the rows, or None
    passes, steps : what it took
    seed : of its random numbers
    quarantined : chunks that could not be read, and were left out
    numerics : the kinds of arithmetic that computed it, each with the first worker that had it
    labels : digest of the classes, and of the rows and weight of each
    history : its steps, passes and quarantined chunks
    """

    classes: Array
    model: FittedModel
    shift: Array | None
    passes: int
    steps: int
    seed: int
    quarantined: tuple[BadChunk, ...]
    numerics: dict[str, str]
    labels: str
    history: tuple[StepEnded | ChunkQuarantined, ...]

    @property
    def advice(self) -> str:
        """What to do about a fit that has not converged."""
        model, gap = self.model, self.model.gap
        above = "" if gap is None else f", by estimate {gap:.1g} above the minimum"
        loss = f"{'loss' if model.evaluated else 'an estimated loss of'} {model.loss:.6g}"
        return f"after {self.passes} passes, at {loss}{above}: {model.status.value}"

    @property
    def left_out(self) -> str:
        """What was left out of it."""
        rows = sum(bad_chunk.stop - bad_chunk.start for bad_chunk in self.quarantined)
        return (
            f"{len(self.quarantined)} chunks of X, {rows} rows, cannot be read and were left out "
            f"(quarantined_ lists them); the first: {self.quarantined[0].reason}"
        )


class _Choice(NamedTuple):
    """A point that may be returned, its objective, and whether that was evaluated on all rows."""

    point: Array
    loss: float
    evaluated: bool
    best_pass: int | None = None


def final_model(
    evaluator: Evaluator,
    progress: Progress,
    objective: Objective,
    solver: Solver[Any],
    state: FitState,
    start: LinearModel | None,
) -> tuple[FittedModel, EpochPosition]:
    """Return the model of the lowest validation loss, or else that of the solver.

    The mean over the batches of an epoch is no value of any one point: after mini-batches the
    model is evaluated once more. If it is worse than the intercepts alone, or than the model of a
    warm start, those are returned.

    Returns
    -------
    the model, and the position of the fit after that evaluation

    Raises
    ------
    DataError
        If the data have changed since they were opened, unless the fit was interrupted.
    """
    solver_state = state.solver_state
    assert solver_state is not None, "the solver has started"
    choice, status, state = _chosen(evaluator, progress, objective, solver_state, state)
    gap = None if choice.best_pass else solver.gap(solver_state)
    if status is Status.BUDGET and state.best is None and (guess := solver.guess(solver_state)):
        point, loss, gap = guess
        choice = _Choice(point, loss, evaluated=False)
    if start is not None and choice.best_pass is None:
        others = _others(objective, start, state, progress.passes)
        best = min((choice, *others), key=lambda each: each.loss)
        choice, gap = best, gap if best is choice else None
    if state.position.separated and choice.best_pass is None and status is not Status.INTERRUPTED:
        status = Status.SEPARABLE
    if status is not Status.INTERRUPTED:  # whoever stops a fit wants what there is
        evaluator.require_unchanged()
    with np.errstate(over="ignore", invalid="ignore"):
        coef, intercept = objective.coefficients(choice.point)
    if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
        choice, gap, status = _intercepts(objective), None, Status.NOT_FINITE
        coef, intercept = objective.coefficients(choice.point)
    model = FittedModel(
        coef, intercept, choice.loss, gap, status, choice.best_pass, choice.evaluated
    )
    return model, state.position


def _chosen(
    evaluator: Evaluator, progress: Progress, objective: Objective, at_end: State, state: FitState
) -> tuple[_Choice, Status, FitState]:
    """Return the preferred point, evaluated if the budget has room, and why the fit ended."""
    status, evaluated = at_end.status, False
    for choice in _candidates(objective, at_end, state):
        request, evaluated = Request(choice.point[None], RowSelection.ALL), False
        if (
            not choice.evaluated
            and status is not Status.INTERRUPTED
            and evaluator.affordable(request, state.position)
        ):
            try:
                loss, state = _evaluate(evaluator, progress, objective, request, state)
                choice, evaluated = choice._replace(loss=loss, evaluated=True), True
            except KeyboardInterrupt:
                status = Status.INTERRUPTED
        at_intercepts = float(objective.at_intercept_only.value[0])
        if choice.loss <= at_intercepts if evaluated else np.isfinite(choice.loss):
            return choice, status, state
    return _intercepts(objective), Status.DIVERGED if evaluated else status, state


def _candidates(objective: Objective, at_end: State, state: FitState) -> Iterator[_Choice]:
    """Yield points to return, the preferred one first, with their objectives as far as known."""
    # After mini-batches, the objectives are means over an epoch.
    of_point = state.position.epoch == state.position.step == 0
    if state.best is not None:
        point = objective.coordinates.from_coefficients(*state.best.coefficients)
        loss = state.best.value
        yield _Choice(point, loss, of_point and bool(np.isfinite(loss)), state.best.passes)
    yield _Choice(at_end.point, at_end.value, of_point and bool(np.isfinite(at_end.value)))


def _intercepts(objective: Objective) -> _Choice:
    value = float(objective.at_intercept_only.value[0])
    return _Choice(objective.intercept_only, value, evaluated=True)


def _others(
    objective: Objective, start: LinearModel, state: FitState, passes: int
) -> Iterator[_Choice]:
    """Yield what a warm start may be no worse than, as far as it is known."""
    yield _intercepts(objective)
    position, statistics = state.position, state.statistics
    sums = position.at_start
    unused = at_start(objective, start, statistics) is None  # by the solver: it had lost digits
    if passes <= 1 and unused and statistics is not None and statistics.at_start is not None:
        sums = (float(statistics.at_start.loss[0]), float(statistics.at_start.weight[0]))
    loss = value_at_start(objective, start, sums)
    if np.isfinite(loss):
        yield _Choice(first_point(objective, start), loss, evaluated=position.epoch > 0)


def _evaluate(
    evaluator: Evaluator,
    progress: Progress,
    objective: Objective,
    request: Request,
    state: FitState,
) -> tuple[float, FitState]:
    """Return the objective at the one point of a request, and the state after its pass."""
    evaluated = evaluator.evaluate(objective, request, state)
    loss, _ = objective.value_and_norm(evaluated.point, evaluated.result)
    held_out = evaluated.position.held_out
    progress.emit(evaluator.end_pass(objective, evaluated.point, held_out))
    position = replace(evaluated.position, held_out=None)
    return loss, replace(state, position=position, partial_sum=None)
