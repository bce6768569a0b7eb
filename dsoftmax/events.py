"""What happens during a fit, as data: the only thing that diagnostics are fed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class TimeSplit:
    """Where the seconds of the workers went, added up over their threads."""

    read: float
    kernel: float
    waiting: float


@dataclass(frozen=True)
class FitStarted:
    """Before the first row of X is read.

    Attributes
    ----------
    n_samples, n_features, n_classes : size of the problem
    n_chunks, pass_bytes : what a pass reads
    solver, max_iter : what will be done, and the budget in passes
    workers : how many tasks run at once
    dashboard : address of the Dask dashboard, or None in-process
    """

    n_samples: int
    n_features: int
    n_classes: int
    n_chunks: int
    pass_bytes: int
    solver: str
    max_iter: int
    workers: int
    dashboard: str | None


@dataclass(frozen=True)
class RowsDone:
    """A task of a pass has ended: `rows` of the `total` that the pass reads are done."""

    rows: int
    total: int


@dataclass(frozen=True)
class StepEnded:
    """An update was made, or a trial point evaluated.

    Attributes
    ----------
    passes : passes over X so far, with fractions
    step : number of evaluations so far
    loss : penalised objective there (mini-batch: of the batch, scaled to all rows)
    gradient_norm : largest absolute entry of the solver's gradient
    accuracy : share of the weight that is predicted right
    seconds : since the fit started
    rows, bytes : reduced and decoded for it
    time : TimeSplit
    """

    passes: float
    step: int
    loss: float
    gradient_norm: float
    accuracy: float
    seconds: float
    rows: int
    bytes: int
    time: TimeSplit


@dataclass(frozen=True)
class PassEnded(StepEnded):
    """All rows were read once: a full evaluation, or an epoch of steps.

    `loss`, `gradient_norm` and `accuracy` of an epoch are means over its steps; `rows`, `bytes`
    and `time` are those of the pass.

    Attributes
    ----------
    pass_seconds : from its first task to its last
    """

    pass_seconds: float


@dataclass(frozen=True)
class FitEnded:
    """The fit is over.

    Attributes
    ----------
    reason : why, in words
    converged : whether the solver reached what it was asked for
    loss : penalised objective at the returned coefficients
    passes, steps, seconds : what it took
    """

    reason: str
    converged: bool
    loss: float
    passes: int
    steps: int
    seconds: float


Event = FitStarted | RowsDone | StepEnded | FitEnded


class Callback(Protocol):
    """Something that watches a fit."""

    def on_event(self, event: Event) -> None:
        """Take note of an event; what it raises ends the fit."""
        ...
