from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from dsoftmax import open_data
from dsoftmax.storage.zarr_timing import decoded_here, decoding, timed

Store = Callable[..., str]
SECONDS = 0.2
ROWS = 80


class SlowStore(LocalStore):
    """A folder far away: every chunk takes a while to come."""

    async def get(self, key: str, *arguments: Any, **options: Any) -> Buffer | None:
        if "/c" in f"/{key}" and "zarr.json" not in key:
            await asyncio.sleep(SECONDS)
        return await super().get(key, *arguments, **options)


@pytest.fixture(params=["chunks", "shards", "format 2"])
def slow(request: pytest.FixtureRequest, tmp_path: Any) -> Callable[[int], zarr.Array[Any]]:
    def build(chunks: int) -> zarr.Array[Any]:
        form = 2 if request.param == "format 2" else 3
        shards = (ROWS, 4) if request.param == "shards" else None
        encoding = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if form == 2 else {}
        array = zarr.create_array(
            tmp_path / "X/c",
            shape=(ROWS, 4),
            chunks=(ROWS // chunks, 4),
            shards=shards,
            dtype="f4",
            zarr_format=form,
            **encoding,
        )
        array[...] = np.arange(4 * ROWS).reshape(ROWS, 4)
        return zarr.open_array(SlowStore(tmp_path / "X"), path="c", mode="r")

    return build


@pytest.mark.parametrize("chunks", [1, 8])
def test_waiting_for_the_store_is_no_decoding(
    slow: Callable[[int], zarr.Array[Any]], chunks: int
) -> None:
    array = timed(slow(chunks))
    before, started = decoded_here(), time.perf_counter()
    with decoding():
        rows = array[...]
    seconds = time.perf_counter() - started
    assert np.array_equal(rows, np.arange(4 * ROWS).reshape(ROWS, 4))
    assert seconds > SECONDS
    assert decoded_here() - before <= seconds - 0.9 * SECONDS


def test_all_else_in_the_block_is_decoding() -> None:
    before = decoded_here()
    with decoding():
        time.sleep(0.05)
    assert decoded_here() - before >= 0.05


def test_each_thread_counts_its_own() -> None:
    found = []

    def work() -> None:
        with decoding():
            time.sleep(0.05)
        found.append(decoded_here())

    before = decoded_here()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0] >= 0.05
    assert decoded_here() == before


def test_a_read_that_fails_is_counted_too(tmp_path: Any) -> None:
    array = zarr.create_array(tmp_path / "X", shape=(8,), chunks=(8,), dtype="f4")
    array[...] = 1
    (tmp_path / "X/c/0").write_bytes(b"no zstd")
    before = decoded_here()
    with pytest.raises(Exception, match=r"(?i)zstd"), decoding():
        timed(array)[...]
    assert decoded_here() > before


def test_the_bytes_are_those_of_an_array_that_is_not_timed(tmp_path: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 3))
    group = zarr.open_group(tmp_path, mode="w")
    group.create_array("X", shape=rows.shape, chunks=(7, 2), dtype="f8")[...] = rows
    group.create_array("y", shape=(30,), chunks=(9,), dtype="i8")[...] = np.arange(30)
    chunk = open_data(f"{tmp_path}/X", f"{tmp_path}/y").read(3, 29)
    assert np.array_equal(chunk.X, rows[3:29])
    assert np.array_equal(chunk.codes, np.arange(3, 29))


@pytest.mark.parametrize("where", [(0, 10), (90, 95), (3, 7), (5, 25)])
def test_rows_are_the_same_whether_or_not_they_are_handed_over_without_a_copy(
    store: Store, where: tuple[int, int]
) -> None:
    X = np.random.default_rng(0).normal(size=(95, 3)).astype(">f4")
    path = store(rows=10, X=X)
    array = timed(zarr.open_array(f"{path}/X", mode="r"))
    read = np.asarray(array[slice(*where)])
    np.testing.assert_array_equal(read, X[slice(*where)])
    assert read.dtype == zarr.open_array(f"{path}/X", mode="r")[:1].dtype
    assert read.base is None or read.base.nbytes <= 10 * 3 * 4


def test_a_chunk_that_was_never_written_is_its_fill_value(tmp_path: Path) -> None:
    empty = zarr.create_array(
        tmp_path / "X", shape=(20, 3), chunks=(10, 3), dtype="i2", fill_value=7
    )
    assert (np.asarray(timed(empty)[:10]) == 7).all()
    assert (np.asarray(timed(empty)[5:15]) == 7).all()
