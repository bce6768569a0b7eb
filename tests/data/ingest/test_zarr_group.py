from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem

from dsoftmax.data import chunk_listing
from dsoftmax.data.ingest import zarr_group
from dsoftmax.data.ingest.ingestion import ingest
from dsoftmax.errors import ChunkError, DataError, OutageError
from tests.object_store import Bucket

LAYOUTS: dict[str, dict[str, Any]] = {
    "format 2": {"zarr_format": 2, "chunks": (7, 5)},
    "chunked along features": {"chunks": (10, 2)},
    "one column a chunk": {"chunks": (50, 1)},
    "sharded": {"chunks": (5, 2), "shards": (20, 4)},
    "one row a chunk": {"chunks": (1, 5)},
}


def save(path: Any, X: np.ndarray, y: np.ndarray, *, zarr_format: Any = 3, **layout: Any) -> Any:
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.create_array("X", shape=X.shape, dtype=X.dtype, **layout)[:] = X
    dtype = "string" if y.dtype.kind == "T" else y.dtype
    group.create_array("y", shape=y.shape, dtype=dtype, chunks=(13,))[:] = y
    return path


def held(store: Path) -> tuple[np.ndarray, np.ndarray]:
    group = zarr.open_group(store, mode="r")
    return group["X"][:], group["y"][:]


def data(rows: int = 50, columns: int = 5, dtype: str = "u1") -> tuple[np.ndarray, np.ndarray]:
    X = np.arange(rows * columns).reshape(rows, columns).astype(dtype)
    return X, np.arange(rows)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("most_bytes", [20, 1 << 26])
def test_any_layout_becomes_chunks_of_whole_rows(
    tmp_path: Path, layout: str, most_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zarr_group, "_MOST_BYTES", most_bytes)
    X, y = data()
    source = save(tmp_path / "in.zarr", X, y, **LAYOUTS[layout])
    out = ingest(source, tmp_path / "out.zarr", x="X", y="y", chunk_rows=12)
    got = held(Path(out))
    np.testing.assert_array_equal(got[0], X)
    np.testing.assert_array_equal(got[1], y)
    array = zarr.open_array(f"{out}/X", mode="r")
    assert array.chunks == (12, 5)
    assert array.metadata.zarr_format == 3
    assert "checksum" in str(array.compressors)


@pytest.mark.parametrize("dtype", ["?", "i2", "u8", "f2", "f4", "f8", ">i4", ">f8"])
def test_any_real_dtype_survives(tmp_path: Path, dtype: str) -> None:
    X, y = data(dtype=dtype)
    source = save(tmp_path / "in.zarr", X, y, zarr_format=2, chunks=(7, 5))
    out = ingest(source, tmp_path / "out.zarr")
    got = held(Path(out))[0]
    np.testing.assert_array_equal(got, X)
    assert got.dtype == X.dtype.newbyteorder("=")


@pytest.mark.parametrize("dtype", ["U7", np.dtypes.StringDType()])
@pytest.mark.parametrize("shuffle", [None, 1])
def test_string_labels_of_both_kinds_survive(
    tmp_path: Path, dtype: Any, shuffle: int | None
) -> None:
    X, y = data()[0], np.array(["deer", "", "été", "a longer one", "b"] * 10, dtype)
    source = save(tmp_path / "in.zarr", X, y, zarr_format=2, chunks=(7, 5))
    out = ingest(source, tmp_path / "out.zarr", shuffle=shuffle)
    got_X, got_y = held(Path(out))
    assert sorted(zip(got_X[:, 0], got_y, strict=True)) == sorted(zip(X[:, 0], y, strict=True))


def test_names_of_features_are_passed_on(tmp_path: Path) -> None:
    source = save(tmp_path / "in.zarr", *data(columns=2), chunks=(50, 2))
    zarr.open_group(source)["X"].attrs["feature_names"] = ["a", "b"]
    out = ingest(source, tmp_path / "out.zarr")
    assert zarr.open_array(f"{out}/X", mode="r").attrs["feature_names"] == ["a", "b"]


def test_arrays_of_other_names_and_deeper_groups_are_found(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "in.zarr", mode="w")
    X, y = data()
    group["train/images"], group["labels"] = X, y
    source = tmp_path / "in.zarr"
    out = ingest(source, tmp_path / "out.zarr", x="train/images", y="labels")
    np.testing.assert_array_equal(held(Path(out))[0], X)
    with pytest.raises(DataError, match=r"holds labels \(50,\) int64; got x=None, y=None"):
        ingest(source, tmp_path / "other.zarr")
    with pytest.raises(DataError, match="train is a Zarr group, not an array"):
        ingest(source, tmp_path / "other.zarr", x="train", y="labels")
    with pytest.raises(DataError, match=r"got x=\['labels'\]"):
        ingest(source, tmp_path / "other.zarr", x=["labels"], y="labels")


