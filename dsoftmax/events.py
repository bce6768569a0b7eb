"""What happens during a fit, as data: the only thing that diagnostics are fed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from dsoftmax.typing import Additive, Array


@dataclass(frozen=True)
class TimeSplit(Additive):
    """Where the seconds of the workers went, added up over their threads.

    Attributes
    ----------
    read : waiting for storage (for Dask arrays and memory maps: all it took to get the rows)
    decode : decoding chunks, and shuffling their rows
    kernel : computing losses and gradients
    waiting : for something to do
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
    """What the rows say by which a fit is judged: see `dsoftmax.metrics.scores.EvaluationResult`.

    Attributes
    ----------
    loss : mean of -log p(label), without penalty
    accuracy, balanced_accuracy, f1_macro, brier_score, ece : NaN where they are not known
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
    solver, max_iter : what will be done, and the budget in passes
    workers : how many tasks run at once
    dashboard : address of the Dask dashboard, or None in-process
    n_validation : about how many rows it is judged by
    n_models : that a search follows; 0 for a fit
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
    rows, total : done so far, of those that the pass reads
    bytes, time, retries : what they took so far, as in PassEnded
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
    accuracy : share of the weight that is predicted right
    seconds : since the fit started
    rows, bytes : reduced and decoded for it
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
    validation : of the model that was evaluated, or that the epoch ended with (rows held out of
        mini-batches: the mean over the models of its steps); None without validation rows
    gap : estimate of how far `loss` is above its minimum, None where the solver has none
    """

    pass_seconds: float
    validation: ValidationScores | None = None
    gap: float | None = None


@dataclass(frozen=True)
class CandidatesJudged:
    """How the candidates of a search stand after a pass, all (n_candidates,).

    Attributes
    ----------
    alphas, l1_ratios : their penalties
    losses : mean over the folds of the losses on rows held out; NaN where not known
    errors : standard errors of those means; zero without folds
    accuracies : mean over the folds, likewise
    running : how many of the models of each go on
    ruled_out : whether they left because they cannot win any more
    best : which has the lowest loss so far, or which was chosen, while it is fitted to all rows
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
    """A fit goes on from its checkpoint.

    Attributes
    ----------
    place : of the checkpoint
    passes, steps, seconds : what it took so far
    events : every PassEnded and the StepEnded that were kept, so far
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
    """The state of the fit is safe: its bytes at a place, and the seconds that it took."""

    place: str
    bytes: int
    seconds: float


@dataclass(frozen=True)
class ChunkQuarantined:
    """Rows start to stop, a chunk of X, cannot be read and are left out from here on."""

    start: int
    stop: int
    reason: str


@dataclass(frozen=True)
class FitEnded:
    """The fit is over.

    Attributes
    ----------
    reason : why, in words
    converged : whether the solver reached what it was asked for
    loss : penalised objective at the returned coefficients
    passes, steps, seconds : what it took
    retries : reads that were tried again
    time : TimeSplit of all that was read
    mini_batch : whether the rows were read in steps
    gap : estimate of how far `loss` is above its minimum, None where the solver has none
    best_pass : the pass whose model was kept, if validation rows have chosen it
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
    """Something that watches a fit."""

    def on_event(self, event: Event) -> None:
        """Take note of an event; what it raises ends the fit."""
        ...


def to_table(events: Sequence[StepEnded]) -> Array:
    """Return steps and passes as numbers, a row each."""
    rows = [
        (
            e.passes,
            e.step,
            e.loss,
            e.gradient_norm,
            e.accuracy,
            e.seconds,
            e.rows,
            e.bytes,
            e.time.read,
            e.time.decode,
            e.time.kernel,
            e.time.waiting,
            e.retries,
            *_of_pass(e),
        )
        for e in events
    ]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 21)


def _of_pass(event: StepEnded) -> tuple[float, ...]:
    if not isinstance(event, PassEnded):
        return (np.nan,) * 8
    validation = (np.nan,) * 6 if event.validation is None else astuple(event.validation)
    return event.pass_seconds, np.nan if event.gap is None else event.gap, *validation


def from_table(table: Array) -> tuple[StepEnded, ...]:
    """Return the steps and passes of `to_table`."""
    return tuple(_from_row([float(value) for value in row]) for row in table)


def _from_row(row: list[float]) -> StepEnded:
    passes, step, loss, norm, accuracy, seconds, rows, size, *times, retries = row[:13]
    values = (
        passes,
        int(step),
        loss,
        norm,
        accuracy,
        seconds,
        int(rows),
        int(size),
        TimeSplit(*times),
        int(retries),
    )
    pass_seconds, gap, *validation = row[13:]
    if np.isnan(pass_seconds):
        return StepEnded(*values)
    found = None if np.isnan(validation).all() else ValidationScores(*validation)
    return PassEnded(*values, pass_seconds, found, None if np.isnan(gap) else gap)


Record = TypeVar("Record")
MOST_STEPS = 4096


class DecimatedLog(Generic[Record]):
    """Records in their order, of which those of steps are thinned when they become many.

    Each time there are more than `most`, those of every other step go, and so do those to come:
    what is left are the steps whose number is a multiple of a power of two.

    Parameters
    ----------
    most : how many records of steps are kept

    Attributes
    ----------
    count : how many records there were
    """

    def __init__(self, most: int = MOST_STEPS) -> None:
        self.count = 0
        self._most, self._stride, self._steps = most, 1, 0
        self._kept: list[tuple[int, int | None, Record]] = []

    def __iter__(self) -> Iterator[Record]:
        return (record for _, _, record in self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, record: Record, step: int | None = None) -> None:
        """Add a record, and the number of its step if it is one."""
        self.count += 1
        if step is not None:
            if step % self._stride:
                return
            self._steps += 1
        self._kept.append((self.count, step, record))
        if self._steps > self._most:
            self._stride *= 2
            self._kept = [kept for kept in self._kept if not (kept[1] or 0) % self._stride]
            self._steps = sum(step is not None for _, step, _ in self._kept)

    def until(self, count: int) -> Sequence[Record]:
        """Return what is kept of the first records."""
        return [record for number, _, record in self._kept if number <= count]

    def resume(self, records: Sequence[tuple[Record, int | None]], count: int) -> None:
        """Go on from what another one has kept of its records, and how many there were."""
        for record, step in records:
            self.add(record, step)
        self.count = count
        self._kept = [(min(number, count), step, record) for number, step, record in self._kept]
        steps = [step for _, step, _ in self._kept if step is not None]
        if 2 * len(steps) >= self._most:  # else none was left out
            while not any(step % (2 * self._stride) for step in steps):
                self._stride *= 2
