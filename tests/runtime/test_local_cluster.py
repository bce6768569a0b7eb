from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import dask
import psutil
import pytest
from distributed import Client, default_client

from dsoftmax.errors import DsoftmaxError
from dsoftmax.runtime import local_cluster as local
from dsoftmax.runtime import local_servers
from dsoftmax.runtime.cluster import ClusterExecutor
from dsoftmax.runtime.local_cluster import close_embedded_cluster, embedded_client, local_cluster
from dsoftmax.runtime.local_servers import Server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no processes on Windows")

SUM = """
from dsoftmax.runtime.local_cluster import embedded_client
print(embedded_client().submit(sum, [1, 2]).result())
"""

SUM_IN_A_LOOP = """
import asyncio
from dsoftmax.runtime.local_cluster import embedded_client

async def main():
    print(embedded_client().submit(sum, [1, 2]).result())

asyncio.run(main())
"""

SUM_IN_A_FORK = """
import os, sys
from dsoftmax.runtime.local_cluster import embedded_client

parent = embedded_client()
if (child := os.fork()) == 0:
    print(embedded_client() is not parent, embedded_client().submit(sum, [1, 2]).result())
    sys.exit()
os.waitpid(child, 0)
print(parent.submit(sum, [1, 2]).result())
"""

LOST_SCHEDULER = """
import os, signal
from dsoftmax.runtime.local_cluster import embedded_client
os.kill(embedded_client().cluster.scheduler.process.pid, signal.SIGKILL)
"""

WAIT_TO_BE_KILLED = """
import time
from dsoftmax.runtime.local_cluster import embedded_client
print(embedded_client().cluster.folder, flush=True)
time.sleep(60)
"""

SURVIVE_CTRL_C = """
import os, time
from dsoftmax.runtime.local_cluster import embedded_client

client = embedded_client()
before = client.run(os.getpid)
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)  # long enough for a worker to fall and to be started again
    print(client.run(os.getpid) == before)
"""


@pytest.fixture(scope="module")
def environments() -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Start the cluster all tests share; give this process's environment before and after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")  # as Dask's LocalCluster leaves behind
        before = dict(os.environ)
        embedded_client()
        yield before, dict(os.environ)
        close_embedded_cluster()


@pytest.fixture
def client(environments: tuple[dict[str, str], dict[str, str]]) -> Client:
    return embedded_client()


def run_script(tmp_path: Path, code: str) -> tuple[str, str]:
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout, done.stderr


