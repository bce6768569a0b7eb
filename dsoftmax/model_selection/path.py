"""The regularisation path: which penalties a search tries, and how it chooses one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from dsoftmax.errors import DataError, quoted
from dsoftmax.objective.objective import Objective
from dsoftmax.training.params import MINI_BATCH, FitParams, flag, resolve
from dsoftmax.typing import Array

SCORINGS = ("neg_log_loss", "accuracy")
SELECTIONS = ("best", "1se")
_OPTIONS = ("alphas", "l1_ratios", "cv", "scoring", "select", "refit", "prune")

# What `resolve` checks for every fit, but no search has: all of these are of mini-batches.
_FIXED: dict[str, Any] = {
    "batch_size": "auto",
    "learning_rate": "auto",
    "schedule": "auto",
    "momentum": 0.9,
    "clip_norm": None,
    "shuffle": True,
    "early_stopping": False,
    "validation_fraction": 0.1,
    "n_iter_no_change": 5,
}

_DECADES = 6.0  # from the largest alpha of a path to its smallest, without an L1 penalty
_DECADES_L1 = 4.0
_EXPLAINED = 0.1  # share of the loss that the model of the largest alpha explains, without L1


@dataclass(frozen=True)
class Options:
    """The parameters of a search beyond those of a fit.

    Attributes
    ----------
    alphas : int, or array of shape (n_alphas,)
        How many to choose, or which to try.
    l1_ratios : (n_l1_ratios,), ascending
    n_folds : how many folds to make; 0 if the user names the fold of each row, or there are none
    scoring, select, refit, prune : as of `SoftmaxRegressionCV`
    """

    alphas: int | Array
    l1_ratios: Array
    n_folds: int
    scoring: str
    select: str
    refit: bool
    prune: bool

    @property
    def n_alphas(self) -> int:
        """How many alphas are tried with each l1_ratio."""
        return self.alphas if isinstance(self.alphas, int) else len(self.alphas)

    @property
    def n_candidates(self) -> int:
        """How many penalties are tried."""
        return self.n_alphas * len(self.l1_ratios)

    @property
    def eliminates(self) -> bool:
        """Whether candidates may be eliminated before they converge.

        Only a log loss has a bound on how much it can still change, see `racing`.
        """
        return self.prune and self.scoring == "neg_log_loss"

    @property
    def n_bounded(self) -> int:
        """How many candidates may be eliminated: those without an L1 penalty, which come first.

        No solver estimates the distance to the minimum under an L1 penalty.
        """
        return self.n_alphas if self.eliminates and self.l1_ratios[0] == 0 else 0

    @property
    def as_text(self) -> dict[str, str]:
        """Every option by name, for the fingerprint of a checkpoint."""
        alphas = self.alphas if isinstance(self.alphas, int) else self.alphas.tolist()
        values = (alphas, self.l1_ratios.tolist(), self.n_folds)
        rest = (self.scoring, self.select, self.refit, self.prune)
        return dict(zip(_OPTIONS, map(str, (*values, *rest)), strict=True))


def resolve_search(params: Mapping[str, Any]) -> tuple[FitParams, Options]:
    """Check the parameters of `SoftmaxRegressionCV`, before anything is read.

    Returns
    -------
    the parameters of every fit of the search, and the options of the search itself

    Raises
    ------
    DataError
        If a parameter has a value that it cannot have.
    """
    if params["solver"] in MINI_BATCH:
        raise DataError(
            f"solver={quoted(params['solver'])} takes mini-batches, and a search is of full "
            "passes, in which the candidates share what is read; use 'auto', 'newton' or 'lbfgs'"
        )
    if params["cv"] is None and params["select"] == "1se":
        raise DataError("select='1se' needs the spread over folds; X_val has none, pass cv")
    l1_ratios = _numbers("l1_ratios", params["l1_ratios"], 1.0)
    options = Options(
        _alphas(params["alphas"]),
        l1_ratios,
        _n_folds(params["cv"]),
        _one_of("scoring", params["scoring"], SCORINGS),
        _one_of("select", params["select"], SELECTIONS),
        flag("refit", params["refit"]),
        flag("prune", params["prune"]),
    )
    rest = {name: value for name, value in params.items() if name not in _OPTIONS}
    penalty = {"alpha": 1.0, "l1_ratio": float(l1_ratios.max())}
    return resolve({**_FIXED, **rest, **penalty}, None), options


def _alphas(value: Any) -> int | Array:
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        if value < 1:
            raise DataError(f"alphas is {quoted(value)}; expected how many, at least 1, or which")
        return int(value)
    return _numbers("alphas", value, np.inf, "how many, at least 1, or ")


def _numbers(name: str, value: Any, most: float, others: str = "") -> Array:
    """Return distinct numbers from 0 to `most`, ascending."""
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    in_range = np.isfinite(numbers) & (numbers >= 0) & (numbers <= most)
    if numbers.ndim != 1 or not len(numbers) or not in_range.all():
        upper = "" if most == np.inf else f" and at most {most:g}"
        raise DataError(f"{name} is {quoted(value)}; expected {others}numbers of at least 0{upper}")
    unique = np.unique(numbers)
    if len(unique) < len(numbers):
        raise DataError(f"{name} is {quoted(value)}; expected each number once")
    return unique


def _n_folds(cv: Any) -> int:
    if isinstance(cv, bool | np.bool_):
        raise DataError(f"cv is {quoted(cv)}; expected how many folds, or the fold of each row")
    if not isinstance(cv, int | np.integer):
        if hasattr(cv, "split") and not isinstance(cv, str):  # a str has a method `split` too
            raise DataError(
                f"cv is {quoted(cv)}; expected how many folds, or an array of the fold of each "
                "row, which can be made of a splitter's test sets"
            )
        return 0
    if cv < 2:
        raise DataError(f"cv is {quoted(cv)}; expected at least 2 folds, or None with X_val")
    return int(cv)


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise DataError(f"{name} is {quoted(value)}; expected one of {list(allowed)}")
    return str(value)


@dataclass(frozen=True)
class Candidates:
    """The grid of penalties: every l1_ratio with every alpha of its path.

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
    """Return the candidates; if `alphas` says only how many, choose them by the data.

    Parameters
    ----------
    alphas : int, or array of shape (n_alphas,)
    l1_ratios : array of shape (n_l1_ratios,)
    objective : Objective
        On all rows. Of its penalty, only the units of the features count.
    """
    if isinstance(alphas, np.ndarray):
        return Candidates(l1_ratios, np.tile(np.sort(alphas)[::-1], (len(l1_ratios), 1)))
    return Candidates(l1_ratios, np.stack([_path(objective, r, alphas) for r in l1_ratios]))


