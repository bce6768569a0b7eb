"""What is said of data is so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dsoftmax import ChunkError, ingest, inspect_data

Store = Callable[..., str]


def test_what_is_found_is_what_numpy_finds(store: Store) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(250, 5)).astype("f4")
    X[:, 3] = 2.5
    X[7, 1], X[7, 2], X[120, 0] = np.nan, np.inf, -np.inf
    y = np.repeat(["a", "b"], 125)
    path = store(rows=50, X=X, y=y)
    found = inspect_data(f"{path}/X", f"{path}/y")
    assert (found.n_samples, found.n_features) == X.shape
    assert (found.non_finite_values, found.non_finite_rows) == (3, 2)
    assert found.constant_features == (3,)
    assert found.class_counts == {"a": 125, "b": 125}
    assert found.classes_in_a_chunk == (1, 1.2, 2)
    assert found.one_class_chunks == 4
    assert found.unreadable == ()
    text = str(found)
    for said in ("3 values in 2 rows", "labels seem to be sorted", "no checksum", "missing='drop'"):
        assert said in text


def test_chunks_that_are_lost_or_damaged_are_listed_and_the_rest_is_told_of(
    tmp_path: Path,
) -> None:
    X, y = np.arange(600.0).reshape(200, 3), np.arange(200) % 5
    np.savez(tmp_path / "d.npz", X=X, y=y)
    path = tmp_path / "d.zarr"
    ingest(tmp_path / "d.npz", path, x="X", y="y", chunk_rows=50)
    (path / "X" / "c" / "1" / "0").unlink()
    damaged = path / "X" / "c" / "3" / "0"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    found = inspect_data(path / "X", path / "y")
    assert [reason.partition("chunk ")[2][:5] for reason in found.unreadable] == ["c/1/0", "c/3/0"]
    assert found.class_counts == dict.fromkeys(range(5), 20)
    stored = found.arrays["X"].stored
    assert stored is not None
    assert (stored.n_objects, stored.absent_objects, stored.checksum) == (4, 1, True)
    assert "2 chunks of X cannot be read" in str(found)


def test_data_of_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", X=np.eye(4), y=np.arange(4) % 2)
    ingest(tmp_path / "d.npz", tmp_path / "d.zarr", x="X", y="y")
    (tmp_path / "d.zarr" / "X" / "c" / "0" / "0").unlink()
    with pytest.raises(ChunkError, match="c/0/0"):
        inspect_data(tmp_path / "d.zarr" / "X")
