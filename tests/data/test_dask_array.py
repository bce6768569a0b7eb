from __future__ import annotations

import pickle
import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from dask.system import CPU_COUNT
from distributed import Client, get_worker
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import ChunkError, DataError, SoftmaxRegression, open_data
from dsoftmax.data.dask_array import DaskArray, from_dask
from dsoftmax.data.zarr_array import ZarrArray
from dsoftmax.runtime import select
from dsoftmax.runtime.cluster import ClusterExecutor
from dsoftmax.runtime.select import executor_for
from tests.fits import bits

Arrays = tuple[np.ndarray, np.ndarray]
Store = Callable[..., str]

ROWS = 97


def fitted(X: Any, y: Any, solver: str = "lbfgs", weight: Any = None) -> SoftmaxRegression:
    model = SoftmaxRegression(solver=solver, max_iter=4, batch_size=170, random_state=0, tol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y, weight)


@pytest.fixture
def in_chunks(
    digits: Arrays, monkeypatch: pytest.MonkeyPatch, small_spans: None
) -> tuple[np.ndarray, np.ndarray, da.Array, da.Array]:
    """Digits as NumPy arrays that are read in chunks of 97 rows, and as lazy arrays of those."""
    X, y = digits[0].astype("f4"), digits[1]
    monkeypatch.setattr("dsoftmax.data.numpy_array._CHUNK_BYTES", ROWS * X.shape[1] * 4)
    return X, y, da.from_array(X, chunks=(ROWS, -1)), da.from_array(y, chunks=ROWS)


@pytest.mark.parametrize("solver", ["lbfgs", pytest.param("sgd", marks=pytest.mark.slow)])
def test_the_bits_are_those_of_the_numpy_fit_of_the_same_chunks(
    in_chunks: Any, solver: str, request: pytest.FixtureRequest
) -> None:
    X, y, lazy, labels = in_chunks
    weight = np.random.default_rng(0).random(len(y))
    lazy_weight = da.from_array(weight, chunks=500)
    expected = bits(fitted(X + 1, y, solver, weight))
    assert bits(fitted(lazy + 1, labels, solver, lazy_weight)) == expected
    assert bits(fitted(X + 1, labels, solver, lazy_weight)) == expected
    request.getfixturevalue("cluster")
    assert bits(fitted(lazy + 1, labels, solver, lazy_weight)) == expected
    assert bits(fitted(lazy + 1, y, solver, weight)) == expected