def _path(objective: Objective, l1_ratio: float, n_alphas: int) -> Array:
    """Return alphas that are evenly spaced in their logarithms.

    With an L1 penalty the path starts where all coefficients are zero, and spans four decades
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
    if not largest > 0:  # no feature has a gradient: any scale is as good as another
        largest = 1.0
    if n_alphas == 1:
        return np.array([largest * 10 ** (-0.5 * decades)])
    return np.geomspace(largest, largest * 10**-decades, n_alphas)


def by_fold(values: Array, n_folds: int) -> Array:
    """Return values of all models, in their order, as (n_folds, n_candidates, ...)."""
    return values.reshape(-1, n_folds, *values.shape[1:]).swapaxes(0, 1)


def chosen(scores: Array, tried: Candidates, select: str) -> int:
    """Return the index of the candidate that wins.

    Parameters
    ----------
    scores : array of shape (n_folds, n_candidates)
        Higher is better; NaN where a candidate has none.
    tried : Candidates
    select : {"best", "1se"}
        "best" takes the highest mean over the folds. "1se" takes the largest alpha whose mean is
        within one standard error of the best, among candidates with the l1_ratio of the best
        (Breiman, Friedman, Olshen and Stone, Classification and Regression Trees, 1984, section
        3.4.3).
    """
    means = scores.mean(axis=0)
    best = int(np.nanargmax(means)) if not np.isnan(means).all() else 0
    if select == "best":
        return best
    error = scores[:, best].std(ddof=1) / np.sqrt(len(scores))
    first = best - best % tried.alphas.shape[1]
    near = np.flatnonzero(means[first : best + 1] >= means[best] - error)
    return int(first + near[0])
