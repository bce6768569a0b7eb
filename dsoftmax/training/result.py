"""How a fit ends: which model is returned, and what is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsoftmax.data.retry import BadChunk
from dsoftmax.objective.objective import Objective
from dsoftmax.solvers.base import Request, RowSelection, Solver, State, Status
from dsoftmax.solvers.minibatch import MiniBatch, MiniBatchState
from dsoftmax.storage.records import storable
from dsoftmax.training.evaluator import Evaluator
from dsoftmax.training.run_state import BestModel, FittedModel
from dsoftmax.typing import Array


def fitted_model(
    passes: Evaluator,
    objective: Objective,
    solver: Solver[Any],
    state: State,
    best: BestModel | None,
) -> FittedModel:
    """Return the model that validation rows call the best, or else the one of the solver.

    The mean over the batches of an epoch belongs to no one point: after mini-batches the model is
    evaluated once more. Should it be worse than the intercepts alone, those are returned.
    """
    worst, status = float(objective.at_intercept_only.value[0]), state.status
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
    return FittedModel(*objective.coefficients(point), loss, gap, status, best_pass)


def _candidates(
    objective: Objective, state: State, best: BestModel | None
) -> Iterator[tuple[Array, float, int | None]]:
    if best is not None:
        point = objective.coordinates.from_coefficients(*best.coefficients)
        yield point, best.value, best.passes
    yield state.point, state.value, None


def _objective_at(
    point: Array, value: float, passes: Evaluator, objective: Objective, status: Status
) -> tuple[float, bool, Status]:
    """Return the objective at a point, whether it was read for that, and the status after it.

    What was known of it stands in where the budget has no room, or the user interrupts.
    """
    request = Request(point[None], RowSelection.ALL)
    known = np.isfinite(value) and not passes.only_batches
    if known or status is Status.INTERRUPTED or not passes.affordable(request):
        return value, False, status
    try:
        found = objective.value_and_norm(point, passes.evaluate(objective, request))[0]
        passes.tell(passes.close(objective, point))
    except KeyboardInterrupt:
        return value, False, Status.INTERRUPTED
    return found, True, status


@dataclass(frozen=True)
class FitResult:
    """A fitted model, and how it came about.

    Attributes
    ----------
    classes : (K,)
    final : the coefficients, and what is known of them
    shift : (n_features,), what the kernel subtracted from the rows, or None
    passes, steps : what it took
    seed : what its random numbers came from
    quarantined : chunks that could not be read, and were left out
    numerics : the kinds of arithmetic that computed it, each with the first worker that had it
    labels : digest of the classes, and of the rows and weight of each
    """

    classes: Array
    final: FittedModel
    shift: Array | None
    passes: int
    steps: int
    seed: int
    quarantined: tuple[BadChunk, ...]
    numerics: dict[str, str]
    labels: str

    @property
    def advice(self) -> str:
        """What to do about a fit that has not converged."""
        final, gap = self.final, self.final.gap
        above = "" if gap is None else f", by estimate {gap:.1g} above the minimum"
        return f"after {self.passes} passes, at loss {final.loss:.6g}{above}: {final.status.value}"

    @property
    def left_out(self) -> str:
        """What was left out of it."""
        rows = sum(bad_chunk.stop - bad_chunk.start for bad_chunk in self.quarantined)
        return (
            f"{len(self.quarantined)} chunks of X, {rows} rows, cannot be read and were left out "
            f"(quarantined_ lists them); the first: {self.quarantined[0].reason}"
        )


@storable
@dataclass(frozen=True)
class PartialFitState:
    """What `partial_fit` goes on from: the solver of the first part, and where it stands."""

    objective: Objective
    solver: MiniBatch
    state: MiniBatchState
