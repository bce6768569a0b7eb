"""The runs that a scheduler has heard of: what the page and Prometheus show.

A run is told of by messages (`dsoftmax.diagnostics.messages`), and remembers every pass and a
choice of the steps, so that whoever looks later sees all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dsoftmax.diagnostics.messages import Message, time_of
from dsoftmax.events import DecimatedLog, TimeSplit
from dsoftmax.typing import Additive

_MOST_RUNS = 16
_MOST_SAMPLES = 1024
_SAMPLE_SECONDS = 3.0  # of one, within a pass
_SHORT_SECONDS = 0.5  # of the last one in a pass of mini-batches

RUNNING, ENDED, FAILED, LOST = "running", "ended", "failed", "lost"


@dataclass(frozen=True)
class Totals(Additive):
    """What a run has taken so far."""

    rows: int = 0
    bytes: int = 0
    retries: int = 0
    time: TimeSplit = field(default_factory=TimeSplit)

    def minus(self, other: Totals) -> Totals:
        """Return what there is more than in another one."""
        return Totals(
            self.rows - other.rows,
            self.bytes - other.bytes,
            self.retries - other.retries,
            TimeSplit(
                *(
                    max(0.0, mine - its)
                    for mine, its in zip(
                        vars(self.time).values(), vars(other.time).values(), strict=True
                    )
                )
            ),
        )


_NOTHING = Totals()


class Sample(NamedTuple):
    """How fast a run was from the sample before it to a place in its course, in passes.

    `time` is that of the workers in between, `rows` and `bytes` are a second.
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
    key, client : which it is, and whose
    started_at, heard_at, checkpoint_at : by the scheduler's clock
    facts : of the problem, as in `FitStarted`
    records : as in `history_`
    last : the last of them
    validation : the last of a pass that validation rows have judged
    candidates : of a search, how they stood last, as in `CandidatesJudged`
    mini_batch : whether its rows are read in steps
    samples : its speed along its course
    state, reason, verdict : how it goes, or how it ended
    passes, seconds : how far it is, with the pass under way
    skipped : chunks that are left out
    version : counts the messages, so that who looks again knows whether there is news
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
    samples: DecimatedLog[Sample] = field(default_factory=lambda: DecimatedLog(_MOST_SAMPLES))
    state: str = RUNNING
    reason: str = ""
    verdict: str = ""
    passes: float = 0.0
    seconds: float = 0.0
    skipped: int = 0
    version: int = 0
    _whole: Totals = _NOTHING  # of the passes that have ended
    _part: Totals = _NOTHING  # of the one under way
    _sampled: tuple[float, float, Totals] = (0.0, 0.0, _NOTHING)  # in passes, by the clock
    _pass_began: tuple[float, float, float] = (0.0, 0.0, 0.0)  # in passes, seconds, by the clock
    _clock: float = 0.0  # seconds of reading and computing

    def take(self, message: Message, now: float) -> None:
        """Take note of a message; of an unknown kind, nothing."""
        self.version += 1
        self.heard_at = now
        note: Callable[[Message], None] | None = getattr(self, f"_on_{message['event']}", None)
        if note is not None:
            note(message)

    @property
    def totals(self) -> Totals:
        """What it has taken so far."""
        return self._whole + self._part

    @property
    def seconds_left(self) -> float | None:
        """At most how long it still takes: until its budget is spent."""
        if self.state != RUNNING or not self.passes:
            return None
        left = float(self.facts.get("max_iter", 0)) - self.passes
        return max(0.0, left) * self.seconds / self.passes

    def _on_started(self, message: Message) -> None:
        self.facts = message

    def _on_resumed(self, message: Message) -> None:
        for record in message["records"]:
            getattr(self, f"_on_{record['event']}")(record)
        self.passes, self.seconds = float(message["passes"]), message["seconds"]
        self._begin_pass()
        self._sampled = (self.passes, self._clock, self.totals)

    def _on_rows(self, message: Message) -> None:
        passes, seconds, clock = self._pass_began
        self._part = _totals(message)
        self.passes = passes + message["rows"] / max(message["total"], 1)
        self.seconds, self._clock = seconds + message["seconds"], clock + message["seconds"]
        self._sample(_SAMPLE_SECONDS)

    def _on_step(self, message: Message) -> None:
        self.records.add(message, message["step"])
        self.last, self.mini_batch = message, True
        self._part = self._part + _totals(message)
        self._clock += max(0.0, message["seconds"] - self.seconds)
        self.passes, self.seconds = message["pass"], message["seconds"]
        self._sample(_SAMPLE_SECONDS)

    def _on_pass(self, message: Message) -> None:
        self.records.add(message)
        self.last = message
        if "validation_loss" in message:
            self.validation = message
        self.passes, self.seconds = message["pass"], message["seconds"]
        whole = self._whole + _totals(message)
        if self.mini_batch:
            self._sample(_SHORT_SECONDS)
            passes, clock, sampled = self._sampled
            # What the pass took beside its steps came before them, and is no part of their speed.
            self._sampled = passes, clock, sampled + whole.minus(self.totals)
            self._whole, self._part = whole, _NOTHING
        else:
            self._clock = self._pass_began[2] + message["pass_seconds"]
            self._whole, self._part = whole, _NOTHING
            self._sample(0.0)
        self._begin_pass()

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

    def _begin_pass(self) -> None:
        self._pass_began = (float(int(self.passes)), self.seconds, self._clock)

    def _sample(self, least_seconds: float) -> None:
        """Note how fast it was since the last sample, if that is long enough ago."""
        start, since, before = self._sampled
        totals, seconds = self.totals, self._clock - since
        done = totals.minus(before)
        if seconds < least_seconds:
            return
        self._sampled = (self.passes, self._clock, totals)
        if seconds > 0 and done.rows > 0 and self.passes > start:  # else a pass was made again
            sample = Sample(self.passes, done.rows / seconds, done.bytes / seconds, done.time)
            self.samples.add(sample, self.samples.count + 1)


def _totals(message: Message) -> Totals:
    return Totals(message["rows"], message["bytes"], message["retries"], time_of(message))


class Runs:
    """The last runs of a scheduler, by key, in the order in which they began."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs.values())

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, key: str) -> Run | None:
        """Return a run, if it is still known."""
        return self._runs.get(key)

    @property
    def newest(self) -> Run | None:
        """The run that began last."""
        return next(reversed(self._runs.values()), None)

    def take(self, key: str, client: str, messages: Sequence[Message], now: float) -> None:
        """Take note of the messages of a run."""
        messages, run = list(messages), self._runs.get(str(key))
        if run is None:
            run = self._runs[str(key)] = Run(str(key), str(client), started_at=now)
            self._forget()
        for message in messages:
            run.take(message, now)

    def lose(self, client: str) -> None:
        """Take note that a client has gone."""
        for run in self._runs.values():
            if run.client == client and run.state == RUNNING:
                run.state, run.version = LOST, run.version + 1

    def _forget(self) -> None:
        """Forget the oldest runs beyond the most that are kept; those that run go last."""
        oldest = sorted(self._runs.values(), key=lambda run: run.state == RUNNING)
        for run in oldest[: max(0, len(self._runs) - _MOST_RUNS)]:
            del self._runs[run.key]
