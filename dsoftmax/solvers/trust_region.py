"""How far Newton's surrogate is trusted: its damping, and what trials tell about its curvature."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.solvers.low_rank import Secant
from dsoftmax.solvers.newton_state import NewtonState, Trial
from dsoftmax.typing import Array

POOR, _GOOD = 0.25, 0.75  # fractions of the gain that the surrogate predicted
_DAMPING, _LEAST_DAMPING = 0.01, 1e-10  # some features have a curvature of 1e-7
_MOST_SECANTS, _SECANT_BYTES = 20, 1 << 26


def after_trials(state: NewtonState, values: Array, result: Evaluation) -> NewtonState:
    """Return the state with what the trials tell, still at the old centre."""
    after = replace(state, trials=(), n_passes=state.n_passes + 1, surrogate=None)
    if state.trials[0].secant is not None:
        gain_ratio = float((values[0] - state.value) / state.trials[0].gain)
        failed = state.failed or not gain_ratio >= POOR
        damping = _damping(state.damping, gain_ratio, 2 if failed else 10)
        after = replace(after, gain_ratio=gain_ratio, damping=damping, failed=failed)
    if result.resampled:
        return replace(after, secants=())
    secants = (*state.secants, *_secants(state, values, result))
    most = min(max(_SECANT_BYTES // (16 * state.point.size), 2), _MOST_SECANTS)
    return replace(after, secants=secants[-most:])


def _secants(state: NewtonState, values: Array, result: Evaluation) -> Iterator[Secant]:
    """Yield what the trials tell about the error of the sample's curvature, the best one last."""
    for index in np.argsort(-values):
        secant = state.trials[index].secant
        if secant is not None and state.surrogate is not None and np.isfinite(values[index]):
            change = state.surrogate.to_search(result.gradient[index] - state.gradient)
            yield Secant(secant.step, change.ravel() - secant.change)


def before_trials(state: NewtonState, sampled: Evaluation) -> NewtonState:
    """Return the state with what is known of the first surrogate before any pass has tried it.

    The minimum of a sample is, on all rows, higher than it is on the sample, by the number of
    coefficients over that of rows (Akaike, A new look at the statistical model identification,
    1974); less so, the larger a share of all rows the sample is.
    """
    size, share = state.point.size, sampled.share
    return replace(
        state,
        damping=first_damping(share),
        underdetermined=share < 1 and sampled.rows < size,
        optimism=(1 - share) * size / max(sampled.rows, 1),
        gain_ratio=state.gain_ratio if share < 1 else 1.0,
    )


def trusted_trial(state: NewtonState) -> Trial | None:
    """Return the trial that is likely to be better than the centre, though no pass has tried it."""
    trials = [trial for trial in state.trials if trial.secant is not None]
    if not trials or state.underdetermined or not state.gain_ratio >= POOR:
        return None
    trial = trials[0] if state.gain_ratio >= 2 * POOR else trials[-1]
    return trial if state.n_passes or -trial.gain > state.optimism else None


def first_damping(share: float) -> float:
    """Return the damping of the first model, whose sample is a share of the rows.

    The error of what a sample tells has the factor (1 - share)^(1/2) (Cochran, Sampling
    techniques, 1977, section 2.6): a sample of all rows needs no damping.
    """
    return max(_DAMPING * math.sqrt(1 - share), _LEAST_DAMPING)


def _damping(damping: float, gain_ratio: float, factor: float) -> float:
    """Return the damping after a step that gained `gain_ratio` times what the model had said."""
    if not gain_ratio >= POOR:
        return 4 * damping
    return max(damping / factor, _LEAST_DAMPING) if gain_ratio > _GOOD else damping
