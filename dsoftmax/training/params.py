"""The parameters of a fit, checked before anything is read."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from dsoftmax.errors import DataError, quoted
from dsoftmax.objective.labels import label_array, preview
from dsoftmax.objective.linear_model import LinearModel
from dsoftmax.objective.objective import Objective
from dsoftmax.solvers import SOLVERS
from dsoftmax.solvers.base import SolverParams
from dsoftmax.typing import Array

MINI_BATCH = sorted(name for name, kind in SOLVERS.items() if kind.mini_batch)
_TOL = 1e-4  # what "auto" is where there is no other reason to stop
SCHEDULES = ("constant", "inverse", "cosine")


@dataclass(frozen=True)
class FitParams:
    """The parameters of `SoftmaxRegression` that training needs, resolved.

    `seeded` is whether the seed was given, `start` is the model of a warm start; None for
    `batch_size`, `sample_size`, `learning_rate` and `schedule` is "auto"; `tol_auto` is whether
    `tol` was.
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
    tol_auto: bool
    batch_size: int | None
    sample_size: int | None
    learning_rate: float | None
    schedule: str | None
    momentum: float
    clip_norm: float | None
    shuffle: bool
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    seed: int
    seeded: bool
    start: LinearModel | None

    def for_solver(
        self, objective: Objective, horizon: int, total_rows: int | None
    ) -> SolverParams:
        """Return what a solver is built from, as `SolverParams` says."""
        return SolverParams(
            penalty=objective.penalty,
            noise=0.5 * float(np.finfo(objective.dtype).eps),
            tol=self.tol,
            momentum=self.momentum,
            clip_norm=self.clip_norm,
            n_iter_no_change=self.n_iter_no_change,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            horizon=horizon,
            total_rows=total_rows,
        )


def resolve(params: Mapping[str, Any], last: LinearModel | None) -> FitParams:
    """Return the settings for an estimator's parameters and, for a warm start, its last fit.

    Raises
    ------
    DataError
        If a parameter has a value that it cannot have, or a solver cannot do what is asked.
    """
    batch_size, classes = params["batch_size"], params["classes"]
    return FitParams(
        alpha=_number("alpha", params["alpha"], 0.0),
        l1_ratio=_number("l1_ratio", params["l1_ratio"], 0.0, 1.0),
        fit_intercept=flag("fit_intercept", params["fit_intercept"]),
        standardize=flag("standardize", params["standardize"]),
        class_weight=_class_weight(params["class_weight"]),
        classes=None if classes is None else _sorted_classes(classes),
        solver=_solver(params["solver"], params["l1_ratio"]),
        max_iter=_count("max_iter", params["max_iter"]),
        tol=_TOL if _is_auto(params["tol"]) else _number("tol", params["tol"], 0.0),
        tol_auto=_is_auto(params["tol"]),
        batch_size=_count_or_auto("batch_size", batch_size),
        sample_size=_count_or_auto("sample_size", params["sample_size"]),
        learning_rate=_learning_rate(params["learning_rate"]),
        schedule=_schedule(params["schedule"]),
        momentum=_number("momentum", params["momentum"], 0.0, 1.0, below=True),
        clip_norm=None
        if params["clip_norm"] is None
        else _positive("clip_norm", params["clip_norm"]),
        shuffle=flag("shuffle", params["shuffle"]),
        early_stopping=flag("early_stopping", params["early_stopping"]),
        validation_fraction=_between_0_and_1("validation_fraction", params["validation_fraction"]),
        n_iter_no_change=_count("n_iter_no_change", params["n_iter_no_change"]),
        seed=_seed(params["random_state"]),
        seeded=isinstance(params["random_state"], numbers.Integral),
        start=last,
    )


def resolve_part(params: Mapping[str, Any], classes: Any, last: LinearModel | None) -> FitParams:
    """Return the settings for one epoch over a part of the rows.

    Parameters
    ----------
    params : as for `resolve`
    classes : all labels that will ever come, as the call names them, or None
    last : the model to go on from, if there is one

    Raises
    ------
    DataError
        As `resolve`; and if the classes are unknown or others than before, or a parameter needs
        all rows at once.
    """
    if params["standardize"] or params["class_weight"] == "balanced":
        name = "standardize=True" if params["standardize"] else "class_weight='balanced'"
        raise DataError(
            f"{name} needs all rows at once, and partial_fit sees a part: scale the features, or "
            "weigh the classes by a dict"
        )
    if params["early_stopping"]:
        raise DataError(
            "early_stopping=True needs passes to stop after, and partial_fit makes one: look at "
            "model.evaluate(X_val, y_val) between the parts"
        )
    solver = "sgd" if params["solver"] == "auto" else params["solver"]
    return resolve(
        {
            **params,
            "solver": solver,
            "classes": _known_classes(params, classes, last),
            "max_iter": 1,
        },
        last,
    )


