from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client, get_worker

from dsoftmax import DataError, DsoftmaxError, SoftmaxRegression, open_data
from dsoftmax.data.label_counts import label_counts
from dsoftmax.data.source import Source
from dsoftmax.errors import OutageError
from dsoftmax.events import FitStarted, StepEnded
from dsoftmax.runtime import local_cluster as local
from dsoftmax.runtime import select
from dsoftmax.runtime.cluster import ClusterExecutor
from dsoftmax.runtime.cost import Cost
from dsoftmax.runtime.reduce import Pass, full_pass, reduce
from dsoftmax.runtime.select import executor_for
from dsoftmax.runtime.spans import cut_spans
from dsoftmax.runtime.threads import ThreadExecutor
from tests.callbacks import Once

Store = Callable[..., str]


@pytest.fixture
def source(store: Store) -> Source:
    path = store(rows=10, X=np.ones((95, 3)), y=np.arange(95) % 4)
    return open_data(f"{path}/X", f"{path}/y")


def test_a_store_goes_to_the_active_cluster_and_numpy_stays_here(
    cluster: Client, source: Source
) -> None:
    assert isinstance(executor_for(source), ClusterExecutor)
    assert isinstance(executor_for(open_data(np.ones((3, 2)))), ThreadExecutor)


def test_a_small_store_without_a_cluster_stays_here(source: Source) -> None:
    assert isinstance(executor_for(source), ThreadExecutor)


def test_a_large_store_without_a_cluster_goes_to_the_embedded_one(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "_SMALL", 0)
    with executor_for(source) as executor:
        assert isinstance(executor, ClusterExecutor)
        assert executor.dashboard is not None
        assert executor.dashboard.startswith("http://127.0.0.1:")
        counts = count(executor, source)
    with pytest.raises(ValueError, match="No clients found"):
        Client.current()  # it never becomes the user's default
    local.close_embedded_cluster()
    np.testing.assert_array_equal(counts, [24, 24, 24, 23])


def count(executor: Any, source: Source) -> np.ndarray:
    spans = cut_spans(source.chunks, source.row_bytes)
    found, _ = reduce(executor, source, label_counts, full_pass(spans), targets_only=True)
    return found.counts


@pytest.mark.slow
def test_a_fit_inside_a_dask_task_runs_in_that_task(cluster: Client, source: Source) -> None:
    def fit_here() -> tuple[str, float]:
        where = executor_for(source)
        model = SoftmaxRegression(alpha=1.0).fit(source)
        return f"{type(where).__name__} {where.slots} {get_worker().name is not None}", model.loss_

    where, loss = cluster.submit(fit_here).result(timeout=60)
    assert where == "ThreadExecutor 1 True"
    assert loss == pytest.approx(SoftmaxRegression(alpha=1.0).fit(source).loss_, rel=1e-12)


def test_what_workers_cannot_read_is_refused_with_its_own_cause(cluster: Client) -> None:
    labels, X = [0, 1, 0, 1], np.eye(4)
    stored: Any = {"data": X, "chunks": (2, 4)}
    writing = open_data(da.from_array(X, chunks=(2, 4)), labels)
    given: dict[str, Any] = {
        "open in this process.*; pass its path or URL": open_data(
            zarr.create_array(zarr.storage.MemoryStore(), **stored), labels
        ),
        # As of a file of h5py, which is not among the test's packages.
        "HDF5 file that is open for writing.*mode 'r'": replace(
            writing,
            X=replace(writing.X, portable=False),  # type: ignore[type-var]
        ),
    }
    for message, source in given.items():
        with pytest.raises(DataError, match=message):
            SoftmaxRegression().fit(source)


def test_a_store_in_memory_is_read_in_this_process() -> None:
    array = zarr.create_array(zarr.storage.MemoryStore(), data=np.eye(4), chunks=(2, 4))
    assert SoftmaxRegression().fit(array, [0, 1, 0, 1]).score(array, [0, 1, 0, 1]) == 1


def test_labels_in_memory_travel_only_where_they_are_needed(cluster: Client) -> None:
    source = open_data(np.zeros((1000, 2)), np.arange(1000) % 7)
    part = source.part(300, 400)
    assert part.y is not None
    assert part.y.read(300, 302).tolist() == [300 % 7, 301 % 7]
    assert part.y.values.size == 100  # type: ignore[attr-defined]


def test_work_is_added_up_and_time_is_split(source: Source) -> None:
    seen: list[Cost] = []
    spans = cut_spans(source.chunks, source.row_bytes)
    with executor_for(source) as executor:
        from dsoftmax.objective.first_read import moments_of

        labelled = source.with_classes(np.arange(4))
        reduction = moments_of(4, source.dtype)
        _, cost = Pass(executor, labelled, full_pass(spans)).reduce(
            reduction, on_task_done=lambda task_result, _: seen.append(task_result.cost)
        )
    assert cost.rows == 95 == sum(work.rows for work in seen)
    assert cost.bytes == 95 * 3 * 8
    assert cost.reads == len(spans)
    busy = cost.time.read + cost.time.decode + cost.time.kernel
    assert 0 < busy <= cost.seconds * executor.slots


