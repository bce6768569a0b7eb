"""Training on a part of the rows, for `partial_fit`: one epoch, from where the last one ended."""

from __future__ import annotations

from collections.abc import Sequence

from dsoftmax.data.source import Source
from dsoftmax.errors import DataError
from dsoftmax.events import Callback
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.reduce import UnreadableError
from dsoftmax.solvers import SOLVERS
from dsoftmax.solvers.minibatch import MiniBatch, MiniBatchState
from dsoftmax.training.build_solver import build_solver
from dsoftmax.training.checkpointer import Checkpointer
from dsoftmax.training.params import FitParams
from dsoftmax.training.result import FitResult, PartialFitState
from dsoftmax.training.run_state import FitState
from dsoftmax.training.trainer import Trainer

_LEAST_HORIZON = 1 << 16  # rows that are taken for an epoch, at least


def train_part(
    source: Source,
    params: FitParams,
    executor: Executor,
    callbacks: Sequence[Callback],
    carry: PartialFitState | None,
) -> tuple[FitResult, PartialFitState]:
    """Return the model after one epoch over a part of the rows, and what the next part needs.

    Parameters and errors are those of `train`; a part may hold a single class.
    """
    return _PartialFitTrainer(
        source, params, executor, Checkpointer(FitState(), callbacks)
    ).fit_part(carry)


class _PartialFitTrainer(Trainer):
    """An epoch under way."""

    def fit_part(self, carry: PartialFitState | None) -> tuple[FitResult, PartialFitState]:
        """Run one epoch from where the last part ended."""
        self._label(1)
        while True:
            try:
                return self._attempt_part(carry)
            except UnreadableError as error:
                self._make_do_without(error, 1)

    def _attempt_part(self, carry: PartialFitState | None) -> tuple[FitResult, PartialFitState]:
        if carry is None:
            carry = self._first_carry()
        expected = len(carry.objective.coordinates.scale)
        if (got := self._source.n_features) != expected:
            raise DataError(
                f"{self._source.X.name} has {got} features, but SoftmaxRegression is expecting "
                f"{expected} features as input, as in the earlier parts"
            )
        weight = float(self._found.class_weight.sum())
        objective = carry.objective.rescaled(weight, self._passes.n_rows)
        start = carry.solver.resume(carry.state)
        state = self._loop(carry.solver, objective, start)
        assert isinstance(state, MiniBatchState)
        return self._finish(objective, carry.solver, state), PartialFitState(
            objective, carry.solver, state
        )

    def _first_carry(self) -> PartialFitState:
        params = self._settings
        kind = SOLVERS[params.solver]
        # A class that the first part lacks may well come: none is taken for impossible.
        objective = self._objective(kind, self._found.class_weight + 1.0)
        horizon = max(self._source.n_samples, _LEAST_HORIZON)
        solver = build_solver(kind, params, objective, horizon, None)
        assert isinstance(solver, MiniBatch)
        state = solver.start(
            self._first_point(objective), objective.at_intercept_only, objective.intercept_only
        )
        return PartialFitState(objective, solver, state)
