"""How results are taken and told: runs in turn, ratios of one round, their median and spread."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

ROUNDS = 5
Seconds = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Result:
    """A ratio and what it has to be.

    Attributes
    ----------
    name : what was measured, and against what
    ratio, low, high : median, least and largest of the rounds
    goal : what it has to reach, or None if it is only reported
    at_most : whether it has to stay below the goal instead
    note : seconds and sizes, for people
    """

    name: str
    ratio: float
    low: float
    high: float
    goal: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        good = self.ratio <= self.goal if self.at_most else self.ratio >= self.goal
        return "pass" if good else "short"

    def line(self) -> str:
        sign = "<=" if self.at_most else ">="
        goal = "" if self.goal is None else f"{sign} {self.goal:.2f}"
        spread = f"({self.low:.3f} to {self.high:.3f})"
        return (
            f"{self.name:<44}{self.ratio:>8.3f} {spread:<18}{goal:>8}  {self.verdict:<6}{self.note}"
        ).rstrip()


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def in_turn(calls: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> Seconds:
    """Return the seconds of each call in each round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            taken = timed(call)
            if number > 0:
                seconds[name].append(taken)
    return seconds


def compared(
    name: str,
    over: Sequence[float],
    under: Sequence[float],
    goal: float | None = None,
    *,
    at_most: bool = False,
    note: str = "",
) -> Result:
    """Return the ratio of what was measured in the same rounds."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return Result(name, statistics.median(ratios), min(ratios), max(ratios), goal, at_most, note)


def middle(seconds: Seconds) -> dict[str, float]:
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def as_json(results: Sequence[Result], facts: Mapping[str, object]) -> str:
    rows = [_finite(asdict(result)) | {"verdict": result.verdict} for result in results]
    return json.dumps({**facts, "results": rows}, indent=2, allow_nan=False)


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """Return null for what is no number, which JSON does not have."""
    unknown = {
        key for key, value in row.items() if isinstance(value, float) and not isfinite(value)
    }
    return row | dict.fromkeys(unknown)
