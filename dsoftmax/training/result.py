"""How a fit ends: which model is returned, and what is known about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dsoftmax.data.retry import BadChunk
from dsoftmax.events import ChunkQuarantined, StepEnded
from dsoftmax.objective.objective import Objective
from dsoftmax.solvers.base import Request, RowSelection, Solver, State, Status
from dsoftmax.training.evaluator import Evaluator
from dsoftmax.training.progress import Progress
from dsoftmax.training.run_state import BestModel, EpochPosition, FitState, FittedModel
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
        return f"after {self.passes} passes, at loss {model.loss:.6g}{above}: {model.status.value}"

    @property
    def left_out(self) -> str:
        """What was left out of it."""
        rows = sum(bad_chunk.stop - bad_chunk.start for bad_chunk in self.quarantined)
        return (
            f"{len(self.quarantined)} chunks of X, {rows} rows, cannot be read and were left out "
            f"(quarantined_ lists them); the first: {self.quarantined[0].reason}"
        )


def final_model(
    evaluator: Evaluator,
    progress: Progress,
    objective: Objective,
    solver: Solver[Any],
    state: FitState,
) -> tuple[FittedModel, EpochPosition]:
    """Return the model of the lowest validation loss, or else that of the solver.

    The mean over the batches of an epoch is no value of any one point: after mini-batches the
    model is evaluated once more. If it is worse than the intercepts alone, those are returned.

    Returns
    -------
    the model, and the position of the fit after that evaluation

    Raises
    ------
    DataError
        If the data have changed since they were opened.
    """
    solver_state, best = state.solver_state, state.best
    assert solver_state is not None, "the solver has started"
    at_intercepts = float(objective.at_intercept_only.value[0])
    status = solver_state.status
    for candidate in _candidates(objective, solver_state, best):
        point, loss, best_pass = candidate
        known = np.isfinite(loss) and state.position.epoch == state.position.step == 0
        request, evaluated = Request(point[None], RowSelection.ALL), False
        if (
            not known
            and status is not Status.INTERRUPTED
            and evaluator.affordable(request, state.position)
        ):
            try:
                loss, state = _evaluate(evaluator, progress, objective, request, state)
                evaluated = True
            except KeyboardInterrupt:
                status = Status.INTERRUPTED
        if loss <= at_intercepts if evaluated else np.isfinite(loss):
            break
    else:
        point, loss, best_pass = objective.intercept_only, at_intercepts, None
        status = Status.DIVERGED if evaluated else status
    gap = None if best_pass else solver.gap(solver_state)
    if status is Status.BUDGET and best is None and (guess := solver.guess(solver_state)):
        point, loss, gap = guess
    if state.position.separated and best_pass is None and status is not Status.INTERRUPTED:
        status = Status.SEPARABLE
    evaluator.require_unchanged()
    coef, intercept = objective.coefficients(point)
    return FittedModel(coef, intercept, loss, gap, status, best_pass), state.position


def _candidates(
    objective: Objective, state: State, best: BestModel | None
) -> Iterator[tuple[Array, float, int | None]]:
    """Yield points to return, the preferred one first, with their objectives as far as known."""
    if best is not None:
        point = objective.coordinates.from_coefficients(*best.coefficients)
        yield point, best.value, best.passes
    yield state.point, state.value, None


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
