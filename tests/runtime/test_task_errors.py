"""Errors that cross from a worker keep their class, their message and their causes."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client

from dsoftmax import SoftmaxRegression, errors, open_data
from dsoftmax.errors import ChunkError, DataError, DsoftmaxError, MemoryBoundError, OutageError
from dsoftmax.runtime.worker import run_task
from tests import faulty
from tests.driver_errors import answered, refused
from tests.failing_server import serving
from tests.faulty import Faulty

Store = Callable[..., str]

pytestmark = pytest.mark.usefixtures("small_spans", "quick_retries")
faulty.by_value(sys.modules[__name__])

OURS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, DsoftmaxError)
]


def links(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def fail(make: Callable[[], BaseException], cause: Callable[[], BaseException] | None) -> None:
    if cause is None:
        raise make()
    try:
        raise cause()
    except BaseException as error:
        raise make() from error


def crossed(
    client: Client, make: Callable[[], BaseException], cause: Callable[[], BaseException] | None
) -> BaseException:
    """Return what a task raises, as the client sees it."""
    future = client.submit(run_task, fail, make, cause, pure=False)
    found = future.exception(timeout=60)
    assert isinstance(found, BaseException)
    return found


class LockedError(Exception):
    """Of a module that the client need not have; it cannot be pickled."""

    def __init__(self, here: int, there: int) -> None:
        super().__init__(f"between {here} and {there}")
        self.lock = threading.Lock()


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("nothing to say")


def from_obstore() -> BaseException:
    from obstore.store import from_url

    try:
        from_url("file:///").get("no/such/file")
    except Exception as error:
        return error
    raise AssertionError


FOREIGN: dict[str, tuple[Callable[[], BaseException], type, str]] = {
    "aiohttp": (lambda: answered(503), Exception, "ClientResponseError: 503, message='no'"),
    "botocore": (lambda: refused("SlowDown", 503), Exception, "ClientError: An error occurred"),
    "endpoint": (
        lambda: import_module("botocore.exceptions").EndpointConnectionError(
            endpoint_url="http://host"
        ),
        Exception,
        "EndpointConnectionError: Could not connect",
    ),
    "obstore": (from_obstore, OSError, "No such file or directory"),
    "fsspec": (
        lambda: import_module("fsspec.exceptions").FSTimeoutError("late"),
        TimeoutError,
        "FSTimeoutError: late",
    ),
    "disk": (lambda: OSError(errno.EIO, "bad sector", "/x"), OSError, "bad sector"),
    "own": (lambda: LockedError(1, 2), Exception, "LockedError: between 1 and 2"),
}

QUICK = ("aiohttp", "disk", "own")


@pytest.mark.parametrize("kind", OURS)
def test_each_of_our_errors_keeps_its_class_message_and_cause(cluster: Client, kind: Any) -> None:
    found = crossed(cluster, lambda: kind("what to do"), lambda: answered(503))
    assert type(found) is kind
    assert str(found) == "what to do"
    assert "ClientResponseError: 503" in str(found.__cause__)
    assert found.__context__ is None


@pytest.mark.parametrize(
    "library",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FOREIGN],
)
def test_a_cause_of_any_library_crosses_with_its_name_and_text(
    cluster: Client, library: str
) -> None:
    make, kind, text = FOREIGN[library]
    found = crossed(cluster, lambda: OutageError("away"), make)
    assert type(found) is OutageError
    assert isinstance(found.__cause__, kind)
    assert text in str(found.__cause__)
    if library == "disk":
        assert found.__cause__.errno == errno.EIO


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (lambda: LockedError(1, 2), Exception, "LockedError: between 1 and 2"),
        (SilentError, Exception, "SilentError: its message cannot be shown"),
        (lambda: ValueError("x" * 10**8), ValueError, r"\(100,000,000 characters\)"),
        (lambda: DataError("x" * 9_000), DataError, r"\(9,000 characters\)"),
        (lambda: SystemExit(3), DsoftmaxError, "has raised SystemExit: 3"),
        (KeyboardInterrupt, DsoftmaxError, "has raised KeyboardInterrupt"),
        (
            lambda: BaseExceptionGroup("two", [ValueError("a"), SystemExit(2)]),
            DsoftmaxError,
            "ValueError: a; SystemExit: 2",
        ),
        (lambda: type("Mine", (DataError,), {})("mine"), DataError, "Mine: mine"),
    ],
)
def test_errors_of_users_cross_as_the_nearest_class_that_both_ends_have(
    cluster: Client, make: Callable[[], BaseException], kind: type, text: str
) -> None:
    before = cluster.scheduler_info()["workers"].keys()
    found = crossed(cluster, make, None)
    assert type(found) is kind
    assert re.search(text, str(found))
    assert len(str(found)) < 10_000
    assert cluster.scheduler_info()["workers"].keys() == before


def test_a_traceback_crosses_however_deep_it_is(cluster: Client) -> None:
    def dive() -> BaseException:
        return dive()

    found = crossed(cluster, dive, None)
    assert type(found) is RecursionError
    frames, trace = [], found.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert "dive" in frames


def group(store: Store) -> Path:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 4
    return Path(store(rows=50, X=rng.normal(size=(200, 3)).astype("f4"), y=y))


def failure(fit: Callable[[], Any]) -> BaseException:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(BaseException) as caught:  # noqa: PT011
            fit()
    return caught.value


@contextmanager
def nowhere() -> Iterator[None]:
    """In this process, even if there is a cluster."""
    from distributed.client import _current_client

    token = _current_client.set(None)
    try:
        yield
    finally:
        _current_client.reset(token)


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (503, OutageError, "after 7 retries: ClientResponseError: 503"),
        pytest.param(403, OutageError, "renew the right", marks=pytest.mark.slow),
        (416, ChunkError, "chunk c/2/0 .* cannot be read: ClientResponseError: 416"),
        pytest.param(0, OutageError, "ServerDisconnectedError", marks=pytest.mark.slow),
    ],
)
def test_a_chunk_that_a_web_server_refuses_is_the_same_error_here_and_on_a_cluster(
    cluster: Client, store: Store, status: int, kind: type[DsoftmaxError], text: str
) -> None:
    path = group(store)
    with serving(path, {"X/c/2": status}) as url, dask.config.set({"dsoftmax.cache": 0}):

        def fit() -> None:
            SoftmaxRegression(solver="lbfgs").fit(f"{url}/X", f"{url}/y")

        there = failure(fit)
        with nowhere():
            here = failure(fit)
    assert type(there) is type(here) is kind
    assert str(there) == str(here)
    with pytest.raises(kind, match=text):
        raise there
    for copy, link in zip(links(there), links(here), strict=True):
        # The name of a class that may be missing here is in the text.
        names = {f"{type(link).__name__}: {link}", f"{link}"}
        assert str(copy) in names


def test_a_store_that_does_not_answer_at_the_start_is_an_outage_and_one_that_is_not_there_is_not(
    cluster: Client, store: Store
) -> None:
    path = group(store)
    failures = {"X/zarr.json": 503}
    with serving(path, failures) as url:
        with pytest.raises(OutageError, match=r"cannot be opened: ClientResponseError: 503"):
            open_data(f"{url}/X", f"{url}/y")
        with pytest.raises(DataError, match="does not exist"):
            open_data(f"{url}/Z")
        failures.clear()
        source = open_data(f"{url}/X", f"{url}/y")
        failures["X/zarr.json"] = 503
        with pytest.raises(OutageError, match=r"not visible from the worker .*storage answers"):
            SoftmaxRegression().fit(source)


@dataclass(frozen=True)
class BadDisk(Faulty):
    """An array on a disk that fails at a row."""

    def read(self, start: int, stop: int) -> np.ndarray:
        if start <= 100 < stop:
            raise OSError(errno.EIO, "Input/output error")
        return self.array.read(start, stop)


def test_an_error_of_a_network_disk_is_an_outage_on_a_cluster(
    cluster: Client, store: Store, tmp_path: Path
) -> None:
    path = group(store)
    source = open_data(f"{path}/X", f"{path}/y")
    source = replace(source, X=BadDisk(source.X, {}, tmp_path))
    found = failure(lambda: SoftmaxRegression(solver="lbfgs").fit(source))
    assert type(found) is OutageError
    assert isinstance(found.__cause__, OSError)
    assert found.__cause__.errno == errno.EIO


def failing(make: Callable[[], BaseException]) -> da.Array:
    def block(values: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info[0]["chunk-location"][0] == 2:
            raise make()
        return values

    X = da.from_array(np.random.default_rng(0).normal(size=(200, 3)), chunks=(50, 3))
    return X.map_blocks(block, dtype="f8", meta=np.empty((0, 0)))


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("make", "kind", "persisted"),
    [
        (lambda: LockedError(1, 2), ChunkError, ChunkError),
        # Dask has lost its class by the time that the block is asked for.
        pytest.param(lambda: answered(503), OutageError, ChunkError, marks=SLOW),
        pytest.param(lambda: TimeoutError("late"), OutageError, OutageError, marks=SLOW),
        (MemoryError, MemoryBoundError, ChunkError),
        pytest.param(
            lambda: ModuleNotFoundError("no it"), DsoftmaxError, DsoftmaxError, marks=SLOW
        ),
    ],
)
def test_an_error_in_a_user_s_block_is_one_of_ours(
    cluster: Client,
    make: Callable[[], BaseException],
    kind: type[DsoftmaxError],
    persisted: type[DsoftmaxError],
) -> None:
    X, y = failing(make), np.arange(200) % 4
    assert type(failure(lambda: SoftmaxRegression().fit(X, y))) is kind
    held = X.persist()
    found = failure(lambda: SoftmaxRegression().fit(held, y))
    assert type(found) is persisted
    with nowhere():
        assert type(failure(lambda: SoftmaxRegression().fit(X, y))) is kind


def test_a_lazy_prediction_fails_with_our_error_on_a_cluster(cluster: Client, store: Store) -> None:
    path = group(store)
    model = SoftmaxRegression().fit(np.eye(3), [0, 1, 2])
    failures: dict[str, int] = {}
    with serving(path, failures) as url:
        lazy = model.predict_proba(f"{url}/X")
        failures["X/c/2"] = 503
        found = failure(lazy.compute)
    assert type(found) is OutageError
    assert "ClientResponseError: 503" in str(found.__cause__)


@pytest.mark.slow
@pytest.mark.parametrize("where", [(), ("--workers", "1")])
def test_the_command_ends_with_75_for_one_chunk_that_is_away(
    store: Store, tmp_path: Path, where: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = group(store)
    monkeypatch.setenv("DASK_DSOFTMAX__RETRY_DELAY", "1ms")
    with serving(path, {"X/c/2": 503}) as url:
        command = [sys.executable, "-m", "dsoftmax", "train", url, tmp_path / "m.zarr"]
        command += ["--checkpoint", tmp_path / "state", *where]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 75, done.stderr
    assert "after 7 retries: ClientResponseError: 503" in done.stderr
    assert "Traceback" not in done.stderr
