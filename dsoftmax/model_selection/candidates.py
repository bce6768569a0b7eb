"""The candidates of a search: which penalties are tried, and which of them wins."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from dsoftmax.objective.objective import Objective
from dsoftmax.typing import Array

_DECADES = 6.0  # below the largest alpha of a path without an L1 penalty
_DECADES_L1 = 4.0
_EXPLAINED = 0.1  # of the loss, by the largest alpha without an L1 penalty


@dataclass(frozen=True)
class Candidates:
    """Every pair of a share of the L1 penalty and a strength.

    Attributes
    ----------
    l1_ratios : (n_l1_ratios,)
    alphas : (n_l1_ratios, n_alphas), descending, on the scale of the mean loss
    """

    l1_ratios: Array
    alphas: Array

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """The candidates in their order, as (alpha, l1_ratio)."""
        index = product(range(len(self.l1_ratios)), range(self.alphas.shape[1]))
        return [(float(self.alphas[i, j]), float(self.l1_ratios[i])) for i, j in index]


def candidates(alphas: int | Array, l1_ratios: Array, objective: Objective) -> Candidates:
    """Return the candidates, where alphas may be how many there are to be.

    Parameters
    ----------
    alphas : int, or array of shape (n_alphas,)
    l1_ratios : array of shape (n_l1_ratios,)
    objective : Objective
        On all rows; its own penalty counts for its units alone.
    """
    if isinstance(alphas, np.ndarray):
        given = np.sort(alphas)[::-1]
        return Candidates(l1_ratios, np.tile(given, (len(l1_ratios), 1)))
    return Candidates(l1_ratios, np.stack([_path(objective, r, alphas) for r in l1_ratios]))


def _path(objective: Objective, l1_ratio: float, n_alphas: int) -> Array:
    """Return a path of so many alphas, evenly spaced in their logarithms.

    With an L1 penalty it starts where all coefficients are zero, and spans four decades
    (Friedman, Hastie and Tibshirani, Journal of Statistical Software 33, 2010, section 2.5).
    Without one it starts where a step along the gradient, as far as the penalty allows, explains
    about a tenth of the loss, and spans six.
    """
    known, unit = objective.at_intercept_only, objective.penalty.unit
    slope = known.gradient[0][:-1] / unit
    if l1_ratio > 0:
        largest, decades = float(np.abs(slope).max(initial=0.0)) / l1_ratio, _DECADES_L1
    else:
        explained = 2 * _EXPLAINED * float(known.value[0])
        largest, decades = float(np.vdot(slope, slope)) / max(explained, 1e-300), _DECADES
    if not largest > 0:  # no feature tells anything
        largest = 1.0
    if n_alphas == 1:
        return np.array([largest * 10 ** (-0.5 * decades)])
    return np.geomspace(largest, largest * 10**-decades, n_alphas)


def by_fold(values: Array, n_folds: int) -> Array:
    """Return numbers of the members, candidate by candidate, as (n_folds, n_candidates)."""
    return np.asarray(values.reshape(-1, n_folds).T)


def chosen(scores: Array, found: Candidates, select: str) -> int:
    """Return which candidate wins.

    Parameters
    ----------
    scores : array of shape (n_folds, n_candidates)
        Higher is better; NaN where a candidate has none.
    found : Candidates
    select : {"best", "1se"}
        The highest mean over the folds; or, of the candidates with its share of the L1 penalty
        whose mean is within one standard error of that, the one of the largest alpha (Breiman,
        Friedman, Olshen and Stone, Classification and Regression Trees, 1984, section 3.4.3).
    """
    means = scores.mean(axis=0)
    best = int(np.nanargmax(means)) if not np.isnan(means).all() else 0
    if select == "best":
        return best
    error = scores[:, best].std(ddof=1) / np.sqrt(len(scores))
    first = best - best % found.alphas.shape[1]
    near = np.flatnonzero(means[first : best + 1] >= means[best] - error)
    return int(first + near[0])