def _known_classes(params: Mapping[str, Any], classes: Any, last: LinearModel | None) -> Any:
    named = params["classes"] if classes is None else classes
    if last is None and named is None:
        raise DataError("classes is None; the first call of partial_fit needs all labels")
    if last is None:
        return named
    if named is not None and not np.array_equal(_sorted_classes(named), last.classes):
        raise DataError(
            f"classes are {preview(_sorted_classes(named))}, but the earlier calls had "
            f"{preview(last.classes)}; they must stay the same"
        )
    return last.classes


def flag(name: str, value: Any) -> bool:
    """Return a parameter that is True or False.

    Raises
    ------
    DataError
        If it is anything else: "no" would count as true.
    """
    if not isinstance(value, numbers.Integral | np.bool_) or value not in (0, 1):
        raise DataError(f"{name} is {quoted(value)}; expected True or False")
    return bool(value)


def _solver(name: str, l1_ratio: float) -> str:
    if name == "auto":
        return name
    if name not in SOLVERS:
        raise DataError(f"solver={quoted(name)} is unknown; use 'auto' or one of {sorted(SOLVERS)}")
    if l1_ratio and "l1" not in SOLVERS[name].penalties:
        able = sorted(name for name, kind in SOLVERS.items() if "l1" in kind.penalties)
        raise DataError(
            f"solver={quoted(name)} minimises smooth penalties only, but l1_ratio is {l1_ratio}; "
            f"set l1_ratio=0, or use 'auto' or one of {able}"
        )
    return name


def _number(
    name: str, value: Any, low: float, high: float = np.inf, *, below: bool = False
) -> float:
    real = isinstance(value, numbers.Real) and bool(np.isfinite(float(value)))
    if not real or not low <= value <= high or (below and value == high):
        upper = "" if high == np.inf else f" and {'below' if below else 'at most'} {high}"
        raise DataError(f"{name} is {quoted(value)}; expected a number of at least {low}{upper}")
    return float(value)


def _count(name: str, value: Any) -> int:
    if not isinstance(value, numbers.Integral) or int(value) < 1:
        raise DataError(f"{name} is {quoted(value)}; expected a whole number of at least 1")
    return int(value)


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"


def _count_or_auto(name: str, value: Any) -> int | None:
    return None if _is_auto(value) else _count(name, value)


def _learning_rate(value: Any) -> float | None:
    if _is_auto(value):
        return None
    return _positive("learning_rate", value)


def _positive(name: str, value: Any) -> float:
    number = _number(name, value, 0.0)
    if number == 0:
        raise DataError(f"{name} is {quoted(value)}; expected a positive number")
    return number


def _between_0_and_1(name: str, value: Any) -> float:
    number = _positive(name, value)
    if number >= 1:
        raise DataError(f"{name} is {quoted(value)}; expected a number between 0 and 1")
    return number


def _schedule(name: Any) -> str | None:
    if _is_auto(name):
        return None
    if name not in SCHEDULES:
        raise DataError(f"schedule is {quoted(name)}; expected 'auto' or one of {list(SCHEDULES)}")
    return str(name)


def _class_weight(value: Any) -> Mapping[Any, float] | str | None:
    if value is None or value == "balanced":
        return None if value is None else "balanced"
    if not isinstance(value, Mapping):
        raise DataError(f"class_weight is {quoted(value)}; expected a dict, 'balanced' or None")
    for label, factor in value.items():
        _number(f"class_weight[{quoted(label)}]", factor, 0.0)
    return value


def _sorted_classes(classes: Any) -> np.ndarray[Any, Any]:
    given = np.asarray(classes)
    if given.ndim == 1 and all(isinstance(label, numbers.Integral) for label in classes):
        given = label_array("classes", list(classes))
    elif given.ndim == 1 and given.tolist() != list(classes):  # strings of numbers beside strings
        raise DataError(
            f"classes is {quoted(classes)}, of which NumPy makes {preview(given)}; expected "
            "labels of one type, all strings or numbers that one dtype holds"
        )
    if given.dtype.kind == "O":
        given = label_array("classes", given.ravel().tolist())
    unique = np.unique(given)
    if given.ndim != 1 or len(unique) != len(given) or len(given) < 2:
        raise DataError(f"classes is {quoted(classes)}; expected at least two different labels")
    return unique


def _seed(random_state: Any) -> int:
    if isinstance(random_state, numbers.Integral) and int(random_state) >= 0:
        return int(random_state)
    try:
        return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    except ValueError as error:
        raise DataError(
            f"random_state is {quoted(random_state)}; expected a whole number of at least 0, a "
            "numpy.random.RandomState, or None"
        ) from error


ClassWeight = Mapping[Any, float] | str | None
