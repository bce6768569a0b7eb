"""What is masked is missing, wherever a masked array is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from dsoftmax import (
    DataError,
    SoftmaxRegression,
    SoftmaxRegressionCV,
    inspect_data,
    open_data,
    plan_fit,
)

pytestmark = pytest.mark.filterwarnings("ignore:.* rows are left out")

X = np.array([[0.0], [1], [2], [1e6]])
Y = np.array([0, 1, 1, 0])
LAST = np.array([False, False, False, True])
RIGHT = 4.0328  # the coefficient of the first three rows, with alpha=0.01


def masked(values: Any, **options: Any) -> Any:
    """Return values of which the last row is masked."""
    values = np.asarray(values)
    return np.ma.masked_array(values, LAST.reshape(-1, *(1,) * (values.ndim - 1)), **options)


def blocks(values: Any, chunks: Any) -> da.Array:
    """Return a Dask array of masked blocks, of which its metadata know nothing."""
    lazy = da.zeros(values.shape, chunks=chunks, dtype=values.dtype)
    meta = np.empty((0,) * values.ndim, values.dtype)
    return lazy.map_blocks(_block_of, values, meta=meta, dtype=values.dtype)


def _block_of(block: Any, values: Any, block_info: Any = None) -> Any:
    return values[tuple(slice(*axis) for axis in block_info[0]["array-location"])]


def coef(*arrays: Any, **options: Any) -> float:
    source = open_data(*arrays, **{"missing": "drop", **options})
    return float(SoftmaxRegression(alpha=0.01, tol=1e-8).fit(source).coef_[0, 0])


MASKED: dict[str, Callable[[], tuple[Any, ...]]] = {
    "X": lambda: (masked(X), Y),
    "X with a hard mask": lambda: (masked(X, hard_mask=True), Y),
    "X of integers": lambda: (masked(X.astype(int)), Y),
    "X of small integers": lambda: (masked(X.clip(0, 9).astype("u1")), Y),
    "X of objects": lambda: (masked(X.astype(object)), Y),
    "X as a list of masked rows": lambda: (list(masked(X)), Y),
    "X of Dask blocks": lambda: (blocks(masked(X), (2, 1)), Y),
    "X of Dask blocks of integers": lambda: (blocks(masked(X.astype(int)), (3, 1)), Y),
    "X of Dask's masked arrays": lambda: (da.from_array(masked(X), chunks=2), Y),
    "X as da.ma makes it": lambda: (da.ma.masked_equal(da.from_array(X, chunks=2), 1e6), Y),
    "X in a DataArray": lambda: (xr.DataArray(masked(X), dims=("i", "f")), Y),
    "y": lambda: (X, masked([0, 1, 1, 7])),
    "y as a column": lambda: (X, masked([[0], [1], [1], [7]])),
    "y of booleans": lambda: (X, masked([False, True, True, True])),
    "y of strings": lambda: (X, masked(["a", "b", "b", "no data"])),
    "y of objects": lambda: (X, masked(np.array(["a", "b", "b", None], object))),
    "y as a list": lambda: (X, [0, 1, 1, np.ma.masked]),
    "y of Dask blocks": lambda: (X, blocks(masked([0, 1, 1, 7]), 2)),
    "y in a DataArray": lambda: (X, xr.DataArray(masked([0, 1, 1, 7]), dims=("i",))),
    "weights": lambda: (X, Y, masked([1, 1, 1, 99])),
    "weights of Dask blocks": lambda: (X, Y, blocks(masked([1.0, 1, 1, 99]), 2)),
}


@pytest.mark.filterwarnings("ignore:.*converting a masked element to nan")
@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
@pytest.mark.parametrize("what", MASKED)
def test_a_masked_row_is_left_out_or_is_an_error(what: str) -> None:
    assert coef(*MASKED[what]()) == pytest.approx(RIGHT, abs=1e-4)
    message = r"(a masked value|not finite \(NaN|a missing label|a missing value).*(missing='drop')"
    with pytest.raises(DataError, match=message):
        coef(*MASKED[what](), missing="raise")


def test_ignore_label_nan_stands_for_masked_labels() -> None:
    assert coef(X, masked([0, 1, 1, 7]), missing="raise", ignore_label=float("nan")) == (
        pytest.approx(RIGHT, abs=1e-4)
    )


def test_a_mask_that_hides_nothing_changes_no_bit() -> None:
    plain = SoftmaxRegression(alpha=0.01).fit(X[:3], Y[:3])
    for given in (np.ma.masked_array(X[:3]), np.ma.masked_array(X[:3], mask=np.zeros((3, 1)))):
        model = SoftmaxRegression(alpha=0.01).fit(given, np.ma.masked_array(Y[:3]))
        assert model.coef_.tobytes() == plain.coef_.tobytes()
        assert model.predict(given).tolist() == [0, 1, 1]


def test_all_rows_masked_are_one_clear_error() -> None:
    with pytest.raises(DataError, match="all 4 rows are left out"):
        coef(np.ma.masked_all((4, 1)), Y)


@pytest.mark.parametrize("lazy", [False, True])
def test_masked_values_of_a_cube_are_those_of_its_rows(lazy: bool) -> None:
    rng = np.random.default_rng(0)
    y = np.ma.masked_array(rng.integers(0, 3, (6, 5)), rng.random((6, 5)) < 0.2)
    cube = np.ma.masked_array(rng.normal(size=(6, 5, 2)), rng.random((6, 5, 2)) < 0.1)
    kept = ~(y.mask | cube.mask.any(axis=-1))
    arrays = (blocks(cube, (4, 3, 2)), blocks(y, (5, 2))) if lazy else (cube, y)
    expected = SoftmaxRegression(tol=1e-9, alpha=0.1).fit(cube.data[kept], y.data[kept])
    model = SoftmaxRegression(tol=1e-9, alpha=0.1).fit(open_data(*arrays, missing="drop"))
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-6)


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "partial_fit": lambda X, y: SoftmaxRegression().partial_fit(X, y, classes=[0, 1]),
    "fit with X_val": lambda X, y: SoftmaxRegression().fit([[0], [1]], [0, 1], X_val=X, y_val=y),
    "evaluate": lambda X, y: SoftmaxRegression().fit([[0], [1]], [0, 1]).evaluate(X, y),
    "score": lambda X, y: SoftmaxRegression().fit([[0], [1]], [0, 1]).score(X, y),
    "search": lambda X, y: SoftmaxRegressionCV(alphas=[0.1], cv=2).fit(X, y),
    "search with masked folds": lambda _, y: SoftmaxRegressionCV(
        alphas=[0.1], cv=masked([0, 1, 0, 1])
    ).fit([[0.0], [1], [2], [3]], [0, 1, 0, 1]),
}


@pytest.mark.parametrize("call", CALLS)
def test_no_call_takes_what_is_masked_for_a_value(call: str) -> None:
    for arrays in ((masked(X), Y), (X, masked([0, 1, 1, 0])), (blocks(masked(X), (2, 1)), Y)):
        with pytest.raises(DataError, match=r"masked value|not finite|missing label|missing value"):
            CALLS[call](*arrays)


def test_inspect_and_plan_count_what_is_masked() -> None:
    for arrays in ((masked(X), masked([0, 1, 1, 7])), (blocks(masked(X), 2), blocks(masked(Y), 2))):
        found = inspect_data(*arrays)
        assert (found.non_finite_values, found.missing_targets) == (1, 1)
        assert found.class_counts == {0: 1, 1: 2}
        assert plan_fit(open_data(*arrays, missing="drop")).n_classes == 2