def test_a_pass_is_planned_once_while_the_workers_are_the_same(source: Source) -> None:
    spans = cut_spans(source.chunks, source.row_bytes)
    with executor_for(source) as executor:
        read = Pass(executor, source, full_pass(spans), targets_only=True)
        first = read.reduce(label_counts)[0], read._tasks
        again = read.reduce(label_counts)[0], read._tasks
        assert again[1] is first[1]
        executor.location = executor.location._replace(slots=executor.slots + 1)
        other = read.reduce(label_counts)[0], read._tasks
    assert other[1] is not first[1]
    for counts in (again[0], other[0]):
        np.testing.assert_array_equal(counts.counts, first[0].counts)


@pytest.mark.usefixtures("small_spans")
def test_a_task_that_fails_ends_the_fit_with_its_own_error(cluster: Client, store: Store) -> None:
    X = np.ones((95, 3))
    X[57, 2] = np.nan
    path = store(rows=10, X=X, y=np.arange(95) % 4)
    with pytest.raises(DataError, match=r"data\.zarr/X has the value nan at row 57, column 2"):
        SoftmaxRegression().fit(f"{path}/X", f"{path}/y")


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize("most", [0, None])
def test_chunks_are_decoded_once_an_epoch_while_the_cache_holds_them(
    cluster: Client, store: Store, most: int | None
) -> None:
    path = store(rows=10, X=np.random.default_rng(0).normal(size=(320, 3)), y=np.arange(320) % 4)
    model = SoftmaxRegression(solver="sgd", max_iter=2, batch_size=64, tol=0, random_state=0)
    with (
        dask.config.set({} if most is None else {"dsoftmax.cache": most}),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        model.fit(f"{path}/X", f"{path}/y")
    warned = any("decoded many times an epoch" in str(warning.message) for warning in caught)
    assert warned == (most == 0)
    epoch = next(record for record in model.history_ if record["kind"] == "pass")
    decoded = epoch["bytes"] / (320 * 3 * 8)
    assert decoded == 1 if most is None else decoded > 4


def test_an_asynchronous_client_is_refused_with_the_remedy(cluster: Client, source: Source) -> None:
    import asyncio

    async def fit_in_a_loop() -> None:
        address = cluster.scheduler.address
        async with Client(address, security=cluster.security, asynchronous=True):
            with pytest.raises(DataError, match="asynchronous"):
                executor_for(source)

    asyncio.run(fit_in_a_loop())


@pytest.mark.slow
def test_a_scheduler_that_dies_is_one_clear_error(store: Store) -> None:
    path = store(rows=10, X=np.ones((95, 3)), y=np.arange(95) % 4)

    def kill_scheduler() -> None:
        cluster.scheduler.process.kill()

    with (
        local.local_cluster(1) as cluster,
        Client(cluster),
        pytest.raises(DsoftmaxError, match="scheduler"),
    ):
        SoftmaxRegression(callbacks=[Once(FitStarted, kill_scheduler)]).fit(
            f"{path}/X", f"{path}/y"
        )


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_a_client_that_is_closed_too_early_is_one_clear_error(
    store: Store, cluster: Client, solver: str
) -> None:
    path = store(rows=10, X=np.eye(95, 4) + 1, y=np.arange(95) % 4)
    client = Client(cluster.cluster, set_as_default=False)
    close = Once(StepEnded, client.close)

    with client.as_current(), pytest.raises(OutageError, match="has been closed"):
        SoftmaxRegression(solver=solver, callbacks=[close]).fit(f"{path}/X", f"{path}/y")


@pytest.mark.slow
def test_a_local_cluster_whose_workers_all_die_is_one_clear_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsoftmax.runtime.cluster._WATCH_SECONDS", 0.5)
    path = store(rows=10, X=np.ones((95, 3)), y=np.arange(95) % 4)

    def kill_all() -> None:
        for nanny in cluster.workers.values():
            os.killpg(nanny.process.pid, signal.SIGKILL)

    with (
        local.local_cluster(1) as cluster,
        Client(cluster),
        pytest.raises(DsoftmaxError, match="the local cluster has died"),
    ):
        SoftmaxRegression(callbacks=[Once(FitStarted, kill_all)]).fit(f"{path}/X", f"{path}/y")


def test_a_cluster_without_workers_is_not_waited_for_for_ever(source: Source) -> None:
    with (
        dask.config.set({"dsoftmax.worker-timeout": "1s"}),
        Client(n_workers=0, dashboard_address="127.0.0.1:0"),
        pytest.raises(DsoftmaxError, match="has had no worker for 1 seconds"),
    ):
        SoftmaxRegression().fit(source)
