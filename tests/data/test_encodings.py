"""Whatever the encoding, the door and the call: what comes out is that of the decoded numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dsoftmax import (
    DataError,
    SoftmaxRegression,
    SoftmaxRegressionCV,
    inspect_data,
    open_data,
    plan_fit,
)
from tests.data import encoded
from tests.data.encoded import DOORS, FORMATS, KINDS, complete, decoded, opened

Stores = Callable[[str, int], Path]

FOLDS = np.arange(encoded.ROWS) % 2


def model(**params: Any) -> SoftmaxRegression:
    return SoftmaxRegression(**{"alpha": 0.05, "tol": 1e-9, "random_state": 0} | params)


def parameters(fitted: Any) -> list[float]:
    return [*fitted.coef_.ravel(), *fitted.intercept_, fitted.loss_]


# A call learns from, or looks at, rows that lack no value, or a source that leaves out others.


def fit(source: Any, rows: Any, kept: Any) -> Any:
    return parameters(model().fit(source))


def fit_with_validation(source: Any, rows: Any, kept: Any) -> Any:
    fitted = model().fit(open_data(*rows[:3], dtype="float64"), X_val=source)
    last = [record for record in fitted.history_ if "validation_loss" in record][-1]
    return [last["validation_loss"], last["validation_accuracy"]]


def partial_fit(source: Any, rows: Any, kept: Any) -> Any:
    # In one batch, in which the order of the rows has no meaning.
    learner = model(solver="adam", batch_size=10**6, shuffle=False)
    return parameters(learner.partial_fit(source, classes=[0, 1, 2]))


def evaluate(source: Any, rows: Any, kept: Any) -> Any:
    fitted = model(max_iter=3, tol=0.5).fit(open_data(*rows[:3], dtype="float64"))
    found = fitted.evaluate(source)
    scores = ("accuracy", "log_loss", "brier_score", "ece", "f1_macro")
    return [found["n_samples"], *(found[score] for score in scores)]


def search(source: Any, rows: Any, kept: Any) -> Any:
    cv = FOLDS if source.n_samples == encoded.ROWS else FOLDS[kept]
    found = SoftmaxRegressionCV(alphas=[0.01, 1.0], cv=cv, tol=1e-7, prune=False).fit(source)
    return [*parameters(found), found.alpha_, *found.scores_.ravel()]


CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "fit": fit,
    "fit with X_val": fit_with_validation,
    "partial_fit": partial_fit,
    "evaluate": evaluate,
    "search": search,
}


def cells(*calls: str, everywhere: tuple[str, ...] = ()) -> list[Any]:
    """Return the cells of a table: each kind through each door, in one of the formats.

    All kinds by path, and the kind that has everything through all doors, are in both formats, and
    quick in one. Of calls that are `everywhere`, a third of the others is quick too.
    """
    found = []
    every = itertools.product(calls, enumerate(KINDS), enumerate(DOORS), FORMATS)
    for call, (i, kind), (j, door), zarr_format in every:
        telling = kind == "everything" or door == "path"
        telling |= call in everywhere and (i + 2 * j) % 3 == 0
        in_turn = zarr_format == FORMATS[(i + j) % 2]
        if not (telling or in_turn):
            continue
        quick = telling and in_turn
        marks = () if quick else (pytest.mark.slow,)
        found.append(pytest.param(kind, door, zarr_format, call, marks=marks))
    return found


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    """Return a function that writes the store of a kind, at its first call."""
    folder = tmp_path_factory.mktemp("encoded")

    @cache
    def path(kind: str, zarr_format: int) -> Path:
        return encoded.write(folder / f"{kind}-{zarr_format}", kind, zarr_format)

    return path


@pytest.fixture(scope="module")
def of_decoded(stores: Stores) -> Callable[[str, str], Any]:
    """Return a function that says what a call gives for the decoded rows that lack nothing."""

    @cache
    def result(kind: str, call: str) -> Any:
        path = stores(kind, FORMATS[0])
        rows = complete(path)
        return CALLS[call](open_data(*rows[:3], dtype="float64"), rows, decoded(path).kept)

    return result


@pytest.mark.filterwarnings("ignore:.* rows are left out")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("kind", "door", "zarr_format", "call"), cells(*CALLS, everywhere=("fit",))
)
def test_a_call_gives_what_it_gives_for_the_decoded_numbers(
    stores: Stores, of_decoded: Any, kind: str, door: str, zarr_format: int, call: str
) -> None:
    path = stores(kind, zarr_format)
    got = CALLS[call](opened(path, door), complete(path), decoded(path).kept)
    np.testing.assert_allclose(got, of_decoded(kind, call), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("kind", "door", "zarr_format", "call"), cells("fit"))
def test_a_missing_value_is_one_clear_error_by_default(
    stores: Stores, kind: str, door: str, zarr_format: int, call: str
) -> None:
    path = stores(kind, zarr_format)
    X, y, w, _ = decoded(path)
    # The labels and weights are looked at first: of both, in the order of the rows of a chunk.
    nan_in_memory = r"not finite \(NaN or infinity\); clean the data"
    messages = [
        (np.isnan(y), r"has a missing label .*at row (7|50)"),
        (np.isnan(w), r"has a missing value .*at row \d+"),
        (np.isnan(X), f"which its attributes say is missing|a masked value|{nan_in_memory}"),
    ]
    message = next((message for missing, message in messages if missing.any()), None)
    source = opened(path, door, missing="raise")
    if message is None:
        SoftmaxRegression(max_iter=3, tol=0.5).fit(source)
        return
    with pytest.raises(DataError, match=message):
        SoftmaxRegression().fit(source)


PREDICTIONS = ("predict", "predict_proba", "predict_to")


@pytest.mark.parametrize(
    ("kind", "door", "zarr_format", "call"),
    cells(*PREDICTIONS, everywhere=("predict_proba",)),
)
def test_each_store_is_decoded_by_its_own_attributes_in_predictions(
    stores: Stores, tmp_path: Path, kind: str, door: str, zarr_format: int, call: str
) -> None:
    path = stores(kind, zarr_format)
    *rows, C = complete(path)
    fitted = model(max_iter=3, tol=0.5).fit(open_data(*rows[:3], dtype="float64"))
    given = DOORS[door](path, "C")
    if not encoded.is_decoded_for_us(door):
        given = open_data(given, decode=False)
    if call == "predict_to":
        fitted.predict_to(given, tmp_path / "out")
        got = zarr.open_array(tmp_path / "out", mode="r")[:]
        expected = fitted.predict_proba(C)
    else:
        got, expected = np.asarray(getattr(fitted, call)(given)), getattr(fitted, call)(C)
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(("kind", "door", "zarr_format", "call"), cells("inspect"))
def test_inspect_and_plan_count_what_is_decoded(
    stores: Stores, kind: str, door: str, zarr_format: int, call: str
) -> None:
    path = stores(kind, zarr_format)
    X, y, w, _ = decoded(path)
    source, lacking = opened(path, door), np.isnan(y) | np.isnan(w)
    found = inspect_data(source)
    labels, counts = np.unique(y[~lacking], return_counts=True)
    assert found.class_counts == dict(zip(labels, counts, strict=True))
    assert found.non_finite_values == np.isnan(X).sum()
    assert found.non_finite_rows == np.isnan(X).any(axis=1).sum()
    assert found.missing_targets == lacking.sum()
    assert found.constant_features == ()
    plan = plan_fit(source)
    assert (plan.n_samples, plan.n_features, plan.n_classes) == (*X.shape, 3)


def test_the_rows_of_the_table_lack_what_they_should(stores: Stores) -> None:
    for kind in KINDS:
        path = stores(kind, 2)
        for values, again in zip(decoded(path), decoded(stores(kind, 3)), strict=True):
            np.testing.assert_array_equal(values, again)
        assert (kind == "packed without fill") == decoded(path).kept.all()
