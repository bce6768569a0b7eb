"""Reads that fail: what passes is tried again, and what does not is named, or left out."""

from __future__ import annotations

import errno
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from distributed import Client
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import (
    CheckpointError,
    ChunkError,
    DataError,
    MemoryBoundError,
    OutageError,
    SoftmaxRegression,
    ingest,
    open_data,
)
from dsoftmax.data.retry import RetryPolicy, fetch, patiently
from dsoftmax.data.source import Source
from dsoftmax.events import ChunkQuarantined, PassEnded
from dsoftmax.runtime.connect import local_workers
from tests.callbacks import Once, Recorder, StopError
from tests.faulty import Deadly, Faulty, with_faults
from tests.fits import SOLVERS, bits, model_of

Store = Callable[..., str]
Arrays = tuple[np.ndarray, np.ndarray]

pytestmark = pytest.mark.usefixtures("small_spans", "quick_retries")


def opened(path: str, most: int = 0) -> Source:
    policy: dict[str, Any] = {"on_bad_chunk": "skip", "max_bad_chunks": most} if most else {}
    return open_data(f"{path}/X", f"{path}/y", **policy)


def fitted_to(source: Source, solver: str, **changes: Any) -> SoftmaxRegression:
    # What is remembered is not read again, and cannot fail then; mini-batches need it.
    forgetful = {} if solver in ("sgd", "adam") else {"dsoftmax.cache": 0}
    with warnings.catch_warnings(), dask.config.set(forgetful):
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model_of(solver, **changes).fit(source)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("where", ["in-process", pytest.param("cluster", marks=pytest.mark.slow)])
def test_a_read_that_fails_for_a_while_is_tried_again_to_the_same_bits(
    path: str, solver: str, where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if where == "cluster":
        request.getfixturevalue("cluster")
    script = {0: ["timeout", "ok"], 97: ["ok", "reset", "busy", "ok"], 485: ["busy", "ok"]}
    source = with_faults(opened(path), script, tmp_path / "log")
    model = fitted_to(source, solver)
    assert bits(model) == bits(fitted_to(opened(path), solver))
    retries = sum(record["retries"] for record in model.history_ if record["kind"] == "pass")
    assert retries == 4


def test_a_storage_that_stays_unreachable_stops_the_fit_with_an_outage(
    path: str, tmp_path: Path
) -> None:
    source = with_faults(opened(path, most=3), {970: ["timeout"]}, tmp_path / "log")
    with pytest.raises(OutageError, match=r"data\.zarr/X: rows 970 to 1066 .* after 7 retries"):
        fitted_to(source, "lbfgs")


def test_a_chunk_that_cannot_be_decoded_ends_the_fit_and_is_named(
    path: str, tmp_path: Path
) -> None:
    source = with_faults(opened(path), {970: ["bad"]}, tmp_path / "log")
    with pytest.raises(ChunkError, match=r"data\.zarr/X: rows 970 to 1066 .*checksum"):
        fitted_to(source, "lbfgs")
    assert isinstance(source.X, Faulty)
    assert source.X.reads(970) == 1  # a permanent fault is not tried again


FIRST, SECOND, FOURTH = ["bad"], ["ok", "bad"], ["ok", "ok", "ok", "bad"]


@pytest.mark.parametrize(
    ("solver", "turns", "where"),
    [
        ("lbfgs", FIRST, "in-process"),
        ("sgd", FOURTH, "in-process"),
        ("lbfgs", SECOND, "cluster"),
        pytest.param("adam", FIRST, "in-process", marks=pytest.mark.slow),
        pytest.param("fista", FOURTH, "in-process", marks=pytest.mark.slow),
        pytest.param("sgd", SECOND, "cluster", marks=pytest.mark.slow),
    ],
)
def test_skipped_chunks_leave_the_optimum_of_the_other_rows(
    path: str,
    digits: Arrays,
    tmp_path: Path,
    solver: str,
    turns: Sequence[str],
    where: str,
    request: pytest.FixtureRequest,
) -> None:
    if where == "cluster":
        request.getfixturevalue("cluster")
    source = with_faults(opened(path, most=2), {97: turns, 1746: turns}, tmp_path / "log")
    params: dict[str, Any] = {"alpha": 0.1, "max_iter": 100, "tol": 1e-4}
    if solver in ("sgd", "adam"):
        params = {"alpha": 0.1, "max_iter": 10, "tol": 0}
    with pytest.warns(UserWarning, match="2 chunks of X, 148 rows, cannot be read and were left"):
        model = fitted_to(source, solver, **params)
    X, y = digits
    good = np.r_[0:97, 194:1746]
    expected = fitted_to(open_data(X[good].astype("f4"), y[good]), solver, **params)
    rel = 1e-4 if solver in ("lbfgs", "fista") else 0.05
    assert model.loss_ == pytest.approx(expected.loss_, rel=rel)
    assert [(chunk["start"], chunk["stop"]) for chunk in model.quarantined_] == [
        (97, 194),
        (1746, 1797),
    ]
    assert "checksum" in model.quarantined_[0]["reason"]
    assert [r["start"] for r in model.history_ if r["kind"] == "quarantined"] == [97, 1746]
    assert model.n_iter_ <= params["max_iter"]


@pytest.fixture
def unlike(store: Store) -> tuple[str, np.ndarray, np.ndarray]:
    """Rows whose features are pure noise in all chunks but the first."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 1000)
    X = rng.normal(size=(1000, 6))
    X[np.arange(100), y[:100]] += 4
    return store(rows=100, name="unlike.zarr", X=X, y=y), X, y


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("standardize", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_objective_is_that_of_the_other_rows_however_late_chunks_turn_bad(
    unlike: tuple[str, np.ndarray, np.ndarray], tmp_path: Path, solver: str, standardize: bool
) -> None:
    path, X, y = unlike
    script = {row: ["ok", "bad"] for row in range(100, 1000, 100)}
    source = with_faults(opened(path, most=9), script, tmp_path / "log")
    params: dict[str, Any] = {"alpha": 0.05, "max_iter": 60, "tol": 1e-6}
    params["standardize"] = standardize
    if solver in ("sgd", "adam"):
        params |= {"batch_size": 20, "tol": 0}
    with pytest.warns(UserWarning, match="9 chunks of X, 900 rows"):
        model = fitted_to(source, solver, **params)
    exact = "fista" if solver == "fista" else "lbfgs"
    params |= {"tol": 1e-6, "batch_size": 10**6}
    optimum = fitted_to(open_data(X[:100], y[:100]), exact, **params).loss_
    slack = 0.1 if solver in ("sgd", "adam") else 1e-5
    assert optimum * (1 - 1e-5) <= model.loss_ <= optimum * (1 + slack)
    assert model.n_iter_ <= 60
    records = [r for r in model.history_ if r["kind"] == "pass"]
    assert [r["pass"] for r in records] == list(range(1, len(records) + 1))


@pytest.mark.filterwarnings("ignore:1 chunks of X", "ignore:mini-batches are taken from")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("solver", ["sgd", pytest.param("adam", marks=pytest.mark.slow)])
def test_mini_batches_go_back_to_the_end_of_the_last_pass_when_a_chunk_is_left_out(
    path: str, tmp_path: Path, solver: str
) -> None:
    # Without a cache, each of the eleven steps of an epoch reads all chunks.
    script = {970: [*["ok"] * 18, "bad"]}
    source = with_faults(opened(path, most=1), script, tmp_path / "log")
    recorder = Recorder()
    model = model_of(solver, callbacks=[recorder])
    with dask.config.set({"dsoftmax.cache": 0}):
        model.fit(source)
    names = recorder.names
    left_out = names.index("ChunkQuarantined")
    assert names[left_out - 1] == "StepEnded"
    assert names.index("PassEnded") < left_out < names.index("PassEnded", left_out)
    following = recorder.events[left_out + 1 : names.index("PassEnded", left_out)]
    # The whole epoch is made again, without the chunk.
    assert sum(event.rows for event in following) == 1797 - 97


def test_rows_cached_before_a_chunk_is_left_out_do_not_keep_their_class_weights(
    path: str, tmp_path: Path
) -> None:
    found = []
    for name, cache in (("with", 200_000), ("without", 0)):
        script = {1649: ["ok", "ok", "bad"]}
        source = with_faults(opened(path, most=1), script, tmp_path / name)
        model = model_of("lbfgs", class_weight="balanced", max_iter=8, tol=0)
        with dask.config.set({"dsoftmax.cache": cache}), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(model.fit(source))
    assert [chunk["start"] for chunk in found[0].quarantined_] == [1649]
    assert bits(found[0]) == bits(found[1])


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
@pytest.mark.parametrize("turns", [["bad"], ["ok", "bad"]])
def test_a_class_that_only_bad_chunks_have_is_an_error_that_names_it(
    store: Store, tmp_path: Path, solver: str, turns: Sequence[str]
) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([1, 2, 3, 4], 100)
    path = store(rows=100, name="sorted.zarr", X=rng.normal(size=(400, 5)), y=y)
    source = with_faults(opened(path, most=2), {200: turns}, tmp_path / "log")
    with pytest.raises(DataError, match=r"all rows of the class\(es\) 3 .*rows 200 to 299"):
        fitted_to(source, solver)


def test_a_fault_that_does_not_recur_changes_nothing(path: str, tmp_path: Path) -> None:
    script = {97: ["bad", "ok"]}
    source = with_faults(opened(path, most=1), script, tmp_path / "log")
    assert bits(fitted_to(source, "lbfgs")) == bits(fitted_to(opened(path), "lbfgs"))


@pytest.mark.parametrize(
    "solver",
    [s if s in ("lbfgs", "sgd") else pytest.param(s, marks=pytest.mark.slow) for s in SOLVERS],
)
def test_a_fit_that_has_skipped_chunks_resumes_to_the_same_bits(
    path: str, tmp_path: Path, solver: str
) -> None:
    def faulty(log: str) -> Source:
        script = {97: ["ok", "ok", "bad"], 1455: ["ok", "bad"]}
        return with_faults(opened(path, most=3), script, tmp_path / log)

    def stop() -> None:
        raise StopError

    params: dict[str, Any] = {"max_iter": 8, "checkpoint": tmp_path / "state"}
    source = faulty("log")
    with (
        dask.config.set({"dsoftmax.checkpoint-interval": 0}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message=".*were left out")
        for _ in range(2):  # while the labels of the rest are not yet scanned
            with pytest.raises(StopError):
                fitted_to(source, solver, callbacks=[Once(ChunkQuarantined, stop)], **params)
        model = fitted_to(source, solver, **params)
        again = fitted_to(source, solver, **params)
    assert [chunk["start"] for chunk in model.quarantined_] == [97, 1455]
    assert bits(again) == bits(model)
    assert again.stop_reason_ == model.stop_reason_


def test_labels_that_cannot_be_read_are_skipped_with_their_rows(
    path: str, digits: Arrays, tmp_path: Path
) -> None:
    source = opened(path, most=1)
    assert source.y is not None
    (tmp_path / "log").mkdir()
    source = replace(source, y=Faulty(source.y, {485: ["bad"]}, tmp_path / "log"))
    with pytest.warns(UserWarning, match="1 chunks of X, 97 rows"):
        model = fitted_to(source, "lbfgs")
    X, y = digits
    good = np.r_[0:485, 582:1797]
    expected = fitted_to(open_data(X[good].astype("f4"), y[good]), "lbfgs")
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-3)


def test_a_chunk_missing_from_an_ingested_store_is_skipped_where_that_is_allowed(
    digits: Arrays, tmp_path: Path
) -> None:
    X, y = digits
    np.savez(tmp_path / "d.npz", X=X.astype("f4"), y=y)
    path = str(tmp_path / "d.zarr")
    ingest(tmp_path / "d.npz", path, x="X", y="y", chunk_rows=97)
    (tmp_path / "d.zarr" / "X" / "c" / "3" / "0").unlink()
    with pytest.raises(ChunkError, match="has lost 1 of its 19 chunks"):
        opened(path)
    with pytest.warns(UserWarning, match=r"1 chunks of X, 97 rows.*chunk c/3/0"):
        model = fitted_to(opened(path, most=1), "lbfgs", alpha=0.1, max_iter=50)
    good = np.r_[0:291, 388:1797]
    expected = fitted_to(open_data(X[good].astype("f4"), y[good]), "lbfgs", alpha=0.1, max_iter=50)
    assert model.loss_ == pytest.approx(expected.loss_, rel=2e-5)


@pytest.mark.parametrize("opened_by_the_user", [False, True])
def test_a_chunk_that_is_lost_during_a_fit_is_not_read_as_zeros(
    digits: Arrays, tmp_path: Path, opened_by_the_user: bool
) -> None:
    X, y = digits
    np.savez(tmp_path / "d.npz", X=X.astype("f4"), y=y)
    path = str(tmp_path / "d.zarr")
    ingest(tmp_path / "d.npz", path, x="X", y="y", chunk_rows=97)
    chunk = tmp_path / "d.zarr" / "X" / "c" / "3" / "0"

    array = zarr.open_group(path, mode="r")["X"] if opened_by_the_user else f"{path}/X"
    model = model_of("lbfgs", callbacks=[Once(PassEnded, chunk.unlink)])
    forgetful = dask.config.set({"dsoftmax.cache": 0})
    with forgetful, pytest.raises(ChunkError, match="chunk c/3/0"):
        model.fit(array, f"{path}/y")
    with pytest.raises(ChunkError, match="has lost 1 of its 19 chunks"):
        model.fit(array, f"{path}/y")


def test_a_store_that_disappears_for_a_while_is_waited_for(path: str, tmp_path: Path) -> None:
    expected = fitted_to(opened(path), "lbfgs")

    def move() -> None:
        away = Path(path).rename(tmp_path / "away.zarr")
        threading.Timer(0.5, lambda: away.rename(path)).start()

    with dask.config.set({"dsoftmax.retry-delay": "0.2s", "dsoftmax.cache": 0}):
        model = fitted_to(opened(path), "lbfgs", callbacks=[Once(PassEnded, move, number=2)])
    assert bits(model) == bits(expected)


@pytest.mark.parametrize("look", [10.0, 1e-9])
def test_a_store_that_has_disappeared_is_an_outage(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: float
) -> None:
    monkeypatch.setattr("dsoftmax.data.zarr_array._LOOK_SECONDS", look)
    source = opened(path)
    source.read(0, 97)
    Path(path).rename(tmp_path / "away.zarr")
    with (
        dask.config.set({"dsoftmax.retries": 1}),
        pytest.raises(OutageError, match="the store is away"),
    ):
        source.read(0, 97)
    (tmp_path / "away.zarr").rename(path)
    source.read(0, 97)


def test_a_resumed_fit_must_still_allow_the_chunks_it_has_skipped(
    path: str, tmp_path: Path
) -> None:
    script = {97: ["bad"], 485: ["bad"]}
    source = with_faults(opened(path, most=2), script, tmp_path / "log")
    with pytest.warns(UserWarning, match="2 chunks of X"):
        fitted_to(source, "lbfgs", checkpoint=tmp_path / "state")
    with pytest.raises(CheckpointError, match=r"left out 2 chunks .* max_bad_chunks is 1"):
        fitted_to(replace(source, max_bad_chunks=1), "lbfgs", checkpoint=tmp_path / "state")


def test_partial_fit_skips_bad_chunks(path: str, digits: Arrays, tmp_path: Path) -> None:
    source = with_faults(opened(path, most=1), {97: ["bad"]}, tmp_path / "log")
    model = SoftmaxRegression(solver="sgd", random_state=0, alpha=0.01)
    with pytest.warns(UserWarning, match="1 chunks of X, 97 rows"):
        model.partial_fit(source, classes=range(10))
    X, y = digits
    assert model.score(X, y) > 0.8
    assert [chunk["start"] for chunk in model.quarantined_] == [97]


def test_one_bad_chunk_more_than_allowed_ends_the_fit(path: str, tmp_path: Path) -> None:
    script = {97: ["bad"], 485: ["ok", "bad"]}
    source = with_faults(opened(path, most=1), script, tmp_path / "log")
    with pytest.raises(ChunkError, match=r"2 chunks of X cannot be read, and max_bad_chunks is 1"):
        fitted_to(source, "lbfgs")


def test_a_store_of_bad_chunks_alone_is_one_clear_error(path: str, tmp_path: Path) -> None:
    script = {row: ["bad"] for row in range(0, 1797, 97)}
    source = with_faults(opened(path, most=100), script, tmp_path / "log")
    with pytest.raises(ChunkError, match="no rows are left"):
        fitted_to(source, "lbfgs")


@pytest.mark.parametrize(
    ("policy", "got"),
    [
        ({"on_bad_chunk": "ignore"}, "expected 'raise' or 'skip'"),
        ({"on_bad_chunk": "skip"}, "how many at most"),
        ({"max_bad_chunks": 3}, "give 'skip'"),
        ({"on_bad_chunk": "skip", "max_bad_chunks": -1}, "how many at most"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(policy: dict[str, Any], got: str) -> None:
    with pytest.raises(DataError, match=got):
        open_data(np.eye(3), **policy)


class BotocoreError(Exception):
    def __init__(self, status: int) -> None:
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


def caused(by: Exception) -> Exception:
    try:
        raise RuntimeError("wrapped") from by
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    "error", [PermissionError(), BotocoreError(403), caused(BotocoreError(401))]
)
def test_an_expired_credential_is_an_outage_and_not_a_bad_chunk(error: Exception) -> None:
    def read() -> np.ndarray:
        raise error

    with pytest.raises(OutageError, match="renew the right"):
        fetch("X", read, 0, 10, RetryPolicy(), lambda: None)


def test_a_read_waits_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("dsoftmax.data.retry.time.sleep", waited.append)

    def read() -> np.ndarray:
        raise TimeoutError

    with pytest.raises(OutageError, match="after 8 retries"):
        fetch("X", read, 0, 10, RetryPolicy(retries=8))
    assert waited == [0.5, 1, 2, 4, 8, 16, 32, 32]


def test_a_write_is_tried_again_and_another_error_is_its_own() -> None:
    turns = [OSError(errno.ESTALE, "stale"), OSError(errno.EIO, "bad"), OSError(errno.ENOSPC, "")]

    def write() -> None:
        raise turns.pop(0)

    with pytest.raises(OSError, match=str(errno.ENOSPC)):
        patiently("p: rows 0 to 9 cannot be written", write, RetryPolicy(delay=0))
    assert turns == []

    def stay_away() -> None:
        raise OSError(errno.ESTALE, "stale")

    with pytest.raises(OutageError, match=r"rows 0 to 9 cannot be written, after 2 retries: OSErr"):
        patiently("p: rows 0 to 9 cannot be written", stay_away, RetryPolicy(2, 0))


@pytest.mark.slow
def test_a_task_that_kills_its_workers_ends_the_fit_with_its_rows_and_advice(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "1")

    source = opened(path)
    source = replace(source, X=Deadly(source.X, {}, tmp_path, row=485))
    with (
        local_workers(2),
        pytest.raises(MemoryBoundError, match=r"rows 0 to 775 of .*X have killed every worker"),
    ):
        fitted_to(source, "lbfgs")
    model = SoftmaxRegression().fit(np.eye(64), np.arange(64) % 4)
    with local_workers(2), pytest.raises(MemoryBoundError, match=r"X have killed every worker"):
        model.predict_to(source, tmp_path / "p")


@pytest.mark.usefixtures("cluster")
def test_workers_with_the_same_numerics_are_recorded_once(path: str, cluster: Client) -> None:
    model = fitted_to(opened(path), "lbfgs")
    (kind,) = model.numerics_
    assert "numpy" in kind
    assert np.__version__ in kind
