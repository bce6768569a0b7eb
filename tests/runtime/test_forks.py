"""What a forked child inherits, and may use: no client, no lock that a thread of its parent had."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Store = Callable[..., str]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no forks on Windows")

START = """
import os, sys, faulthandler, warnings
warnings.simplefilter("ignore")
from dsoftmax import SoftmaxRegression, DsoftmaxError
from dsoftmax.data import zarr_array
from dsoftmax.runtime import environment, worker

def fit(**options):
    path = sys.argv[1]
    return SoftmaxRegression(max_iter=2, random_state=0, **options).fit(f"{path}/X", f"{path}/y")

def in_a_child(action):
    if (child := os.fork()) == 0:
        faulthandler.dump_traceback_later(40, exit=True)  # a child that hangs fails
        code = 1
        try:
            code = action()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

LOCKS = """
locks = [environment._lock, worker.spans._lock, worker.spans._cache._lock]
locks += [zarr_array._chunk_cache._lock, zarr_array._found._lock]
for lock in locks:
    lock.acquire()  # as a thread of the parent may, just then
print(in_a_child(lambda: 0 * len(fit(solver="sgd", batch_size=50).classes_)))
"""

CLIENT = """
from distributed import Client
from dsoftmax import plan_fit

def refused(call):
    try:
        call()
    except DsoftmaxError as error:
        print(error)
        return 7
    return 0

if __name__ == "__main__":
    with Client(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client:
        path = sys.argv[1]
        print(in_a_child(lambda: refused(fit)))
        plan = lambda: plan_fit(f"{path}/X", f"{path}/y", client=client)
        print(in_a_child(lambda: refused(plan)))
        print(fit().n_iter_)
"""


def run(tmp_path: Path, code: str, path: str) -> list[str]:
    script = tmp_path / "script.py"
    script.write_text(START + code)
    done = subprocess.run(
        [sys.executable, script, path], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def data(store: Store) -> str:
    rng = np.random.default_rng(0)
    return store(rows=50, X=rng.normal(size=(200, 3)), y=np.arange(200) % 4)


@pytest.mark.slow
def test_a_child_waits_for_no_lock_that_its_parent_held(tmp_path: Path, data: str) -> None:
    assert run(tmp_path, LOCKS, data) == ["0"]


@pytest.mark.slow
def test_a_child_refuses_the_client_of_its_parent_and_the_parent_goes_on(
    tmp_path: Path, data: str
) -> None:
    first, code, second, again, passes = run(tmp_path, CLIENT, data)
    assert "belongs to the process from which this one" in first
    assert "connect one in each process" in second
    assert (code, again) == ("7", "7")
    assert int(passes) >= 1
