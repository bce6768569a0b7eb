"""The fits of `tests/benchmarks/digests.py`: their rows, how they are made, and what has to stay.

Sums are added up in a tree over spans, which are whole chunks of at least 4 MiB decoded; arrays in
memory are cut into chunks of that size. So X is of 18 MB: five spans of float32, the last of them
short, three of float16 and two of uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from dsoftmax import SoftmaxRegression, SoftmaxRegressionCV, load_model, open_data

Parts = dict[str, Any]
Arrays = tuple[np.ndarray, np.ndarray]
Paths = tuple[str, str]

ROWS, FEATURES = 18_000, 256
METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")
CHUNK = 1_100  # four of them are a span; the last has 400 rows

_PARAMS: dict[str, Parts] = {
    "newton": {"solver": "newton", "sample_size": 2000},
    "lbfgs": {"solver": "lbfgs", "max_iter": 8},
    "fista": {"solver": "sgd", "batch_size": 10**6, "max_iter": 8},
    "sgd": {"solver": "sgd", "batch_size": 1000},
    "adam": {"solver": "adam", "batch_size": 1000},
}
_ATTRIBUTES = (
    *("coef_", "intercept_", "classes_", "loss_", "gap_", "n_iter_", "n_steps_", "best_iter_"),
    *("stop_reason_", "seed_", "data_", "feature_names_in_"),
    *("alpha_", "l1_ratio_", "alphas_", "l1_ratios_", "scores_", "coefs_paths_"),
    *("objectives_", "converged_"),
)
_BAD = ("start", "stop")  # of what is left out
_TIMED = ("seconds", "retries", "reason")  # of a record of the history; a reason names a folder


class StopError(Exception):
    """The end that `Stop` makes."""


class Stop:
    """Ends a fit at an event of a name, such as "PassEnded", after so many of them."""

    def __init__(self, name: str, after: int, how: type[BaseException] = StopError) -> None:
        self._name, self._left, self._how = name, after, how

    def on_event(self, event: Any) -> None:
        if type(event).__name__ == self._name:
            self._left -= 1
            if self._left < 0:
                raise self._how


@lru_cache(6)
def problem(
    classes: int = 3, dtype: str = "f4", rows: int = ROWS, features: int = FEATURES
) -> Arrays:
    """Rows of classes that overlap, in features of scales from 0.1 to 10."""
    rng = np.random.default_rng((classes, rows, features))
    y = rng.integers(classes, size=rows)
    X = rng.standard_normal((rows, features), "f4")
    X += (2 * rng.standard_normal((classes, features), "f4") / np.sqrt(features))[y]
    kind = np.dtype(dtype)
    if kind.kind == "f":
        X *= np.geomspace(0.1, 10, features, dtype="f4")
    elif kind.kind == "b":
        X = X > 0
    else:
        X = np.clip(np.rint(X * 30 + 128), 0, 255)
    return X.astype(kind), y


def weights(rows: int = ROWS) -> np.ndarray:
    """Weights, a tenth of them zero."""
    rng = np.random.default_rng(1)
    return rng.random(rows) * (rng.random(rows) > 0.1)


def names(y: np.ndarray) -> np.ndarray:
    """Labels that are words."""
    return np.array([f"class {label}" for label in range(y.max() + 1)])[y]


def write(folder: Path, X: np.ndarray, y: np.ndarray, **options: Any) -> Paths:
    """Write X and y to a new Zarr group, not compressed by default, and return their paths."""
    group = zarr.open_group(folder, mode="w", zarr_format=options.pop("zarr_format", 3))
    given = {"chunks": (CHUNK, *X.shape[1:]), "compressors": None} | options
    group.create_array("X", shape=X.shape, dtype=X.dtype, **given)[...] = X
    kind, chunks = "string" if y.dtype.kind == "U" else y.dtype, given["chunks"][:-1]
    group.create_array("y", shape=y.shape, dtype=kind, chunks=chunks)[...] = y
    return f"{folder}/X", f"{folder}/y"


@lru_cache
def standard(root: Path) -> Paths:
    """Write the rows of the problem, once, as others would."""
    return write(root / "standard", *problem(), compressors="auto")


@lru_cache
def damaged(root: Path) -> Paths:
    """Write the same rows, once, with two chunks that cannot be decoded."""
    paths = write(root / "damaged", *problem(), compressors="auto")
    for chunk in (2, 13):
        (root / "damaged" / "X" / "c" / str(chunk) / "0").write_bytes(b"damaged")
    return paths


def skipping(root: Path) -> Any:
    """Return a source of the rows whose chunks are not damaged."""
    return open_data(*damaged(root), on_bad_chunk="skip", max_bad_chunks=2)


def parts_of(model: Any) -> Parts:
    """What a fitted model or search has found."""
    parts = {name: getattr(model, name) for name in _ATTRIBUTES if hasattr(model, name)}
    parts["quarantined_"] = [[bad[key] for key in _BAD] for bad in model.quarantined_]
    parts["history_"] = [
        {key: record[key] for key in record if not key.endswith((*_TIMED, "bytes"))}
        for record in model.history_
    ]
    parts["bytes"] = [record["bytes"] for record in model.history_ if "bytes" in record]
    return parts


def without(part: str, fitted: Callable[[], Parts]) -> Parts:
    """Return all that is found but one part."""
    return {name: value for name, value in fitted().items() if name != part}


def model_of(solver: str = "newton", **params: Any) -> SoftmaxRegression:
    given: Parts = {"alpha": 1e-3, "max_iter": 4, "tol": 1e-3, "random_state": 0}
    return SoftmaxRegression(**(given | _PARAMS.get(solver, {}) | params))


def fit(
    X: Any,
    y: Any = None,
    weight: Any = None,
    *,
    solver: str = "newton",
    apart: Mapping[str, Any] | None = None,
    **params: Any,
) -> Parts:
    return parts_of(model_of(solver, **params).fit(X, y, weight, **(apart or {})))


def search(
    X: Any,
    y: Any = None,
    weight: Any = None,
    *,
    apart: Mapping[str, Any] | None = None,
    **params: Any,
) -> Parts:
    given: Parts = {"alphas": 2, "cv": 3, "random_state": 0, "tol": 0.02, "max_iter": 6}
    given |= {"sample_size": 2000} | ({} if apart is None else {"cv": None})
    model = SoftmaxRegressionCV(**(given | params)).fit(X, y, weight, **(apart or {}))
    return parts_of(model)


def warm(X: np.ndarray, y: np.ndarray, solver: str) -> Parts:
    """A fit that begins where another one, of other rows, has ended."""
    model = model_of(solver, warm_start=True, max_iter=2).fit(X[:9000], y[:9000])
    return parts_of(model.set_params(alpha=1e-2, max_iter=4).fit(X, y))


def learned(
    X: np.ndarray, y: np.ndarray, solver: str, *, weight: np.ndarray | None = None, **params: Any
) -> Parts:
    """What is found part by part, the parts of different sizes."""
    model = model_of(solver, **params)
    for start, stop in ((0, 5000), (5000, 5010), (5010, 18_000), (0, 5000)):
        own = None if weight is None else weight[start:stop]
        model.partial_fit(X[start:stop], y[start:stop], np.unique(y), own)
    return parts_of(model)


def gone_on(X: np.ndarray, y: np.ndarray) -> Parts:
    model = model_of("auto", max_iter=2).fit(X, y)
    return parts_of(model.partial_fit(X[:5000], y[:5000]).partial_fit(X[5000:], y[5000:]))


def again(fitted: Callable[..., Parts], place: Path, end: Stop) -> Parts:
    """Return what is found after a stop, but for the bytes that were decoded.

    They depend on which task was the first to be done when it stopped, and on what was remembered.

    Raises
    ------
    AssertionError
        If it did not stop.
    """
    with suppress(StopError):
        fitted(checkpoint=place, callbacks=[end])
        raise AssertionError("it has not stopped")
    return without("bytes", partial(fitted, checkpoint=place))


def predicted(
    model: Any, X: Any, y: Any, folder: Path, methods: tuple[str, ...] = METHODS
) -> Parts:
    """All that a model says of rows, in memory, lazily and into stores."""
    folder.mkdir()
    parts: Parts = {}
    for method in methods:
        parts[method] = np.asarray(getattr(model, method)(X))
        model.predict_to(X, folder / method, method)
        parts[f"{method}_to"] = np.asarray(zarr.open_array(folder / method, mode="r")[:])
    parts["evaluate"] = model.evaluate(X, y).to_dict()
    parts["weighted"] = model.evaluate(X, y, weights()).to_dict()
    parts["score"] = model.score(X, y)
    model.save(folder / "model")
    loaded = load_model(folder / "model")
    parts["loaded"] = parts_of(loaded) | {"params": sorted(map(str, loaded.get_params().items()))}
    parts["loaded_proba"] = np.asarray(loaded.predict_proba(X))
    theirs = model.to_sklearn()
    parts["sklearn"] = {"coef": theirs.coef_, "intercept": theirs.intercept_}
    return parts
