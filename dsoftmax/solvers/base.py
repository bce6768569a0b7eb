"""The ask/tell contract between a solver and the trainer.

A solver is a frozen set of parameters; all that changes is its state, a frozen dataclass
of arrays and numbers. `ask` names the next evaluation, `tell` returns the state after it.
A solver never loops and never sees data, so that a run can stop between any two evaluations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Generic, TypeVar

import numpy as np

from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.penalty import ElasticNet
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array

_MOST_CURVATURE = 1000.0  # along a coordinate of a solver
_NEAR = 10.0  # times the gradient to reach


@storable
class Status(Enum):
    """Where a run stands; the value is the message for the user."""

    RUNNING = "running"
    CONVERGED = "converged: the gradient has fallen to tol times that of the intercept-only model"
    PRECISION = "converged to rounding error: no step lowers the objective any more"
    IMPRECISE = (
        "imprecise: no step lowers the objective any more, but its gradient is far from tol, which "
        "rounding error does not explain; the best model so far is kept; scale the features, open "
        "the data with dtype='float64', or use another solver"
    )
    NOT_FINITE = (
        "not finite: the loss, its gradient or a coefficient left the range of floating-point "
        "numbers; the best model so far is kept; scale the features, or open the data with "
        "dtype='float64'"
    )
    RULED_OUT = "ruled out: however far it went on, another candidate would be better"
    STATISTICAL = (
        "converged statistically: the distance to the minimum is, by estimate, a small part of "
        "what the choice of the rows leaves uncertain"
    )
    STALLED = "converged: the loss of an epoch no longer falls by more than tol"
    EARLY = (
        "early: the validation loss has not fallen by more than tol for n_iter_no_change passes; "
        "the model of the lowest is kept"
    )
    SEPARABLE = (
        "separable: the model fits every row and alpha is 0, so that ever larger coefficients "
        "lower the loss for ever; set alpha > 0"
    )
    BUDGET = "budget: max_iter passes are spent; raise max_iter (or tol) to get nearer the optimum"
    DIVERGED = (
        "diverged: the loss grew beyond its value at the start; the best model so far is kept; "
        "lower learning_rate"
    )
    STUCK = (
        "stuck: no epoch was better than the intercepts alone; change learning_rate, take a larger "
        "batch_size, or use solver='lbfgs'"
    )
    INTERRUPTED = "interrupted: the best model so far is kept"

    @property
    def converged(self) -> bool:
        """Whether the solver reached what it was asked for."""
        return self in _CONVERGED


_CONVERGED = (
    Status.CONVERGED,
    Status.PRECISION,
    Status.STATISTICAL,
    Status.STALLED,
    Status.EARLY,
    Status.RULED_OUT,
)


@storable
class RowSelection(Enum):
    """Which rows a request is evaluated on."""

    ALL = "all"
    BATCH = "the next mini-batch"
    SAME_BATCH = "the mini-batch that comes next, without using it up"
    SAMPLE = "the rows that are kept in memory"


@dataclass(frozen=True)
class Request:
    """What a solver wants to know: the smooth objective and its gradient.

    Attributes
    ----------
    points : (n_points, n_features + 1, n_columns), evaluated on the same read
    rows : the rows to evaluate on
    metric : whether to tell the metric of those that are kept in memory; for a mini-batch, of
        the rows that come first
    resample_at : (n_features + 1, n_columns), to keep other rows in memory, those that matter at
        the first point and on the way to it from this one; None to keep the same
    root : of the metric by which rows differ (see Evaluation), if it is known; for `resample_at`
    take_best : whether the best of the points counts, not the first
    use_float64 : whether to compute in float64, of the rows that are kept in memory
    """

    points: Array
    rows: RowSelection = RowSelection.ALL
    metric: bool = False
    resample_at: Array | None = None
    root: Array | None = None
    take_best: bool = False
    use_float64: bool = False


@dataclass(frozen=True)
class State:
    """What every solver's state holds.

    Attributes
    ----------
    point : (n_features + 1, n_columns), the best model so far
    value : its whole objective (mini-batch: the mean over the batches of its epoch)
    gradient_norm : largest absolute entry of the projected gradient, where it was known last
    status : whether to go on
    """

    point: Array
    value: float
    gradient_norm: float
    status: Status

    @property
    def model(self) -> Array:
        """The model that the evaluations have led to: of mini-batches, not the best so far."""
        return self.point


@dataclass(frozen=True)
class FullBatchState(State):
    """What the state of a solver of full passes holds besides.

    Attributes
    ----------
    target : the norm of the projected gradient to reach
    """

    target: float

    def at_rest(self, noise: float) -> Status:
        """Return what to say of a point from which no step lowers the objective.

        Along a coordinate, a step of the gradient over the curvature would lower it by half of the
        gradient squared over the curvature. That is about one in these coordinates, and larger
        where rows matter more than at the intercept-only model.

        Parameters
        ----------
        noise : relative rounding error of a value of the objective
        """
        if not (np.isfinite(self.value) and np.isfinite(self.gradient_norm)):
            return Status.NOT_FINITE
        hidden = self.gradient_norm**2 / (2 * _MOST_CURVATURE) <= noise * abs(self.value)
        near = self.gradient_norm <= _NEAR * self.target
        return Status.PRECISION if hidden or near else Status.IMPRECISE


@dataclass(frozen=True)
class SolverParams:
    """What a solver is built from: parameters of the estimator, and facts of the objective.

    Attributes
    ----------
    penalty : ElasticNet, in the solver's coordinates
    noise : relative rounding error of a value of the objective
    tol, momentum, clip_norm, n_iter_no_change : as for `SoftmaxRegression`
    learning_rate, schedule : likewise; None for "auto"
    horizon : rows after which the inverse schedule has halved the learning rate
    total_rows : rows that the budget lasts for, None if it has no end
    """

    penalty: ElasticNet
    noise: float
    tol: float
    momentum: float
    clip_norm: float | None
    n_iter_no_change: int
    learning_rate: float | None
    schedule: str | None
    horizon: int
    total_rows: int | None


S = TypeVar("S", bound=State)


class Solver(ABC, Generic[S]):
    """One optimiser for one model.

    Attributes
    ----------
    name : what a user passes as `solver=`
    mini_batch : whether it asks for mini-batches
    needs_sample : whether it asks for rows that are kept in memory
    penalties : the parts of the elastic net that it can minimise: "l2", "l1"
    """

    name: ClassVar[str]
    mini_batch: ClassVar[bool] = False
    needs_sample: ClassVar[bool] = False
    penalties: ClassVar[Sequence[str]] = ("l2", "l1")

    @classmethod
    @abstractmethod
    def from_params(cls, params: SolverParams) -> Solver[S]:
        """Return the solver for the parameters of a fit.

        Raises
        ------
        DataError
            If it cannot do what they ask for.
        """

    @abstractmethod
    def start(self, point: Array, at_intercept_only: Evaluation, intercept_only: Array) -> S:
        """Return the first state.

        Parameters
        ----------
        point : (n_features + 1, n_columns), where to start
        at_intercept_only : what the first read told about the intercept-only model
        intercept_only : (n_features + 1, n_columns), the intercept-only model
        """

    @abstractmethod
    def ask(self, state: S) -> Request:
        """Return what to evaluate next."""

    @abstractmethod
    def tell(self, state: S, result: Evaluation) -> S:
        """Return the state after the evaluation that `ask` asked for."""

    def moved(self, state: S, point: Array, known: Evaluation) -> S:
        """Return the state at a point whose objective is known.

        By default the state of `start`, which asks for an evaluation of the point.

        Parameters
        ----------
        state : of `start` at that point
        point : (n_features + 1, n_columns)
        known : the objective there
        """
        return state

    def gap(self, state: S) -> float | None:
        """Return an estimate of how far the objective is above its minimum, None without one."""
        return None

    def guess(self, state: S) -> tuple[Array, float, float] | None:
        """Return a point that is likely to be better than any evaluated, its objective and gap.

        For when the budget is spent; None without one.
        """
        return None