@pytest.mark.slow
def test_without_a_client_a_large_lazy_array_goes_to_the_embedded_cluster(
    in_chunks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y, lazy, _ = in_chunks
    monkeypatch.setattr(select, "_SMALL", 0)
    assert isinstance(executor_for(open_data(lazy, y)), ClusterExecutor)
    assert bits(fitted(lazy, y)) == bits(fitted(X, y))


@pytest.mark.parametrize("chunks", [None, (30, 4), (1000, 6)])
@pytest.mark.parametrize("inline", [False, True])
def test_a_zarr_array_that_dask_only_reads_is_read_without_dask(
    store: Store, chunks: Any, inline: bool
) -> None:
    path = store(rows=10, X=np.arange(600.0).reshape(100, 6))
    array = zarr.open_array(f"{path}/X")
    plain = [
        da.from_zarr(f"{path}/X", chunks=chunks, inline_array=inline),
        da.from_zarr(path, component="X", chunks=chunks, inline_array=inline),
        da.from_zarr(array, chunks=chunks, inline_array=inline),
        da.from_array(array, chunks=chunks or (10, 6), inline_array=inline),
    ]
    for lazy in plain:
        source = open_data(lazy)
        assert isinstance(source.X, ZarrArray)
        assert source.X.url == f"{path}/X"
        assert source.chunks == (*range(0, 101, 10),)
        assert b"dask." not in pickle.dumps(source)


def test_an_array_that_is_more_than_a_zarr_array_stays_with_dask(store: Store) -> None:
    X = np.arange(600.0).reshape(100, 6)
    lazy = da.from_zarr(f"{store(rows=10, X=X)}/X")
    for more, expected in [(lazy[10:], X[10:]), (lazy * 2, X * 2), (lazy[:, ::-1], X[:, ::-1])]:
        source = open_data(more)
        assert isinstance(source.X, DaskArray)
        np.testing.assert_array_equal(source.read(0, len(expected)).X, expected)
    in_memory = zarr.create_array(zarr.storage.MemoryStore(), data=X, chunks=(10, 6))
    assert isinstance(open_data(da.from_zarr(in_memory)).X, DaskArray)
    assert isinstance(open_data(da.from_zarr(f"{store(rows=10, X=X)}/X")).X, ZarrArray)


def record(block: np.ndarray, log: Path, block_info: Any = None) -> np.ndarray:
    """Note down the block, and which of the cluster's tasks it is computed in."""
    try:
        task = str(get_worker().get_current_task())
    except ValueError:
        task = "in this process"
    with log.open("a") as file:
        file.write(f"{block_info[0]['chunk-location'][0]} {task}\n")
    return block


@pytest.mark.parametrize("where", ["in-process", "cluster"])
@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_each_block_is_computed_once_a_pass_and_only_in_our_tasks(
    in_chunks: Any, tmp_path: Path, solver: str, where: str, request: pytest.FixtureRequest
) -> None:
    _, _, lazy, labels = in_chunks
    log = tmp_path / "log"
    recorded = lazy.map_blocks(record, log, dtype=lazy.dtype, meta=np.empty((0, 0), lazy.dtype))
    if where == "cluster":
        request.getfixturevalue("cluster")
    model = fitted(recorded, labels, solver)
    lines = [line.split(maxsplit=1) for line in log.read_text().splitlines()]
    times = Counter(block for block, _ in lines)
    assert len(times) == lazy.numblocks[0]
    times["0"] -= 2  # read twice before the first pass, to find out graphs that are not repeatable
    # A block that an earlier epoch has left in the cache of its worker is not computed at all.
    least = model.n_iter_ if solver == "lbfgs" else 1
    assert least <= min(times.values()) <= max(times.values()) <= model.n_iter_
    assert not any("record" in task for _, task in lines)


def test_no_more_blocks_are_alive_than_are_being_reduced(small_spans: None) -> None:
    lock, alive, most = threading.Lock(), 0, 0

    def change(by: int) -> None:
        nonlocal alive, most
        with lock:
            alive += by
            most = max(alive, most)

    def make(block_info: Any = None) -> np.ndarray:
        block = np.random.default_rng(block_info[None]["chunk-location"][0]).normal(size=(50, 3))
        change(1)
        weakref.finalize(block, change, -1)
        return block

    meta = np.empty((0, 0))
    lazy = da.map_blocks(make, chunks=((50,) * 60, (3,)), dtype=meta.dtype, meta=meta)
    fitted(lazy, np.arange(3000) % 3)
    assert most <= 2 * CPU_COUNT
    assert alive == 0


def test_a_part_pickles_to_the_graph_of_its_own_blocks() -> None:
    rng = np.random.default_rng(0)
    lazy = (da.from_array(rng.normal(size=(10_000, 20)), chunks=(10, 20)) - 1) / np.arange(1, 21)
    source = open_data(lazy)
    part = source.part(500, 520)
    assert len(source.chunks) == 1001
    assert len(pickle.dumps(part)) < 2 * 10 * 20 * 8 + 3000
    again = pickle.loads(pickle.dumps(part))
    np.testing.assert_array_equal(again.read(503, 517).X, lazy[503:517].compute())


def test_the_work_of_cutting_parts_grows_with_the_number_of_blocks() -> None:
    class Counted(dict[Any, Any]):
        looked_up = 0

        def __getitem__(self, key: Any) -> Any:
            Counted.looked_up += 1
            return super().__getitem__(key)

    n = 5000
    lazy = from_dask("X", (da.zeros((n, 3), chunks=(1, 3)) + 1) / 2)
    assert isinstance(lazy, DaskArray)
    counted = replace(lazy, graph=Counted(lazy.graph))
    for row in range(n):
        counted.part(row, row + 1)
    assert Counted.looked_up <= 4 * n


def test_a_part_of_a_memory_map_is_its_own_rows(tmp_path: Path) -> None:
    X = np.arange(4000.0).reshape(1000, 4)
    X.tofile(tmp_path / "X")
    mapped = np.memmap(tmp_path / "X", dtype=float, mode="r", shape=X.shape)
    source = open_data(da.from_array(mapped, chunks=(100, 4)) * 2)
    again = pickle.loads(dumped := pickle.dumps(source.part(100, 200)))
    assert len(dumped) < 2 * 100 * 4 * 8
    np.testing.assert_array_equal(again.read(100, 200).X, X[100:200] * 2)


@pytest.mark.parametrize("solver", ["lbfgs", pytest.param("sgd", marks=pytest.mark.slow)])
def test_persisted_blocks_are_used_where_they_are(
    in_chunks: Any, cluster: Client, solver: str
) -> None:
    X, y, lazy, labels = in_chunks
    held, held_labels = cluster.persist([lazy * 2, labels])
    before = received(cluster)
    model = fitted(held, held_labels, solver)
    # Where a task runs is for the scheduler to say, but no pass needs a block at two places.
    if solver == "lbfgs":
        assert received(cluster) - before <= (model.n_iter_ + 1) * (X.nbytes + y.nbytes)
    assert bits(model) == bits(fitted(X * 2, y, solver))
    assert bits(fitted(held / 2, y, solver)) == bits(fitted(X, labels, solver))
    assert model.score(held, held_labels) == model.score(X * 2, y)


def received(client: Client) -> int:
    def count(dask_worker: Any) -> int:
        return sum(transfer["total"] for transfer in dask_worker.transfer_incoming_log)

    return sum(client.run(count).values())


def test_few_tasks_with_persisted_blocks_are_under_way_at_once(
    in_chunks: Any, cluster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, y, lazy, _ = in_chunks
    send, keys = cluster.map, []

    def counted(*args: Any, **options: Any) -> Any:
        keys.extend(options["key"])
        return send(*args, **options)

    monkeypatch.setattr(cluster, "map", counted)
    executor = executor_for(open_data(cluster.persist(lazy), y))
    results = executor.run(
        "double", lambda value: 2 * value, [(i,) for i in range(30)], low_concurrency=True
    )
    assert next(iter(results)) % 2 == 0
    assert len(keys) == 2 * executor.slots + 1
    assert len(list(results)) == 29


def test_persisted_blocks_need_the_client_that_holds_them(in_chunks: Any, cluster: Client) -> None:
    _, y, lazy, _ = in_chunks
    held = cluster.persist(lazy)
    with (
        Client(cluster.scheduler.address, security=cluster.security, set_as_default=False) as other,
        other.as_current(),
        pytest.raises(DataError, match=r"X is persisted on a Dask client .*as_current"),
    ):
        fitted(held, y)
    assert fitted(held, y).n_iter_ == 4


def test_futures_inside_of_tasks_are_refused_with_the_remedy(cluster: Client) -> None:
    future = cluster.submit(np.ones, (5, 4))
    lazy = da.from_delayed(dask.delayed(np.negative)(future), (5, 4), float)
    with pytest.raises(DataError, match=r"call X\.persist\(\) first"):
        open_data(lazy)
    block = da.from_delayed(future, (5, 4), float)
    assert list(open_data(block).futures) == [future.key]


def irregular(X: np.ndarray) -> da.Array:
    return da.concatenate(
        [
            da.from_array(X[:0]),
            da.from_array(X[:3]),
            da.from_array(X[3:3]),
            da.from_array(X[3:], chunks=(13, *X.shape[1:])),
        ]
    )


SHAPES: dict[str, Callable[[np.ndarray], da.Array]] = {
    "irregular and of no rows": irregular,
    "along features": lambda X: da.from_array(X, chunks=(20, 2)),
    "rechunked": lambda X: da.from_array(X, chunks=(50, -1)).rechunk((7, 3)),
    "delayed": lambda X: da.from_delayed(dask.delayed(X), X.shape, X.dtype),
    "without fusion": lambda X: da.from_array(X, chunks=(20, 2)) * 1,
    "a transposed array": lambda X: da.from_array(np.asfortranarray(X.T), chunks=(-1, 20)).T,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_any_chunks_will_do(shape: str, small_spans: None, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(100, 5)), rng.integers(0, 3, 100)
    lazy, labels = SHAPES[shape](X), da.from_array(y, chunks=((33, 0, 60, 7),))
    with dask.config.set({"optimization.fuse.active": shape != "without fusion"}):
        model, expected = fitted(lazy, labels), fitted(X, y)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-9)
    assert model.evaluate(lazy, labels)["accuracy"] == model.score(X, y)
    assert open_data(lazy).chunks[-1] == 100
    model.predict_to(lazy, tmp_path / "p.zarr")
    written = zarr.open_array(tmp_path / "p.zarr")[...]
    np.testing.assert_allclose(written, model.predict_proba(X), rtol=1e-12)
    opened = open_data(lazy, dtype="float32")
    lazily = model.predict_proba(opened)
    assert lazily.dtype == np.float32
    np.testing.assert_allclose(lazily.compute(), written, rtol=1e-4)


@pytest.mark.parametrize("labels", [["b", "a", "ccc"], [5, -1, 300]])
def test_lazy_labels_may_be_strings_or_objects(labels: list[Any]) -> None:
    codes = np.random.default_rng(0).integers(0, 3, 60)
    for kept_as in (np.array(labels), np.array(labels, object)):
        y = da.from_array(kept_as[codes], chunks=25)
        assert fitted(np.eye(3)[codes], y).classes_.tolist() == sorted(labels)


def test_a_block_that_cannot_be_computed_is_an_error_that_names_its_rows() -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise OSError("no such file")

    lazy = da.zeros((40, 2), chunks=(20, 2)).map_blocks(fail, dtype=float, meta=np.empty((0, 0)))
    with pytest.raises(ChunkError, match="X: rows 0 to 19 cannot be read: OSError: no such file"):
        fitted(lazy, np.arange(40) % 2)


@pytest.mark.parametrize(
    ("claimed", "message"),
    [
        (((4, 2), float), r"shape \(5, 2\) where its chunks say \(4, 2\).*compute_chunk_sizes"),
        (((5, 2), int), "block of dtype float64 where its metadata say int64.*astype"),
    ],
)
def test_a_block_is_what_the_metadata_say(claimed: Any, message: str) -> None:
    lazy = da.from_delayed(dask.delayed(np.ones)((5, 2)), *claimed)
    with pytest.raises(DataError, match=message):
        fitted(lazy, np.arange(claimed[0][0]) % 2)


def sparse() -> da.Array:
    return da.ones((4, 2)).map_blocks(csr_array, meta=csr_array((0, 0)))


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: (x := da.ones((4, 2)))[x[:, 0] > 0], r"unknown size.*X\.compute_chunk_sizes\(\)"),
    (lambda: dask.delayed(np.ones)((4, 2)), "Dask Delayed; expected a Dask array.*from_delayed"),
    (sparse, "csr_array blocks; expected numpy.ndarray"),
    (lambda: da.ones((4, 2), dtype=complex), "complex128; expected real numbers"),
    (lambda: da.ones((4, 2), chunks=2, dtype=object), "object; expected real numbers"),
    (lambda: da.ones(4), "expected at least two dimensions"),
    (lambda: da.ones((2, 2, 2)), "expected the axes of X but the last"),
    (lambda: da.asarray(np.float64(1)), "expected at least two dimensions"),
    (lambda: da.ones((0, 2)), r"0 sample\(s\)"),
    (lambda: (x := da.ones((40, 2), chunks=(2, 2))) - x.mean(0), "depend on the same .* tasks"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_cannot_be_used_is_refused_before_anything_is_computed(
    make: Callable[[], Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_data(make(), [0, 1, 0, 1])


def test_a_data_frame_is_refused_with_the_remedy() -> None:
    frames = pytest.importorskip("dask.dataframe")
    frame = frames.from_dict({"a": [1.0, 2.0], "b": [0.0, 1.0]}, npartitions=1)
    for refuse in (open_data, SoftmaxRegression().fit([[0.0, 1], [1, 0]], [0, 1]).predict):
        with pytest.raises(DataError, match=r"X\.to_dask_array\(lengths=True\)"):
            refuse(frame)


def test_dask_ml_prepares_the_data(store: Store, digits: Arrays) -> None:
    from dask_ml.preprocessing import StandardScaler

    X, y = digits
    path = store(rows=300, X=X, y=y)
    scaled = StandardScaler().fit_transform(da.from_zarr(f"{path}/X"))
    model = fitted(scaled, f"{path}/y")
    expected = fitted(scaled.compute(), y)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-9)
