"""Encoded arrays are ingested as they are stored, with the attributes that decode them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from dsoftmax import DataError, SoftmaxRegression, ingest, open_data
from tests.data import encoded
from tests.data.encoded import FORMATS, KINDS, decoded


@pytest.mark.filterwarnings("ignore:.* rows are left out")
@pytest.mark.parametrize("zarr_format", FORMATS)
@pytest.mark.parametrize(
    "kind",
    [k if k == "everything" else pytest.param(k, marks=pytest.mark.slow) for k in KINDS],
)
def test_a_fit_of_the_ingested_store_is_that_of_the_original(
    tmp_path: Path, kind: str, zarr_format: int
) -> None:
    before = encoded.write(tmp_path / "in.zarr", kind, zarr_format)
    after = ingest(before, tmp_path / "out.zarr", chunk_rows=64)
    for name in ("X", "y"):
        stored = zarr.open_array(f"{after}/{name}", mode="r")
        assert stored.dtype == zarr.open_array(f"{before}/{name}", mode="r").dtype
        np.testing.assert_array_equal(stored[:], zarr.open_array(f"{before}/{name}", mode="r")[:])
    coefs = [
        SoftmaxRegression(alpha=0.05, tol=1e-9)
        .fit(open_data(f"{place}/X", f"{place}/y", missing="drop", dtype="float64"))
        .coef_
        for place in (before, after)
    ]
    np.testing.assert_allclose(*coefs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_shuffled_rows_keep_what_they_stand_for(tmp_path: Path, zarr_format: int) -> None:
    before = encoded.write(tmp_path / "in.zarr", "everything", zarr_format)
    after = ingest(before, tmp_path / "out.zarr", shuffle=3)
    source = open_data(f"{after}/X", f"{after}/y", dtype="float64", missing="drop")
    chunk = source.read(0, encoded.ROWS)
    X, y, *_ = decoded(before)
    good = np.isfinite(X).all(axis=1) & np.isfinite(y)
    got = np.column_stack([chunk.decoded(np.dtype("f8")), chunk.codes])[chunk.used]
    expected = np.column_stack([X, y])[good]
    np.testing.assert_allclose(
        got[np.lexsort(got.T)], expected[np.lexsort(expected.T)], rtol=1e-6, atol=1e-6
    )


def test_attributes_that_cannot_be_followed_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    before = encoded.write(tmp_path / "in.zarr", "packed", 3)
    zarr.open_group(before)["X"].attrs["scale_factor"] = "high"
    with pytest.raises(DataError, match="scale_factor = 'high'; expected a number"):
        ingest(before, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()
