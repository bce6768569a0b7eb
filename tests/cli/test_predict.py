"""Predictions from the command line, of rows with missing values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from dsoftmax import SoftmaxRegression
from tests.conftest import Dsoftmax

Store = Callable[..., str]


@pytest.fixture
def data(store: Store, tmp_path: Path) -> str:
    """Rows of which the last is missing, and models of numbers and of names."""
    X = np.random.default_rng(0).normal(size=(250, 3)).astype("f4")
    y = X.argmax(axis=1)
    SoftmaxRegression(tol=1e-2).fit(X, y).save(tmp_path / "m.zarr")
    names = np.array(["a", "b", "c"])[y]
    SoftmaxRegression(tol=1e-2).fit(X, names).save(tmp_path / "names.zarr")
    X[-1, 2] = np.nan
    return store(rows=100, X=X, y=y)


def test_probabilities_of_missing_rows_are_nan_with_the_option_of_train_or_without(
    data: str, tmp_path: Path, dsoftmax: Dsoftmax
) -> None:
    for out, options in (("p.zarr", ()), ("q.zarr", ("--drop-missing",))):
        done = dsoftmax("predict", "m.zarr", data, out, *options)
        assert done.returncode == 0, done.stderr
        p = zarr.open_array(tmp_path / out)[...]
        assert p.shape == (250, 3)
        assert np.isnan(p).any(axis=1).nonzero()[0].tolist() == [249]


@pytest.mark.parametrize(
    ("model", "label", "expected"),
    [("m.zarr", "-1", -1), ("m.zarr", "nan", np.nan), ("names.zarr", "no data", "no data")],
)
def test_labels_of_missing_rows_are_the_one_that_is_named(
    data: str, tmp_path: Path, dsoftmax: Dsoftmax, model: str, label: str, expected: object
) -> None:
    options = ("--method", "predict", "--drop-missing", "--missing-label", label)
    done = dsoftmax("predict", model, data, "p.zarr", *options)
    assert done.returncode == 0, done.stderr
    labels = zarr.open_array(tmp_path / "p.zarr")[...]
    np.testing.assert_array_equal(labels[-1:], np.array([expected]))
    assert len(set(labels[:-1].tolist())) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "on the command line: --missing-label LABEL"),
        (("--drop-missing",), "needs --missing-label LABEL"),
        (("--missing-label", "none"), "--missing-label is 'none'"),
    ],
)
def test_labels_of_missing_rows_are_not_guessed(
    data: str, tmp_path: Path, dsoftmax: Dsoftmax, options: tuple[str, ...], message: str
) -> None:
    done = dsoftmax("predict", "m.zarr", data, "p.zarr", "--method", "predict", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.glob("p.zarr*"))


def test_evaluate_says_how_many_rows_it_left_out(data: str, dsoftmax: Dsoftmax) -> None:
    with pytest.warns(UserWarning, match="1 of 250 rows are left out"):
        done = dsoftmax("evaluate", "m.zarr", data, "--drop-missing", "--json")
    assert '"n_samples": 249' in done.stdout
    assert dsoftmax("evaluate", "m.zarr", data).returncode == 2


def test_stored_numbers_are_read_as_they_are_with_no_decode(
    dsoftmax: Dsoftmax, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    raw, y = rng.integers(0, 1000, (60, 3)).astype("i2"), rng.integers(0, 3, 60)
    group = zarr.open_group(tmp_path / "packed", mode="w")
    packing = {"scale_factor": 0.01, "add_offset": -5.0}
    for name, values, attributes in (("X", raw, packing), ("y", y, {})):
        group.create_array(name, data=values, attributes=attributes)
    for option, features in (("--decode", raw * 0.01 - 5.0), ("--no-decode", raw * 1.0)):
        stores = f"m{option}.zarr", f"p{option}.zarr"
        dtype = ("--dtype", "float64")
        assert dsoftmax("train", "packed", stores[0], option, *dtype).returncode == 0
        assert dsoftmax("predict", stores[0], "packed", stores[1], option).returncode == 0
        expected = SoftmaxRegression().fit(features, y).predict_proba(features)
        found = np.asarray(zarr.open_array(tmp_path / stores[1])[:])
        np.testing.assert_allclose(found, expected, atol=1e-5)
        report = dsoftmax("inspect", "packed", option, "--json")
        assert report.returncode == 0
