"""The parameters of a fit, checked before anything is read."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from dsoftmax.classes import ClassWeight
from dsoftmax.errors import DataError
from dsoftmax.prediction import LinearModel
from dsoftmax.reduction import Array
from dsoftmax.solvers import SOLVERS

_PLANNED = ("newton", "adam")


@dataclass(frozen=True)
class Settings:
    """The parameters of `SoftmaxRegression` that training needs, resolved.

    `start` is the model of a warm start; None for `batch_size` and `learning_rate` is "auto".
    """

    alpha: float
    l1_ratio: float
    fit_intercept: bool
    standardize: bool
    class_weight: ClassWeight
    classes: Array | None
    solver: str
    max_iter: int
    tol: float
    batch_size: int | None
    learning_rate: float | None
    momentum: float
    shuffle: bool
    n_iter_no_change: int
    seed: int
    start: LinearModel | None


def resolve(params: Mapping[str, Any], last: LinearModel | None) -> Settings:
    """Return the settings for an estimator's parameters and, for a warm start, its last fit.

    Raises
    ------
    DataError
        If a parameter has a value that it cannot have, or a solver cannot do what is asked.
    """
    batch_size, classes = params["batch_size"], params["classes"]
    return Settings(
        alpha=_number("alpha", params["alpha"], 0.0),
        l1_ratio=_number("l1_ratio", params["l1_ratio"], 0.0, 1.0),
        fit_intercept=bool(params["fit_intercept"]),
        standardize=bool(params["standardize"]),
        class_weight=_class_weight(params["class_weight"]),
        classes=None if classes is None else _sorted_classes(classes),
        solver=_solver(params["solver"], params["l1_ratio"]),
        max_iter=_count("max_iter", params["max_iter"]),
        tol=_number("tol", params["tol"], 0.0),
        batch_size=None if _is_auto(batch_size) else _count("batch_size", batch_size),
        learning_rate=_learning_rate(params["learning_rate"]),
        momentum=_number("momentum", params["momentum"], 0.0, 1.0, below=True),
        shuffle=bool(params["shuffle"]),
        n_iter_no_change=_count("n_iter_no_change", params["n_iter_no_change"]),
        seed=_seed(params["random_state"]),
        start=last,
    )


def _solver(name: str, l1_ratio: float) -> str:
    if name in _PLANNED:
        raise DataError(f"solver={name!r} is not available yet; use one of {sorted(SOLVERS)}")
    resolved = "lbfgs" if name == "auto" else name
    if resolved not in SOLVERS:
        raise DataError(f"solver={name!r} is unknown; use 'auto' or one of {sorted(SOLVERS)}")
    if l1_ratio and "l1" not in SOLVERS[resolved].penalties:
        raise DataError(
            f"solver={resolved!r} minimises smooth penalties only, but l1_ratio is {l1_ratio}; "
            "set l1_ratio=0"
        )
    return resolved


def _number(
    name: str, value: Any, low: float, high: float = np.inf, *, below: bool = False
) -> float:
    real = isinstance(value, numbers.Real) and bool(np.isfinite(float(value)))
    if not real or not low <= value <= high or (below and value == high):
        upper = "" if high == np.inf else f" and {'below' if below else 'at most'} {high}"
        raise DataError(f"{name} is {value!r}; expected a number of at least {low}{upper}")
    return float(value)


def _count(name: str, value: Any) -> int:
    if not isinstance(value, numbers.Integral) or int(value) < 1:
        raise DataError(f"{name} is {value!r}; expected a whole number of at least 1")
    return int(value)


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"


def _learning_rate(value: Any) -> float | None:
    if _is_auto(value):
        return None
    rate = _number("learning_rate", value, 0.0)
    if rate == 0:
        raise DataError("learning_rate is 0; expected a positive number or 'auto'")
    return rate


def _class_weight(value: Any) -> Mapping[Any, float] | str | None:
    if value is None or value == "balanced":
        return None if value is None else "balanced"
    if not isinstance(value, Mapping):
        raise DataError(f"class_weight is {value!r}; expected a dict, 'balanced' or None")
    for label, factor in value.items():
        _number(f"class_weight[{label!r}]", factor, 0.0)
    return value


def _sorted_classes(classes: Any) -> np.ndarray[Any, Any]:
    given = np.asarray(classes)
    unique = np.unique(given)
    if given.ndim != 1 or len(unique) != len(given) or len(given) < 2:
        raise DataError(f"classes is {classes!r}; expected at least two different labels")
    return unique


def _seed(random_state: Any) -> int:
    if isinstance(random_state, numbers.Integral) and int(random_state) >= 0:
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
