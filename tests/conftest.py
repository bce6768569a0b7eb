from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import dask
import hypothesis
import numpy as np
import pytest
import s3fs
import zarr
from distributed import Client
from sklearn.datasets import load_digits

from dsoftmax.cli import main
from dsoftmax.runtime import local_cluster as local
from tests import object_store

Dsoftmax = Callable[..., "Done"]


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


# A shared machine may pause for longer than Hypothesis allows an example: no timing decides a test.
hypothesis.settings.register_profile("no_deadline", deadline=None)
hypothesis.settings.load_profile("no_deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what scikit-learn would skip, and a test of ours runs in a process of its own."""
    items[:] = [item for item in items if "check_array_api_input" not in item.name]


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_interrupts() -> Iterator[None]:
    """Have SIGINT raise KeyboardInterrupt: a shell's `pytest &` starts with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Real data: 1797 handwritten digits of 64 pixels, ten classes."""
    X, y = load_digits(return_X_y=True)
    return X, y


@pytest.fixture(scope="session")
def _two_workers() -> Iterator[Client]:
    with (
        local.local_cluster(2) as workers,
        Client(workers, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def cluster(_two_workers: Client) -> Iterator[Client]:
    """Two real worker processes, the active cluster while the test runs."""
    with _two_workers.as_current():
        yield _two_workers


@pytest.fixture(scope="session", autouse=True)
def _no_cluster_is_left() -> Iterator[None]:
    yield
    local.close_embedded_cluster()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server on loopback."""
    with object_store.serve() as address:
        yield address


@pytest.fixture
def bucket(s3_server: str) -> Iterator[object_store.Bucket]:
    """An empty bucket, which this process can open while the test runs."""
    with object_store.new_bucket(s3_server) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., str]:
    """Write arrays to a Zarr group and return its path."""

    def write(rows: int = 100, name: str = "data.zarr", **arrays: np.ndarray) -> str:
        group = zarr.open_group(tmp_path / name, mode="w")
        for key, values in arrays.items():
            chunks = (min(rows, len(values)), *values.shape[1:])
            dtype = "string" if values.dtype.kind == "U" else values.dtype
            group.create_array(key, shape=values.shape, dtype=dtype, chunks=chunks)[...] = values
        return str(tmp_path / name)

    return write


@pytest.fixture
def path(digits: tuple[np.ndarray, np.ndarray], store: Callable[..., str]) -> str:
    """Return the path of a Zarr group of the digits, in chunks of 97 rows."""
    X, y = digits
    return store(rows=97, X=X.astype("f4"), y=y)


@pytest.fixture
def checkpoint_always() -> Iterator[None]:
    """Write the checkpoint whenever there is something new."""
    with dask.config.set({"dsoftmax.checkpoint-interval": 0}):
        yield


@pytest.fixture
def quick_retries() -> Iterator[None]:
    """Try a read that failed again at once."""
    with dask.config.set({"dsoftmax.retry-delay": 0.001}):
        yield


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which chunk each read of a local store is of."""
    reads: list[str] = []
    get = zarr.storage.LocalStore.get

    async def recorded(self: Any, key: str, *args: Any, **options: Any) -> Any:
        within = options.get("byte_range", args[1] if len(args) > 1 else None)
        reads.append(f"{self.root.name}/{key} {within or ''}")  # a part of a shard is a read too
        return await get(self, key, *args, **options)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", recorded)
    return reads


@pytest.fixture
def small_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every chunk a span of its own, so that small data have a tree worth the name."""
    monkeypatch.setattr("dsoftmax.runtime.spans._SPAN_BYTES", 1)


@pytest.fixture(scope="session")
def s3(s3_server: str) -> Iterator[str]:
    """Return the URL of an empty bucket; processes started meanwhile find it by themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3_server)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        s3fs.S3FileSystem().mkdir("tests")
        yield "s3://tests"


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return where there is no folder yet: on the disk, in memory, in an object store."""
    if request.param == "local":
        return str(tmp_path / "new" / "run")
    root = request.getfixturevalue("s3") if request.param == "s3" else "memory://"
    return f"{root}/{uuid4().hex}"


@pytest.fixture
def _handlers() -> Iterator[None]:
    """Take the signals back from the command, which keeps them until its process ends."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    hook = sys.unraisablehook
    yield
    sys.unraisablehook = hook
    logging.getLogger("asyncio").disabled = False
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def dsoftmax(
    _handlers: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Dsoftmax:
    """Run the command in this process, in `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["dsoftmax", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return run
