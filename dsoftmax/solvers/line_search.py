"""A line search as a state machine: each `advance` consumes exactly one evaluation.

It looks for a step that satisfies the strong Wolfe conditions (Nocedal and Wright,
Numerical Optimization, 2006, algorithms 3.5 and 3.6), by bracketing and then shrinking
the bracket with safeguarded cubic steps. Where rounding hides the decrease of the value,
the approximate Wolfe condition decides by slopes (Hager and Zhang, SIAM J. Optim. 16, 2005).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from dsoftmax.storage.records import storable

DECREASE = 1e-4
CURVATURE = 0.9
_GROWTH = 4.0
_MAX_EVALUATIONS = 30


@storable
class LinePoint(NamedTuple):
    """The function along the line: at `step` it has this value and slope."""

    step: float
    value: float
    slope: float


@storable
class LineSearchStatus(Enum):
    """How a search stands."""

    RUNNING = "running"
    FOUND = "found a step"
    FAILED = "no step lowers the function beyond rounding error"


@storable
@dataclass(frozen=True)
class LineSearch:
    """The state of a search.

    Attributes
    ----------
    origin : the function at step 0, with a negative slope
    step : the next step to evaluate; the accepted one when the search has found it
    noise : how far a value can be off by rounding
    low, high : the ends of the bracket; `high` is None while it is not closed
    curvature : how much of the first slope may be left (small: a more exact search)
    """

    origin: LinePoint
    step: float
    noise: float
    low: LinePoint
    high: LinePoint | None = None
    evaluations: int = 0
    curvature: float = CURVATURE
    status: LineSearchStatus = LineSearchStatus.RUNNING


def begin(value: float, slope: float, step: float, noise: float = 0.0) -> LineSearch:
    """Return a search from a point with this value and slope, that tries `step` first."""
    origin = LinePoint(0.0, value, slope)
    status = LineSearchStatus.RUNNING if slope < 0 else LineSearchStatus.FAILED
    return LineSearch(origin, step, noise, low=origin, status=status)


def advance(search: LineSearch, value: float, slope: float) -> LineSearch:
    """Return the search after its step was evaluated; a value that is not finite is a wall."""
    tried = LinePoint(search.step, value, slope)
    search = replace(search, evaluations=search.evaluations + 1)
    if _acceptable(search, tried):
        return replace(search, status=LineSearchStatus.FOUND)
    if search.evaluations >= _MAX_EVALUATIONS:
        return replace(search, status=LineSearchStatus.FAILED)
    return _extend(search, tried) if search.high is None else _shrink(search, tried)


def _acceptable(search: LineSearch, tried: LinePoint) -> bool:
    origin = search.origin
    if not (math.isfinite(tried.value) and math.isfinite(tried.slope)):
        return False
    decreased = tried.value <= origin.value + DECREASE * tried.step * origin.slope
    if decreased and abs(tried.slope) <= -search.curvature * origin.slope:
        return True
    flat = search.curvature * origin.slope <= tried.slope <= (2 * DECREASE - 1) * origin.slope
    return flat and abs(tried.value - origin.value) <= search.noise


def _too_high(search: LineSearch, tried: LinePoint) -> bool:
    """Whether the value alone, rounding allowed for, puts the minimum before the tried step."""
    if not (math.isfinite(tried.value) and math.isfinite(tried.slope)):
        return True
    value = tried.value - search.noise
    bound = search.origin.value + DECREASE * tried.step * search.origin.slope
    return value > bound or value >= search.low.value


def _extend(search: LineSearch, tried: LinePoint) -> LineSearch:
    """While the bracket is open: close it, or go further."""
    if _too_high(search, tried):
        return _next_inside(replace(search, high=tried))
    if tried.slope >= 0:
        return _next_inside(replace(search, low=tried, high=search.low))
    further = _extrapolate(search.low, tried)
    return replace(search, low=tried, step=further)


def _shrink(search: LineSearch, tried: LinePoint) -> LineSearch:
    """Replace an end of the closed bracket by the tried step."""
    assert search.high is not None
    if _too_high(search, tried):
        return _next_inside(replace(search, high=tried))
    if tried.slope * (search.high.step - search.low.step) >= 0:
        return _next_inside(replace(search, low=tried, high=search.low))
    return _next_inside(replace(search, low=tried))


def _next_inside(search: LineSearch) -> LineSearch:
    low, high = search.low, search.high
    assert high is not None
    width = high.step - low.step
    if abs(width) <= 1e-14 * max(abs(low.step), abs(high.step)):
        return replace(search, status=LineSearchStatus.FAILED)
    step = _cubic_minimum(low, high)
    margin = 0.1 * abs(width)
    left, right = sorted((low.step, high.step))
    # Every third step halves the bracket, so that a one-sided sequence cannot creep.
    if search.evaluations % 3 == 0 or not math.isfinite(step):
        step = 0.5 * (left + right)
    return replace(search, step=min(max(step, left + margin), right - margin))


def _extrapolate(low: LinePoint, tried: LinePoint) -> float:
    """Go to where the slope would vanish, at least a little and at most four times as far."""
    change = tried.slope - low.slope
    root = tried.step - tried.slope * (tried.step - low.step) / change if change > 0 else math.inf
    return min(max(root, 1.1 * tried.step), _GROWTH * tried.step)


def _cubic_minimum(a: LinePoint, b: LinePoint) -> float:
    """Return the minimiser of the cubic through two values and slopes, or NaN."""
    if not (math.isfinite(b.value) and math.isfinite(b.slope)):
        return math.nan
    d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.step - b.step)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return math.nan
    d2 = math.copysign(math.sqrt(square), b.step - a.step)
    denominator = b.slope - a.slope + 2 * d2
    if denominator == 0:
        return math.nan
    return b.step - (b.step - a.step) * (b.slope + d2 - d1) / denominator
