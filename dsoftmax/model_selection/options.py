"""What a search tries, and how it chooses: its parameters, checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsoftmax.errors import DataError
from dsoftmax.training.params import MINI_BATCH, FitParams, flag, resolve
from dsoftmax.typing import Array

SCORINGS = ("neg_log_loss", "accuracy")
SELECTIONS = ("best", "1se")
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


@dataclass(frozen=True)
class Options:
    """The parameters of a search beyond those of a fit.

    Attributes
    ----------
    alphas : how many, or which (n_alphas,)
    l1_ratios : (n_l1_ratios,)
    n_folds : that are made, 0 if they are given or there are none
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
    def n_candidates(self) -> int:
        """How many penalties are tried."""
        n_alphas = self.alphas if isinstance(self.alphas, int) else len(self.alphas)
        return n_alphas * len(self.l1_ratios)

    @property
    def as_text(self) -> dict[str, str]:
        """What makes it the search that it is, by name."""
        alphas = self.alphas if isinstance(self.alphas, int) else self.alphas.tolist()
        return {
            "alphas": str(alphas),
            "l1_ratios": str(self.l1_ratios.tolist()),
            "cv": str(self.n_folds),
            "scoring": self.scoring,
            "select": self.select,
            "refit": str(self.refit),
            "prune": str(self.prune),
        }


def resolve_search(params: Mapping[str, Any]) -> tuple[FitParams, Options]:
    """Return the settings of each fit of a search, and its options.

    Raises
    ------
    DataError
        If a parameter has a value that it cannot have.
    """
    if params["solver"] in MINI_BATCH:
        raise DataError(
            f"solver={params['solver']!r} takes mini-batches, and a search is of full passes, in "
            "which the candidates share what is read; use 'auto', 'newton' or 'lbfgs'"
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
    names = ("alphas", "l1_ratios", "cv", "scoring", "select", "refit", "prune")
    rest = {name: value for name, value in params.items() if name not in names}
    own = {"alpha": 1.0, "l1_ratio": float(l1_ratios.max())}
    return resolve({**_FIXED, **rest, **own}, None), options


def _alphas(value: Any) -> int | Array:
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        if value < 1:
            raise DataError(f"alphas is {value!r}; expected how many, at least 1, or which")
        return int(value)
    return _numbers("alphas", value, np.inf, "how many, at least 1, or ")


def _numbers(name: str, value: Any, most: float, others: str = "") -> Array:
    try:
        found = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    fits = np.isfinite(found) & (found >= 0) & (found <= most)
    if found.ndim != 1 or not len(found) or not fits.all():
        upper = "" if most == np.inf else f" and at most {most:g}"
        raise DataError(f"{name} is {value!r}; expected {others}numbers of at least 0{upper}")
    unique = np.unique(found)
    if len(unique) < len(found):
        raise DataError(f"{name} is {value!r}; expected each number once")
    return unique


def _n_folds(cv: Any) -> int:
    if isinstance(cv, bool | np.bool_):
        raise DataError(f"cv is {cv!r}; expected how many folds, or the fold of each row")
    if not isinstance(cv, int | np.integer):
        if hasattr(cv, "split") and not isinstance(cv, str):  # texts have it too
            raise DataError(
                f"cv is {cv!r}; expected how many folds, or an array of the fold of each row, "
                "which can be made of a splitter's test sets"
            )
        return 0
    if cv < 2:
        raise DataError(f"cv is {cv!r}; expected at least 2 folds, or None with X_val")
    return int(cv)


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise DataError(f"{name} is {value!r}; expected one of {list(known)}")
    return str(value)