def start_script(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def descendants(server: Server) -> list[psutil.Process]:
    process = psutil.Process(server.process.pid)
    return [process, *process.children(recursive=True)]


def listening(process: psutil.Process) -> set[tuple[str, int]]:
    return {tuple(c.laddr) for c in process.net_connections("inet") if c.status == "LISTEN"}


@pytest.mark.parametrize(
    "code",
    [SUM, pytest.param(SUM_IN_A_LOOP, marks=pytest.mark.slow)],
    ids=["plain", "running-loop"],
)
def test_a_plain_script_without_a_main_guard_works(tmp_path: Path, code: str) -> None:
    assert run_script(tmp_path, code) == ("3\n", "")


@pytest.mark.slow
def test_a_script_that_has_lost_its_scheduler_ends_quietly(tmp_path: Path) -> None:
    assert run_script(tmp_path, LOST_SCHEDULER) == ("", "")


@pytest.mark.slow
def test_a_forked_process_has_a_cluster_of_its_own(tmp_path: Path) -> None:
    assert run_script(tmp_path, SUM_IN_A_FORK) == ("True 3\n3\n", "")


@pytest.mark.slow
def test_no_orphan_survives_a_killed_parent() -> None:
    with start_script(WAIT_TO_BE_KILLED) as parent:
        folder = Path(parent.stdout.readline().strip())
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    assert len(family) >= 3
    wait_until(lambda: all(map(is_gone, family)))
    wait_until(lambda: not folder.exists())


@pytest.mark.slow
def test_ctrl_c_does_not_reach_the_workers() -> None:
    with start_script(SURVIVE_CTRL_C) as parent:
        parent.stdout.readline()
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.stdout.read() == "True\n"


@pytest.mark.slow
def test_a_start_that_is_interrupted_leaves_no_process_and_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before, main = set(psutil.Process().children(recursive=True)), threading.get_ident()

    def interrupt_once_it_has_begun() -> None:
        wait_until(lambda: bool(list(tmp_path.glob("dsoftmax-*/log"))))
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt_once_it_has_begun)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        local_cluster(2)
    thread.join()
    started = set(psutil.Process().children(recursive=True)) - before
    wait_until(lambda: all(map(is_gone, started)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_parent_environment_is_untouched(
    environments: tuple[dict[str, str], dict[str, str]],
) -> None:
    before, after = environments
    assert before == after


def test_workers_start_with_malloc_settings_that_keep_decoded_chunks(client: Client) -> None:
    for pid in client.run(os.getpid).values():
        environment = psutil.Process(pid).environ()  # as it was when the process started
        assert environment["MALLOC_TRIM_THRESHOLD_"] == str(2**30)
        assert environment["MALLOC_MMAP_THRESHOLD_"] == str(2**30)
        assert environment["MALLOC_ARENA_MAX"] == "1"
        assert environment["OPENBLAS_NUM_THREADS"] == "1"


def test_workers_keep_little_of_what_the_profiler_sees_and_the_scheduler_all_events(
    client: Client,
) -> None:
    names = ("distributed.worker.profile.cycle", "distributed.admin.low-level-log-length")
    workers = client.run(lambda: [dask.config.get(name) for name in names])
    assert list(workers.values()) == [["10s", 100]] * len(workers)
    assert client.run_on_scheduler(lambda: dask.config.get(names[1])) == 1000


def test_workers_have_one_thread_each(client: Client) -> None:
    assert set(client.nthreads().values()) == {1}


def test_everything_listens_on_loopback(client: Client) -> None:
    servers = [client.cluster.scheduler, *client.cluster.workers.values()]
    addresses = {a for server in servers for p in descendants(server) for a in listening(p)}
    dashboard = urlsplit(client.dashboard_link)
    assert (dashboard.hostname, dashboard.port) in addresses
    assert {host for host, _ in addresses} == {"127.0.0.1"}


@pytest.mark.slow
def test_without_its_dashboard_a_cluster_serves_no_page() -> None:
    with (
        dask.config.set({"dsoftmax.dashboard": False}),
        local_cluster(1) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert ClusterExecutor(client).dashboard == ""
        assert client.submit(sum, [1, 2]).result() == 3
        (worker,) = client.scheduler_info()["workers"].values()
        ports = {worker["services"]["dashboard"], urlsplit(client.dashboard_link).port}
        for port in ports:
            for page in ("status", "info/main/logs.html", "metrics", "json/identity.json"):
                with pytest.raises(HTTPError, match="404"):
                    urlopen(f"http://127.0.0.1:{port}/{page}", timeout=60)


@pytest.mark.slow
def test_memory_limit_is_enforced_by_the_worker() -> None:
    with local_cluster(1, "300 MiB") as cluster:
        (worker,) = cluster.scheduler_info["workers"].values()
        assert worker["memory_limit"] == 300 * 2**20


def test_the_cluster_is_shared_and_not_the_default(client: Client) -> None:
    assert embedded_client() is client
    with pytest.raises(ValueError, match="No clients found"):
        default_client()


def test_works_inside_a_running_event_loop(client: Client) -> None:
    async def cell() -> int:
        return int(embedded_client().submit(sum, [1, 2]).result())

    assert asyncio.run(cell()) == 3


def test_a_noisy_scheduler_does_not_hang(client: Client) -> None:
    client.run_on_scheduler(os.write, 2, bytes(300_000))
    assert client.submit(sum, [1, 2]).result(timeout=10) == 3


@pytest.mark.slow
def test_a_dead_cluster_is_replaced(client: Client) -> None:
    os.kill(client.cluster.scheduler.process.pid, signal.SIGKILL)
    wait_until(lambda: embedded_client() is not client)
    assert embedded_client().submit(sum, [1, 2]).result() == 3


@pytest.mark.slow
def test_workers_end_with_their_nannies_and_the_cluster_is_replaced(client: Client) -> None:
    workers = [psutil.Process(pid) for pid in client.run(os.getpid).values()]
    for nanny in client.cluster.workers.values():
        os.kill(nanny.process.pid, signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, workers)))
    wait_until(lambda: embedded_client() is not client)
    assert embedded_client().submit(sum, [1, 2]).result() == 3


def test_the_private_folder_is_gone_after_close(client: Client) -> None:
    folder = client.cluster.folder
    assert folder.stat().st_mode & 0o777 == 0o700
    close_embedded_cluster()
    assert not folder.exists()


@pytest.mark.slow
def test_the_log_levels_of_this_process_are_restored() -> None:
    close_embedded_cluster()  # of another test
    handlers = logging.getLogger("distributed").handlers
    levels = [handler.level for handler in handlers]
    embedded_client()
    close_embedded_cluster()
    assert [handler.level for handler in handlers] == levels


def test_a_scheduler_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_servers, "_LIFELINE", "no_such_module")
    with pytest.raises(DsoftmaxError, match="No module named 'no_such_module'"):
        local_cluster(1)


@pytest.mark.slow
def test_workers_that_cannot_start_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "START_SECONDS", 15)
    with pytest.raises(DsoftmaxError, match="Could not interpret 'plenty'"):
        local_cluster(1, "plenty")


def test_windows_is_told_what_to_do_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "WINDOWS", True)
    with pytest.raises(DsoftmaxError, match=r"connect a distributed\.Client"):
        local_cluster()
