"""Whatever the encoding, the door and the call: what comes out is that of the decoded numbers."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import (
    DataError,
    SoftmaxRegression,
    SoftmaxRegressionCV,
    inspect_data,
    open_data,
    plan_fit,
)
from tests.data import encoded
from tests.data.encoded import DOORS, FORMATS, KINDS, complete, decoded, kept, opened

Cell = tuple[str, str, int]


def model(**params: Any) -> SoftmaxRegression:
    return SoftmaxRegression(**{"alpha": 0.05, "tol": 1e-9, "random_state": 0} | params)


def reference(path: Path) -> Any:
    X, y, w, _ = complete(path)
    return open_data(X, y, w, dtype="float64")


def parameters(fitted: Any) -> Any:
    return np.concatenate([fitted.coef_.ravel(), fitted.intercept_, [fitted.loss_]])


def fit(path: Path, source: Any) -> Any:
    return parameters(model().fit(source))


def fit_with_validation(path: Path, source: Any) -> Any:
    X, y, w, _ = complete(path)
    fitted = model().fit(open_data(X[:50], y[:50], w[:50], dtype="float64"), X_val=source)
    passes = [record for record in fitted.history_ if "validation_loss" in record]
    return [passes[-1]["validation_loss"], passes[-1]["validation_accuracy"]]


def partial_fit(path: Path, source: Any) -> Any:
    # In one batch, whose order has no meaning.
    learner = model(solver="adam", batch_size=10**6, shuffle=False)
    return parameters(learner.partial_fit(source, classes=[0, 1, 2]))


def evaluate(path: Path, source: Any) -> Any:
    found = fitted_to(path).evaluate(source)
    scores = ("accuracy", "log_loss", "brier_score", "ece", "f1_macro")
    return [found["n_samples"], *(found[score] for score in scores)]


def search(path: Path, source: Any) -> Any:
    folds = np.arange(encoded.ROWS) % 3
    folds = folds[kept(path)] if source.n_samples < encoded.ROWS else folds
    found = SoftmaxRegressionCV(alphas=[1e-2, 1.0], cv=folds, tol=1e-9, prune=False).fit(source)
    return [*parameters(found), found.alpha_, *found.scores_.ravel()]


def fitted_to(path: Path) -> SoftmaxRegression:
    if path not in _fitted:
        _fitted[path] = model().fit(reference(path))
    return _fitted[path]


_fitted: dict[Path, SoftmaxRegression] = {}
CALLS: dict[str, Callable[[Path, Any], Any]] = {
    "fit": fit,
    "fit with X_val": fit_with_validation,
    "partial_fit": partial_fit,
    "evaluate": evaluate,
    "search": search,
}
CELLS = list(itertools.product(KINDS, DOORS, FORMATS))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """Return a function that writes the store of a kind once."""
    folder, written = tmp_path_factory.mktemp("encoded"), {}

    def path(kind: str, zarr_format: int) -> Path:
        name = f"{kind}-{zarr_format}"
        if name not in written:
            written[name] = encoded.write(folder / name, kind, zarr_format)
        return written[name]

    return path


@pytest.mark.filterwarnings("ignore:.* rows are left out")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("kind", "door", "zarr_format"), CELLS)
def test_a_call_gives_what_it_gives_for_the_decoded_numbers(
    stores: Any, kind: str, door: str, zarr_format: int, call: str
) -> None:
    path = stores(kind, zarr_format)
    got = CALLS[call](path, opened(path, door))
    np.testing.assert_allclose(got, CALLS[call](path, reference(path)), rtol=1e-6, atol=1e-6)
