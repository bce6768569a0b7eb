"""Training on a part of the rows, for `partial_fit`: one epoch, from where the last one ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dsoftmax.data.source import Source
from dsoftmax.errors import DataError
from dsoftmax.events import Callback
from dsoftmax.objective.objective import Objective
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.reduce import UnreadableError
from dsoftmax.solvers import SOLVERS
from dsoftmax.solvers.minibatch import MiniBatch, MiniBatchState
from dsoftmax.storage.records import storable
from dsoftmax.training.params import FitParams
from dsoftmax.training.result import FitResult
from dsoftmax.training.start import first_state
from dsoftmax.training.trainer import Trainer

_LEAST_HORIZON = 1 << 16  # rows that are taken for an epoch, at least


@storable
@dataclass(frozen=True)
class PartialFitState:
    """What the next call of `partial_fit` goes on from.

    Attributes
    ----------
    objective : Objective
    solver : that of the first part
    solver_state : where it stands
    """

    objective: Objective
    solver: MiniBatch
    solver_state: MiniBatchState


def train_part(
    source: Source,
    params: FitParams,
    executor: Executor,
    callbacks: Sequence[Callback],
    before: PartialFitState | None,
) -> tuple[FitResult, PartialFitState]:
    """Return the model after one epoch over a part of the rows, and what the next part needs.

    Parameters and errors are those of `train`; a part may hold a single class.
    """
    return _PartialFitTrainer(source, params, executor, callbacks).fit_part(before)


class _PartialFitTrainer(Trainer):
    """An epoch under way."""

    _least_classes = 1

    def fit_part(self, before: PartialFitState | None) -> tuple[FitResult, PartialFitState]:
        """Run one epoch from where the last part ended."""
        if before is not None:  # it goes on from there, not from the model that was returned
            self._params = replace(self._params, start=None)
        self._resume()
        self._scan_labels(None)
        while True:
            try:
                return self._attempt_part(before)
            except UnreadableError as error:
                self._start_over_without(error)

    def _attempt_part(self, before: PartialFitState | None) -> tuple[FitResult, PartialFitState]:
        if before is None:
            before = self._first_state()
        expected = len(before.objective.coordinates.scale)
        if (got := self._source.n_features) != expected:
            raise DataError(
                f"{self._source.X.name} has {got} features, but SoftmaxRegression is expecting "
                f"{expected} features as input, as in the earlier parts"
            )
        weight = float(self._data.class_weight.sum())
        objective = before.objective.rescaled(weight, self._evaluator.n_rows)
        checkpointer, solver = self._checkpointer, before.solver
        start = solver.resume(before.solver_state)
        checkpointer.commit(replace(checkpointer.run_state, solver_state=start))
        state = self._loop(solver, objective)
        assert isinstance(state.solver_state, MiniBatchState)
        after = PartialFitState(objective, solver, state.solver_state)
        return self._finish(objective, solver, state), after

    def _first_state(self) -> PartialFitState:
        params = self._params
        kind = SOLVERS[params.solver]
        # A class that the first part lacks may still come: none is taken for impossible.
        objective = self._objective(kind, self._data.class_weight + 1.0)
        horizon = max(self._source.n_samples, _LEAST_HORIZON)
        solver = kind.from_params(params.for_solver(objective, horizon, None))
        assert isinstance(solver, MiniBatch)
        solver_state = first_state(solver, objective, self._start, statistics=None)
        assert isinstance(solver_state, MiniBatchState)
        return PartialFitState(objective, solver, solver_state)
