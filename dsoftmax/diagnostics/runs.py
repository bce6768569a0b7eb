"""The runs of a scheduler, as the page and Prometheus show them.

The scheduler gets the events of a fit as messages (`dsoftmax.diagnostics.as_message`). A run
remembers every pass and a selection of the steps, so that a page that is opened late shows all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dsoftmax.diagnostics.history import Message
from dsoftmax.diagnostics.messages import fault_in, is_text
from dsoftmax.events import TimeSplit
from dsoftmax.training.event_log import DecimatedLog
from dsoftmax.typing import Additive

PLUGIN = TOPIC = "dsoftmax"  # name of the scheduler's plugin and page, and of Dask's event topic

_MAX_RUNS = 16
_MAX_SAMPLES = 1024
_SAMPLE_SECONDS = 3.0  # between two samples within a pass
_LAST_SAMPLE_SECONDS = 0.5  # at least, of the last sample in a pass of mini-batches

RUNNING, ENDED, FAILED, LOST = "running", "ended", "failed", "lost"


@dataclass(frozen=True)
class Totals(Additive):
    """Sums over a run so far."""

    rows: int = 0
    bytes: int = 0
    retries: int = 0
    time: TimeSplit = field(default_factory=TimeSplit)

    def since(self, earlier: Totals) -> Totals:
        """Return the difference to earlier totals."""
        return Totals(
            self.rows - earlier.rows,
            self.bytes - earlier.bytes,
            self.retries - earlier.retries,
            TimeSplit(
                *(max(0.0, t - vars(earlier.time)[name]) for name, t in vars(self.time).items())
            ),
        )


_NOTHING = Totals()


class Sample(NamedTuple):
    """The speed of a run since the sample before.

    Attributes
    ----------
    stop : where the sample ends, in passes
    rows, bytes : per second
    time : of the workers
    """

    stop: float
    rows: float
    bytes: float
    time: TimeSplit


@dataclass
class Run:
    """One fit.

    Attributes
    ----------
    key : names the fit, as the keys of its tasks do
    client : id of the Dask client that runs it
    started_at, heard_at, checkpoint_at : first and last message, last checkpoint, in Unix time
    facts : of the problem, as in `FitStarted`
    records : messages of steps and passes
    last : the last of them
    validation : the last pass that has scores on validation rows
    candidates : the last message of the candidates of a search, as in `CandidatesJudged`
    mini_batch : whether rows are read in mini-batches
    samples : speeds so far
    state, reason, verdict : whether it runs, why it ended, and what limited its speed
    passes, seconds : so far, with the pass under way
    skipped : chunks that are left out
    version : number of messages and changes of state, for pages to see whether to redraw
    """

    key: str
    client: str
    started_at: float
    heard_at: float = 0.0
    checkpoint_at: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    records: DecimatedLog[Message] = field(default_factory=DecimatedLog)
    last: Message | None = None
    validation: Message | None = None
    candidates: Message | None = None
    mini_batch: bool = False
    samples: DecimatedLog[Sample] = field(default_factory=lambda: DecimatedLog(_MAX_SAMPLES))
    state: str = RUNNING
    reason: str = ""
    verdict: str = ""
    passes: float = 0.0
    seconds: float = 0.0
    skipped: int = 0
    version: int = 0
    _ended: Totals = _NOTHING  # of the passes that have ended
    _under_way: Totals = _NOTHING  # of the pass under way
    _sampled: tuple[float, float, Totals] = (0.0, 0.0, _NOTHING)  # at passes, at clock
    _pass_start: tuple[float, float, float] = (0.0, 0.0, 0.0)  # at passes, at seconds, at clock
    # Seconds that speeds are measured by. `seconds` also has what lies between full passes, such as
    # checkpoints.
    _clock: float = 0.0

    def receive(self, message: Message, now: float) -> None:
        """Handle a message; one of an unknown kind is ignored."""
        self.version += 1
        self.heard_at = now
        handler: Callable[[Message], None] | None = getattr(self, f"_on_{message['event']}", None)
        if handler is not None:
            handler(message)

    @property
    def totals(self) -> Totals:
        """Sums so far, with the pass under way."""
        return self._ended + self._under_way

    @property
    def seconds_left(self) -> float | None:
        """Time until its budget of passes is spent; None where not known."""
        if self.state != RUNNING or not self.passes:
            return None
        left = float(self.facts.get("max_iter", 0)) - self.passes
        return max(0.0, left) * self.seconds / self.passes

    def _on_started(self, message: Message) -> None:
        self.facts = message

    def _on_resumed(self, message: Message) -> None:
        # This scheduler may never have seen the steps and passes before the checkpoint.
        for record in message["records"]:
            getattr(self, f"_on_{record['event']}")(record)
        self.passes, self.seconds = float(message["passes"]), message["seconds"]
        self._start_pass()
        self._sampled = (self.passes, self._clock, self.totals)

    def _on_rows(self, message: Message) -> None:
        passes, seconds, clock = self._pass_start
        self._under_way = _totals(message)
        self.passes = passes + message["rows"] / max(message["total"], 1)
        self.seconds, self._clock = seconds + message["seconds"], clock + message["seconds"]
        self._sample(_SAMPLE_SECONDS)

    def _on_step(self, message: Message) -> None:
        self.records.add(message, message["step"])
        self.last, self.mini_batch = message, True
        self._under_way = self._under_way + _totals(message)
        self._clock += max(0.0, message["seconds"] - self.seconds)
        self.passes, self.seconds = message["pass"], message["seconds"]
        self._sample(_SAMPLE_SECONDS)

    def _on_pass(self, message: Message) -> None:
        self.records.add(message)
        self.last = message
        if {"validation_loss", "validation_accuracy"} <= message.keys():
            self.validation = message
        self.passes, self.seconds = message["pass"], message["seconds"]
        ended = self._ended + _totals(message)
        if self.mini_batch:
            self._sample(_LAST_SAMPLE_SECONDS)
            passes, clock, totals = self._sampled
            # What the pass cost beyond its steps (the scan of labels, say) came before them, and
            # does not belong to their speed.
            self._sampled = passes, clock, totals + ended.since(self.totals)
            self._ended, self._under_way = ended, _NOTHING
        else:
            self._clock = self._pass_start[2] + message["pass_seconds"]
            self._ended, self._under_way = ended, _NOTHING
            self._sample(0.0)
        self._start_pass()

    def _on_candidates(self, message: Message) -> None:
        self.candidates = message

    def _on_checkpoint(self, message: Message) -> None:
        self.checkpoint_at = self.heard_at

    def _on_quarantined(self, message: Message) -> None:
        self.skipped += 1

    def _on_ended(self, message: Message) -> None:
        self.state, self.reason, self.verdict = ENDED, message["reason"], message["verdict"]

    def _on_failed(self, message: Message) -> None:
        self.state, self.reason = FAILED, message["reason"]

    def _start_pass(self) -> None:
        self._pass_start = (float(int(self.passes)), self.seconds, self._clock)

    def _sample(self, min_seconds: float) -> None:
        """Add a sample of the speed, if the last one is long enough ago."""
        start, since, before = self._sampled
        totals, seconds = self.totals, self._clock - since
        done = totals.since(before)
        if seconds < min_seconds:
            return
        self._sampled = (self.passes, self._clock, totals)
        if seconds > 0 and done.rows > 0 and self.passes > start:  # a repeated pass adds none
            sample = Sample(self.passes, done.rows / seconds, done.bytes / seconds, done.time)
            self.samples.add(sample, self.samples.count + 1)


def _totals(message: Message) -> Totals:
    seconds = {name: message[f"{name}_seconds"] for name in vars(TimeSplit())}
    return Totals(message["rows"], message["bytes"], message["retries"], TimeSplit(**seconds))


class Runs:
    """The latest runs of a scheduler, in the order in which they began."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs.values())

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, key: str) -> Run | None:
        """Return a run by its key, or None."""
        return self._runs.get(key)

    @property
    def newest(self) -> Run | None:
        """The run that began last."""
        return next(reversed(self._runs.values()), None)

    def receive(self, key: str, client: str, messages: Sequence[Message], now: float) -> None:
        """Handle the messages of a run, which may be a new one; ignore what is malformed.

        Raises
        ------
        ValueError
            If a message is malformed, after the others have been handled.
        """
        if not (is_text(key) and is_text(client)):
            raise ValueError("a key or a client that is no text")
        faults = {number: fault_in(message) for number, message in enumerate(messages)}
        wellformed = [message for number, message in enumerate(messages) if not faults[number]]
        run = self._runs.get(key)
        is_new = run is None and (wellformed or not faults)
        if is_new:
            run = self._runs[key] = Run(key, client, started_at=now)
            self._drop_oldest()
        for message in wellformed:
            assert run is not None, "it was made for them"
            run.receive(message, now)
        if len(wellformed) < len(faults):
            raise ValueError("; ".join(filter(None, faults.values())))

    def client_left(self, client: str) -> None:
        """Mark what a client was running as lost."""
        for run in self._runs.values():
            if run.client == client and run.state == RUNNING:
                run.state, run.version = LOST, run.version + 1

    def _drop_oldest(self) -> None:
        """Drop the oldest runs if there are too many, first of all those that have ended."""
        oldest = sorted(self._runs.values(), key=lambda run: run.state == RUNNING)
        for run in oldest[: max(0, len(self._runs) - _MAX_RUNS)]:
            del self._runs[run.key]
