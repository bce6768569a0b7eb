from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import zarr
from scipy.stats import chisquare

from dsoftmax.data.ingest import shuffle
from dsoftmax.data.ingest.ingestion import ingest
from dsoftmax.data.ingest.row_stream import ArraySpec, Block, RowStream
from dsoftmax.data.ingest.shuffle import shuffled
from dsoftmax.errors import DataError


def numbers(count: int, block: int = 7) -> RowStream:
    """Rows that are their own numbers."""
    X = np.arange(count)[:, None]

    def blocks() -> Iterator[Block]:
        return iter([{"X": X[start : start + block]} for start in range(0, count, block)])

    return RowStream("numbers", {"X": ArraySpec((count, 1), X.dtype)}, blocks)


def order(rows: RowStream) -> list[int]:
    return np.concatenate([block["X"][:, 0] for block in rows]).tolist()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Rows sorted by label, each of which names its label."""
    y = np.repeat(np.arange(10), 300)
    X = np.column_stack([np.arange(3000), y])
    np.savez(tmp_path / "sorted.npz", X=X, y=y)
    return tmp_path / "sorted.npz"


@pytest.mark.parametrize("count", [1, 2, 9, 1000])
def test_every_row_is_kept_once(tmp_path: Path, count: int) -> None:
    assert sorted(order(shuffled(numbers(count), 3, tmp_path))) == list(range(count))


def test_the_order_is_that_of_the_seed_and_no_other(tmp_path: Path) -> None:
    first, again, other = (order(shuffled(numbers(1000), seed, tmp_path)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("bucket_bytes", [16, 1000, 1 << 30])
@pytest.mark.parametrize("block", [1, 64, 1000])
def test_the_order_depends_neither_on_blocks_nor_on_buckets(
    tmp_path: Path, block: int, bucket_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = order(shuffled(numbers(1000), 1, tmp_path))
    monkeypatch.setattr(shuffle, "_BUCKET_BYTES", bucket_bytes)
    monkeypatch.setattr(shuffle, "_KEYS_AT_ONCE", 33)
    assert order(shuffled(numbers(1000, block), 1, tmp_path)) == expected


def test_every_order_is_equally_likely(tmp_path: Path) -> None:
    orders = Counter(tuple(order(shuffled(numbers(4), seed, tmp_path))) for seed in range(2400))
    assert len(orders) == 24
    assert chisquare(list(orders.values())).pvalue > 0.01


def test_every_position_is_equally_likely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffle, "_BUCKET_BYTES", 1 << 14)
    moved = np.array(order(shuffled(numbers(100_000, 4096), 0, tmp_path)))
    tenths = np.bincount(10 * (np.arange(100_000) // 10_000) + moved // 10_000, minlength=100)
    assert chisquare(tenths).pvalue > 0.01


def test_rows_keep_their_labels_and_every_chunk_is_mixed(archive: Path, tmp_path: Path) -> None:
    out = ingest(archive, tmp_path / "out.zarr", shuffle=5, chunk_rows=300)
    group = zarr.open_group(out, mode="r")
    X, y = group["X"][:], group["y"][:]
    np.testing.assert_array_equal(X[:, 1], y)
    assert sorted(X[:, 0]) == list(range(3000))
    for start in range(0, 3000, 300):
        assert np.bincount(y[start : start + 300], minlength=10).min() > 10
    assert group.attrs["dsoftmax"]["shuffle"] == 5


def test_the_same_seed_gives_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    stores = [ingest(archive, tmp_path / name, shuffle=7) for name in ("a.zarr", "b.zarr")]
    first, second = (
        {p.relative_to(s): p.read_bytes() for p in Path(s).rglob("*") if p.is_file()}
        for s in stores
    )
    assert first == second


@pytest.mark.parametrize("dtype", ["U4", np.dtypes.StringDType()])
def test_strings_keep_their_rows(tmp_path: Path, dtype: Any) -> None:
    X, y = np.arange(60)[:, None], np.array(["deer", "", "été"] * 20, dtype)
    specs = {"X": ArraySpec(X.shape, X.dtype), "y": ArraySpec(y.shape, y.dtype)}
    rows = RowStream(
        "strings", specs, lambda: iter([{"X": X[:31], "y": y[:31]}, {"X": X[31:], "y": y[31:]}])
    )
    for block in shuffled(rows, 0, tmp_path):
        assert block["y"].dtype == y.dtype
        np.testing.assert_array_equal(block["y"], y[block["X"][:, 0]])


def test_strings_that_are_no_labels_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shuffle, "_MOST_STRINGS", 5)
    np.savez(tmp_path / "a.npz", X=np.eye(6), y=np.array(list("abcdef")))
    with pytest.raises(DataError, match="y has more than 5 different strings"):
        ingest(tmp_path / "a.npz", tmp_path / "out.zarr", shuffle=0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


class Usage(NamedTuple):
    free: int


def test_too_small_a_disk_is_refused_before_anything_is_read(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(3000 * 32 - 1))
    with pytest.raises(DataError, match=r"needs 0\.0 GB of disk in .* free: make room"):
        ingest(archive, tmp_path / "out.zarr", shuffle=0)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(3000 * 32))
    ingest(archive, tmp_path / "out.zarr", shuffle=0)


def test_a_negative_seed_is_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="shuffle=-1; expected a seed of 0 or more"):
        ingest(archive, tmp_path / "out.zarr", shuffle=-1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_failed_shuffle_leaves_nothing_behind(
    archive: Path, tmp_path: Path, error: type[BaseException]
) -> None:
    def fail(rows_done: int, rows_total: int) -> None:
        assert {path.name.split(".partial")[0] for path in tmp_path.iterdir()} == {
            "sorted.npz",
            "out.zarr",
        }
        raise error

    with pytest.raises(error):
        ingest(archive, tmp_path / "out.zarr", shuffle=0, chunk_rows=10, progress=fail)
    assert list(tmp_path.iterdir()) == [archive]


def test_shuffling_into_a_new_folder_needs_no_such_folder(archive: Path, tmp_path: Path) -> None:
    out = ingest(archive, tmp_path / "new" / "folder" / "out.zarr", shuffle=0)
    assert zarr.open_group(out, mode="r")["X"].shape == (3000, 2)
