"""Decoded chunks that workers remember save reads, and change no bit."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from distributed import Client

from dsoftmax import DataError, open_data
from dsoftmax.data import zarr_array
from dsoftmax.data.source import Source
from dsoftmax.objective.objective import partial_gradient
from dsoftmax.objective.reduction import Reduction
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.reduce import Pass, full_pass
from dsoftmax.runtime.select import executor_for
from dsoftmax.runtime.spans import cut_spans
from dsoftmax.runtime.threads import ThreadExecutor

Store = Callable[..., str]

ROWS, CHUNK = 95, 10
pytestmark = pytest.mark.usefixtures("small_spans")


@pytest.fixture
def source(store: Store) -> Source:
    rng = np.random.default_rng(0)
    path = store(rows=CHUNK, X=rng.normal(size=(ROWS, 3)).astype("f4"), y=np.arange(ROWS) % 4)
    return open_data(f"{path}/X", f"{path}/y").with_classes(np.arange(4))


def one_pass(
    executor: Executor, source: Source, run: str | None, *, batch: bool = False
) -> tuple[bytes, int]:
    """Return the bits of a gradient, and how many spans were decoded for it."""
    points = np.random.default_rng(1).normal(size=(1, 4, 4)).astype("f4")
    kernel = partial(partial_gradient, points=points, shift=None)
    spans = cut_spans(source.chunks, source.row_bytes)
    cache_name = None if run is None else f"{executor.run_key}-{run}"
    read = Pass(executor, source, full_pass(spans), cache_name=cache_name, batch=batch)
    sums, cost = read.reduce(Reduction("partial_gradient", kernel, operator.add))
    assert cost.rows == ROWS
    return sums.gradient.tobytes() + sums.loss.tobytes(), cost.reads


def test_the_second_pass_decodes_nothing_and_has_the_same_bits(source: Source) -> None:
    with ThreadExecutor() as executor:
        first, second = (one_pass(executor, source, "a") for _ in range(2))
        without = one_pass(executor, source, None)
    assert (first[1], second[1], without[1]) == (10, 0, 10)
    assert first[0] == second[0] == without[0]


def test_workers_of_a_cluster_remember_what_they_have_read(cluster: Client, source: Source) -> None:
    with executor_for(source) as executor:
        passes = [one_pass(executor, source, "a") for _ in range(3)]
    assert passes[0][1] == 10
    # An idle worker may take tasks of another one, and decodes their chunks once.
    assert sum(reads for _, reads in passes) <= 20
    assert len({bits for bits, _ in passes}) == 1


def test_of_data_that_do_not_fit_the_same_part_is_remembered(source: Source) -> None:
    chunk = CHUNK * (3 * 4 + 8)
    with dask.config.set({"dsoftmax.cache": 4 * chunk}), ThreadExecutor() as executor:
        reads = [one_pass(executor, source, "a")[1] for _ in range(4)]
    # Four chunks, or the short last one and three more.
    assert reads[0] == 10
    assert reads[1:] == [6] * 3


@pytest.mark.parametrize("setting", [0, "0 B"])
def test_nothing_is_remembered_where_that_is_switched_off(source: Source, setting: Any) -> None:
    with dask.config.set({"dsoftmax.cache": setting}), ThreadExecutor() as executor:
        assert [one_pass(executor, source, "a")[1] for _ in range(2)] == [10, 10]


def labels_held(path: Path, setting: Any, *, batch: bool) -> list[tuple[int, ...]]:
    """Return which chunks of y, each of the rows of three of X, are held after all are read.

    The last one has the rows of one: it is read whole, and not held.
    """
    rng = np.random.default_rng(0)
    zarr.create_array(path / "X", data=rng.normal(size=(ROWS, 3)), chunks=(CHUNK, 3))
    zarr.create_array(path / "y", data=np.arange(ROWS) % 4, chunks=(3 * CHUNK,))
    source = open_data(path / "X", path / "y").with_classes(np.arange(4))
    zarr_array.forget_chunks()
    with dask.config.set({"dsoftmax.cache": setting}), ThreadExecutor() as executor:
        executor.slots = 1
        one_pass(executor, source, "a", batch=batch)
        return [(row // (3 * CHUNK),) for _, _, (row,) in zarr_array._chunk_cache]


def test_mini_batches_remember_chunks_of_labels(tmp_path: Path) -> None:
    assert labels_held(tmp_path, "1 MiB", batch=True) == [(0,), (1,), (2,)]


@pytest.mark.parametrize(("setting", "batch"), [("1 MiB", False), (0, False), (0, True)])
def test_who_reads_in_order_remembers_the_chunk_of_labels_that_was_used_last(
    tmp_path: Path, setting: Any, batch: bool
) -> None:
    assert labels_held(tmp_path, setting, batch=batch) == [(2,)]


def test_a_run_that_ends_leaves_no_labels(tmp_path: Path) -> None:
    labels_held(tmp_path, "1 MiB", batch=True)
    assert list(zarr_array._chunk_cache) == []


def test_a_process_that_has_much_memory_already_remembers_no_more(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsoftmax.runtime.reduce.ceiling", lambda limit: 1 << 20)
    with ThreadExecutor() as executor:
        assert [one_pass(executor, source, "a")[1] for _ in range(2)] == [10, 10]


@pytest.mark.parametrize("setting", ["much", "-1", [1]])
def test_a_setting_that_is_no_number_of_bytes_is_refused(source: Source, setting: Any) -> None:
    with (
        dask.config.set({"dsoftmax.cache": setting}),
        ThreadExecutor() as executor,
        pytest.raises(DataError, match=r"dsoftmax\.cache is .*; expected bytes, such as 0"),
    ):
        one_pass(executor, source, "a")


def test_another_run_takes_the_room_of_one_that_was_not_ended(source: Source) -> None:
    with (
        dask.config.set({"dsoftmax.cache": ROWS * (3 * 4 + 8)}),
        ThreadExecutor() as executor,
    ):
        reads = [one_pass(executor, source, run)[1] for run in "aabba"]
    assert reads == [10, 0, 10, 0, 10]


def test_a_run_that_ends_leaves_nothing(source: Source) -> None:
    with ThreadExecutor() as executor:
        one_pass(executor, source, "a")
    with ThreadExecutor() as again:
        again.run_key = executor.run_key
        assert one_pass(again, source, "a")[1] == 10
