"""What happens during a fit, as data: callbacks and diagnostics get nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dsoftmax.typing import Additive


@dataclass(frozen=True)
class TimeSplit(Additive):
    """Where the seconds of the workers went, added up over their threads.

    Attributes
    ----------
    read : waiting for storage (for Dask arrays and memory maps: getting the rows in any way)
    decode : decoding chunks, and shuffling their rows
    kernel : computing losses and gradients
    waiting : without a task
    """

    read: float = 0.0
    decode: float = 0.0
    kernel: float = 0.0
    waiting: float = 0.0

    @property
    def total(self) -> float:
        """Seconds in all."""
        return self.read + self.decode + self.kernel + self.waiting


@dataclass(frozen=True)
class ValidationScores:
    """Scores on the validation rows: see `dsoftmax.metrics.scores.EvaluationResult`.

    Attributes
    ----------
    loss : mean of -log p(label), without penalty
    accuracy, balanced_accuracy, f1_macro, brier_score, ece : NaN where not known
    """

    loss: float
    accuracy: float
    balanced_accuracy: float = np.nan
    f1_macro: float = np.nan
    brier_score: float = np.nan
    ece: float = np.nan


@dataclass(frozen=True)
class FitStarted:
    """Before the first row of X is read.

    Attributes
    ----------
    n_samples, n_features, n_classes : size of the problem
    n_chunks, pass_bytes : what a pass reads
    solver : its name
    max_iter : the budget in passes
    workers : how many tasks run at once
    dashboard : address of the Dask dashboard, "" where it is off, None in-process
    n_validation : about how many validation rows there are
    n_models : how many models a search fits; 0 for a single fit
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
    n_validation: int = 0
    n_models: int = 0


@dataclass(frozen=True)
class RowsDone:
    """A task of a pass has ended.

    Attributes
    ----------
    rows, total : rows done so far, and all rows of the pass
    bytes, time, retries : cost so far, as in PassEnded
    seconds : since the pass began
    """

    rows: int
    total: int
    bytes: int = 0
    seconds: float = 0.0
    time: TimeSplit = TimeSplit()
    retries: int = 0


@dataclass(frozen=True)
class StepEnded:
    """An update was made, or a trial point evaluated.

    Attributes
    ----------
    passes : passes over X so far, with fractions
    step : number of evaluations so far
    loss : penalised objective there (mini-batch: of the batch, scaled to all rows)
    gradient_norm : largest absolute entry of the solver's gradient
    accuracy : share of the sample weight that is predicted right
    seconds : since the fit started
    rows, bytes : rows that were reduced and bytes that were decoded for it
    time : TimeSplit
    retries : reads that were tried again for it
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
    retries: int


@dataclass(frozen=True)
class PassEnded(StepEnded):
    """All rows were read once: a full evaluation, or an epoch of steps.

    `loss`, `gradient_norm` and `accuracy` of an epoch are means over its steps; `rows`, `bytes`
    and `time` are those of the pass.

    Attributes
    ----------
    pass_seconds : from its first task to its last
    validation : scores of the model that was evaluated, or that the epoch ended with (for rows
        held out of mini-batches: means over the models of its steps); None without validation rows
    gap : estimate of how far `loss` is above its minimum, None where the solver has none
    """

    pass_seconds: float
    validation: ValidationScores | None = None
    gap: float | None = None


@dataclass(frozen=True)
class CandidatesJudged:
    """Scores of the candidates of a search after a pass; all fields are (n_candidates,) but best.

    Attributes
    ----------
    alphas, l1_ratios : their penalties
    losses : means over the folds of the losses on held-out rows; NaN where not known
    errors : standard errors of these means; zero without folds
    accuracies : means over the folds of the accuracies on held-out rows
    running : how many models of each candidate are still being fitted
    ruled_out : whether a candidate was eliminated because it cannot win any more
    best : index of the lowest loss so far; while the winner is refitted, its index
    """

    alphas: tuple[float, ...]
    l1_ratios: tuple[float, ...]
    losses: tuple[float, ...]
    errors: tuple[float, ...]
    accuracies: tuple[float, ...]
    running: tuple[int, ...]
    ruled_out: tuple[bool, ...]
    best: int


@dataclass(frozen=True)
class FitResumed:
    """A fit is resumed from its checkpoint.

    Attributes
    ----------
    place : path or URL of the checkpoint
    passes, steps, seconds : what the fit took so far
    events : every PassEnded so far, and those StepEnded that the checkpoint holds
    finished : whether there is nothing left to do
    """

    place: str
    passes: int
    steps: int
    seconds: float
    events: tuple[StepEnded, ...]
    finished: bool


@dataclass(frozen=True)
class CheckpointWritten:
    """A checkpoint of so many bytes was written to `place` in so many seconds."""

    place: str
    bytes: int
    seconds: float


@dataclass(frozen=True)
class ChunkQuarantined:
    """A chunk of X, rows start to stop, cannot be read and is left out from here on."""

    start: int
    stop: int
    reason: str


@dataclass(frozen=True)
class FitEnded:
    """The fit is over.

    Attributes
    ----------
    reason : why it ended, in words
    converged : whether the solver reached its tolerance
    loss : penalised objective at the returned coefficients
    passes, steps, seconds : what the fit took
    retries : reads that were tried again
    time : TimeSplit of the whole fit
    mini_batch : whether the rows were read in mini-batches
    gap : estimate of how far `loss` is above its minimum, None where the solver has none
    best_pass : the pass whose model is returned, if validation rows chose it
    """

    reason: str
    converged: bool
    loss: float
    passes: int
    steps: int
    seconds: float
    retries: int
    time: TimeSplit = TimeSplit()
    mini_batch: bool = False
    gap: float | None = None
    best_pass: int | None = None


Event = (
    FitStarted
    | FitResumed
    | RowsDone
    | StepEnded
    | CandidatesJudged
    | CheckpointWritten
    | ChunkQuarantined
    | FitEnded
)


class Callback(Protocol):
    """An object that is called with every event of a fit."""

    def on_event(self, event: Event) -> None:
        """Handle an event; an exception raised here ends the fit."""
        ...