def test_a_group_can_come_from_a_url(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    X, y = data()
    url = "memory://zarrcopy/in.zarr"
    group = zarr.open_group(url, mode="w")
    group["X"], group["y"] = X, y
    out = ingest(url, tmp_path / "out.zarr", shuffle=0)
    assert sorted(held(Path(out))[1]) == y.tolist()
    with pytest.raises(DataError, match="both source and destination"):
        ingest(out, out, overwrite=True)


def test_what_is_no_group_is_refused(tmp_path: Path) -> None:
    X, y = data()
    source = save(tmp_path / "in.zarr", X, y, chunks=(50, 5))
    (tmp_path / "notes.txt").write_text("years of work")
    for place in (source / "X", tmp_path / "notes.txt", tmp_path):
        with pytest.raises(DataError, match=r"no group of Zarr arrays.*ends in \.npz, \.npy"):
            ingest(place, tmp_path / "out.zarr")
    with pytest.raises(FileNotFoundError):
        ingest(tmp_path / "absent.zarr", tmp_path / "out.zarr")


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((4, 2, 2)), np.zeros(4), r"expected \(n_samples, n_features\)"),
        (np.zeros((4, 2)), np.zeros((4, 3)), r"expected \(n_samples,\)"),
        (np.zeros((4, 2)), np.zeros(5), "one label for each row"),
        (np.zeros((0, 2)), np.zeros(0), "empty"),
        (np.zeros((4, 2), "c16"), np.zeros(4), "real numbers: convert"),
    ],
)
def test_unusable_arrays_are_refused(
    tmp_path: Path, X: np.ndarray, y: np.ndarray, message: str
) -> None:
    group = zarr.open_group(tmp_path / "in.zarr", mode="w")
    group["X"], group["y"] = X, y
    with pytest.raises(DataError, match=message):
        ingest(tmp_path / "in.zarr", tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


def test_a_damaged_chunk_is_named_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zarr_group, "_MOST_BYTES", 50)
    source = save(tmp_path / "in.zarr", *data(), chunks=(10, 5))
    (source / "X" / "c" / "2" / "0").write_bytes(b"damage")
    with pytest.raises(
        ChunkError, match=r"in\.zarr/X: chunk c/2/0 \(rows 20 to 29\) cannot be read"
    ):
        ingest(source, tmp_path / "out.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["in.zarr"]


def test_a_store_that_fails_once_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = data()
    url = "memory://busy/in.zarr"
    save(url, X, y, chunks=(10, 5))
    read, failed = MemoryFileSystem.cat_file, set()

    def busy(self: MemoryFileSystem, path: str, *rest: Any, **options: Any) -> bytes:
        if "/c/" in path and path not in failed:
            failed.add(path)
            raise OSError(errno.EBUSY, "503 Slow Down")
        return bytes(read(self, path, *rest, **options))

    monkeypatch.setattr(MemoryFileSystem, "cat_file", busy)
    with dask.config.set({"dsoftmax.retry-delay": "1ms"}):
        out = ingest(url, tmp_path / "out.zarr")
    assert len(failed) == 9
    np.testing.assert_array_equal(held(Path(out))[0], X)
    failed.clear()
    with dask.config.set({"dsoftmax.read-retries": 0}), pytest.raises(OutageError, match="503"):
        ingest(url, tmp_path / "other.zarr")


def test_a_group_is_opened_with_the_storage_options_of_this_process(
    tmp_path: Path, bucket: Bucket
) -> None:
    X, y = data()
    url = f"{bucket.url}/in.zarr"
    group = zarr.open_group(url, mode="w", storage_options=bucket.options)
    group["X"], group["y"] = X, y
    out = ingest(url, tmp_path / "out.zarr")
    np.testing.assert_array_equal(held(Path(out))[0], X)


def test_a_store_of_ours_that_has_lost_a_chunk_is_refused(tmp_path: Path) -> None:
    whole = ingest(save(tmp_path / "in.zarr", *data(), chunks=(10, 5)), tmp_path / "whole.zarr")
    (Path(whole) / "X" / "c" / "0" / "0").unlink()
    with pytest.raises(ChunkError, match="has lost 1 of its 1 chunks"):
        ingest(whole, tmp_path / "out.zarr")


def test_arrays_are_listed_once_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "in", *data())
    listed: list[str] = []

    def list_chunks(array: Any) -> Any:
        listed.append(array.path or str(array.store.root))
        return chunk_listing.list_chunks(array)

    monkeypatch.setattr("dsoftmax.data.zarr_array.list_chunks", list_chunks)
    zarr_group.rows_of_group(tmp_path / "in", None, None)
    assert [place.rsplit("/", 1)[-1] for place in listed] == ["X", "y"]
