from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsoftmax import CheckpointError, DataError
from dsoftmax.storage import lock
from dsoftmax.storage.atomic_folder import Folder, open_folder
from dsoftmax.storage.lock import FolderLock, LockOwner

BATCH = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "PBS_JOBID", "LSB_JOBID", "JOB_ID")


class Clock:
    """A time that only passes when someone sleeps, and then does what it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.on_sleep: Callable[[], None] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep()

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lock, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def _no_batch_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BATCH:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return open_folder(tmp_path)


def elsewhere(job: str = "", run: str = "", beat: int = 0) -> LockOwner:
    """A owner of which nothing can be known from here."""
    return LockOwner("node7", "another kernel", 4711, 12.5, job, run, "its token", beat)


def owner_of(folder: Folder) -> LockOwner:
    owner = LockOwner.decoded(folder.read("dsoftmax-lease.json"))
    assert owner is not None
    return owner


def refused(place: Any) -> str:
    with pytest.raises(CheckpointError) as caught, FolderLock(place):
        pass
    return str(caught.value)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_lock_is_held_once_and_then_released_wherever_it_is(place: str) -> None:
    folder = open_folder(place)
    for _ in range(2):
        with FolderLock(place) as ours:
            ours.require()
            assert owner_of(folder).pid == os.getpid()
            message = refused(place)
            assert f"in use by process {os.getpid()} on {os.uname().nodename}" in message
            assert "wait for it to end, or give another folder" in message
            assert "GridSearchCV" in message
            ours.require()
        assert folder.names() == []


def test_a_lock_is_not_entered_twice(tmp_path: Path) -> None:
    ours = FolderLock(tmp_path)
    with ours:
        with pytest.raises(CheckpointError, match="in use"), ours:
            pass
        ours.require()
        assert os.listdir(tmp_path) == ["dsoftmax-lease.json"]
    with ours:
        ours.require()
    assert os.listdir(tmp_path) == []


def test_a_lock_is_released_on_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), FolderLock(tmp_path):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_an_interrupt_while_it_is_taken_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: FolderLock) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FolderLock, "_remove_leftovers", interrupt)
    with pytest.raises(KeyboardInterrupt), FolderLock(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_a_lock_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.005)
    with FolderLock(tmp_path) as ours:
        wait_until(lambda: owner_of(open_folder(tmp_path)).beat >= 3)
        ours.require()
    assert os.listdir(tmp_path) == []


def test_an_outage_does_not_end_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.005)
    failures = []

    def fail(name: str, *parts: bytes) -> bytes:
        failures.append(name)
        raise OSError("the network is away")

    with FolderLock(tmp_path) as ours:
        with monkeypatch.context() as patch:
            patch.setattr(ours._folder, "read", fail)
            wait_until(lambda: len(failures) >= 3)
            ours.require()
        beat = owner_of(open_folder(tmp_path)).beat
        wait_until(lambda: owner_of(open_folder(tmp_path)).beat > beat)


def test_one_that_renews_its_lock_meanwhile_is_live(folder: Folder, clock: Clock) -> None:
    owner = elsewhere(job="batch job 99")
    folder.write("dsoftmax-lease.json", owner.encoded())
    said = []

    def renew() -> None:
        if clock.now >= 9:
            folder.write("dsoftmax-lease.json", replace(owner, beat=1).encoded())

    clock.on_sleep = renew
    with (
        pytest.raises(CheckpointError, match=r"process 4711 on node7 \(batch job 99\); wait for"),
        FolderLock(folder.place, said.append),
    ):
        pass
    assert clock.now < 10
    assert said == [
        f"{folder.place} is held by process 4711 on node7 (batch job 99); taking it over if there "
        "is no sign of life for 60 s"
    ]
    assert owner_of(folder).token == "its token"


def test_one_that_is_silent_for_a_minute_is_taken_over(folder: Folder, clock: Clock) -> None:
    folder.write("dsoftmax-lease.json", elsewhere().encoded())
    said: list[str] = []
    with FolderLock(folder.place, said.append) as ours:
        ours.require()
        assert 60 <= clock.now < 62
        assert owner_of(folder).pid == os.getpid()
        assert folder.names() == ["dsoftmax-lease.json"]
    assert len(said) == 1


def test_one_that_is_released_meanwhile_is_followed_at_once(folder: Folder, clock: Clock) -> None:
    folder.write("dsoftmax-lease.json", elsewhere().encoded())
    clock.on_sleep = lambda: folder.remove("dsoftmax-lease.json")
    with FolderLock(folder.place):
        assert clock.now < 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"host": "node7"}',
        elsewhere().encoded().replace(b"4711", b'"4711"'),
        elsewhere().encoded().replace(b"4711", b"47.11"),
        elsewhere().encoded().replace(b"{", b'{"more": 1, '),
    ],
)
def test_a_malformed_lock_is_one_of_an_unknown_process(
    folder: Folder, clock: Clock, content: bytes
) -> None:
    folder.write("dsoftmax-lease.json", content)
    said: list[str] = []
    with FolderLock(folder.place, said.append):
        assert clock.now >= 60
    assert "held by an unknown process" in said[0]


@pytest.mark.parametrize("pid", [-1, 0, 2**31, 2**70])
def test_no_process_id_is_a_crash(folder: Folder, clock: Clock, pid: int) -> None:
    folder.write("dsoftmax-lease.json", replace(LockOwner.this_process(), pid=pid).encoded())
    with FolderLock(folder.place) as ours:
        ours.require()


HOLD = """
import sys
from dsoftmax.storage.lock import FolderLock
with FolderLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_living_process_is_refused_to_and_a_killed_one_followed_at_once(
    tmp_path: Path, clock: Clock, holding: subprocess.Popen[str]
) -> None:
    assert f"in use by process {holding.pid}" in refused(tmp_path)
    holding.kill()
    os.waitid(os.P_PID, holding.pid, os.WEXITED | os.WNOWAIT)  # its parent does not know it yet
    with FolderLock(tmp_path) as ours:
        ours.require()
    assert clock.now == 0


def test_a_process_that_has_the_id_of_the_owner_is_another(folder: Folder, clock: Clock) -> None:
    parent = replace(LockOwner.this_process(), pid=os.getppid(), started=-10.0)
    folder.write("dsoftmax-lease.json", parent.encoded())
    with FolderLock(folder.place):
        assert clock.now == 0


def test_a_lock_that_this_process_could_not_remove_is_taken_again(
    folder: Folder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise OSError("the network is away")

    with FolderLock(folder.place) as ours:
        monkeypatch.setattr(ours._folder, "remove", fail)
    assert folder.names() == ["dsoftmax-lease.json"]
    with FolderLock(folder.place) as ours:
        ours.require()
    assert clock.now == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"PBS_JOBID": "7.server"}, {"PBS_JOBID": "7.server"}),
        ({"LSB_JOBID": "7", "LSB_JOBINDEX": "1"}, {"LSB_JOBID": "7", "LSB_JOBINDEX": "1"}),
        ({"JOB_ID": "7", "SGE_TASK_ID": "undefined"}, {"JOB_ID": "7", "SGE_TASK_ID": "undefined"}),
        ({"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}),
    ],
)
def test_a_job_that_was_requeued_goes_on_at_once(
    folder: Folder,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    before: dict[str, str],
    after: dict[str, str],
) -> None:
    with monkeypatch.context() as patch:
        for name, value in before.items():
            patch.setenv(name, value)
        gone = replace(LockOwner.this_process(), host="node7", pid=4711)
    folder.write("dsoftmax-lease.json", gone.encoded())
    for name, value in after.items():
        monkeypatch.setenv(name, value)
    with FolderLock(folder.place):
        assert "batch job 7" in str(owner_of(folder))
    assert clock.now == 0


@pytest.mark.parametrize(
    ("other", "ours"),
    [
        ({}, {}),
        ({"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "8"}),
        # Two tasks of one run of a job, as when srun starts a program on every node.
        ({"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "7"}),
        ({"LSB_JOBID": "7", "LSB_JOBINDEX": "1"}, {"LSB_JOBID": "7", "LSB_JOBINDEX": "2"}),
        ({"JOB_ID": "7", "SGE_TASK_ID": "1"}, {"JOB_ID": "7", "SGE_TASK_ID": "2"}),
        ({"JOB_ID": "of something else"}, {"JOB_ID": "of something else"}),
        ({"PBS_JOBID": ""}, {"PBS_JOBID": ""}),
    ],
)
def test_another_job_is_waited_for(
    folder: Folder,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    other: dict[str, str],
    ours: dict[str, str],
) -> None:
    with monkeypatch.context() as patch:
        for name, value in other.items():
            patch.setenv(name, value)
        folder.write(
            "dsoftmax-lease.json", replace(LockOwner.this_process(), host="node7").encoded()
        )
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    with FolderLock(folder.place):
        assert clock.now >= 60


def test_a_living_process_of_the_same_job_is_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PBS_JOBID", "7.server")
    with FolderLock(tmp_path):
        assert "(batch job 7.server)" in refused(tmp_path)


def test_whose_lock_was_taken_over_is_told_and_leaves_it_alone(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.005)
    with FolderLock(folder.place) as ours:
        ours.require()

        def give_up() -> bool:  # a renewal that was under way can win over the first of these
            folder.write("dsoftmax-lease.json", elsewhere().encoded())
            return not ours._thread.is_alive()

        wait_until(give_up)
        with pytest.raises(CheckpointError, match="taken over by process 4711 on node7, since"):
            ours.require()
    assert owner_of(folder) == elsewhere()


def test_a_lock_that_someone_deleted_is_written_again(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.005)
    with FolderLock(folder.place) as ours:
        folder.remove("dsoftmax-lease.json")
        ours.require()
        wait_until(lambda: folder.names() == ["dsoftmax-lease.json"])


def test_a_lock_that_is_gone_after_a_silence_was_someone_elses(
    folder: Folder, clock: Clock
) -> None:
    with FolderLock(folder.place) as ours:
        folder.remove("dsoftmax-lease.json")
        clock.now += 61
        with pytest.raises(CheckpointError, match="taken over by a process that has ended since"):
            ours.require()


def test_what_killed_takers_left_is_in_nobodys_way(folder: Folder, clock: Clock) -> None:
    dead = replace(LockOwner.this_process(), pid=os.getppid(), started=-10.0, token="dead")
    folder.write("dsoftmax-lease.json", dead.encoded())
    claims = []

    def create(name: str, content: bytes) -> None:
        if "-after-" in name and not claims:
            claims.append(name)
            folder.write(name, replace(dead, token="taker").encoded())
        type(folder).create(folder, name, content)

    ours = FolderLock(folder.place)
    ours._folder.create = create  # type: ignore[method-assign]
    folder.write("dsoftmax-lease.json.partial-01234567", b"")
    with ours:
        assert folder.names() == ["dsoftmax-lease.json"]
        assert claims
    assert clock.now == 0


def test_a_lock_that_can_neither_be_read_nor_created_is_no_hang(
    tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "dsoftmax-lease.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="neither be read nor created"), FolderLock(tmp_path):
        pass


def test_of_two_takers_the_slower_one_is_refused(folder: Folder, clock: Clock) -> None:
    dead = replace(LockOwner.this_process(), pid=os.getppid(), started=-10.0, token="dead")
    folder.write("dsoftmax-lease.json", dead.encoded())
    taker = elsewhere()

    def create(name: str, content: bytes) -> None:
        if "-after-" in name:  # the other one was done with it in the meantime
            folder.write("dsoftmax-lease.json", taker.encoded())
        type(folder).create(folder, name, content)

    def renew() -> None:
        folder.write("dsoftmax-lease.json", replace(taker, beat=1).encoded())

    ours = FolderLock(folder.place)
    ours._folder.create = create  # type: ignore[method-assign]
    clock.on_sleep = renew
    with pytest.raises(CheckpointError, match="in use by process 4711 on node7"), ours:
        pass
    assert folder.names() == ["dsoftmax-lease.json"]
    assert owner_of(folder).token == taker.token


def test_no_lock_is_written_among_other_things(place: str) -> None:
    folder = open_folder(place)
    folder.write("thesis.tex", b"years of work")
    with pytest.raises(DataError, match="holds 'thesis"), FolderLock(place):
        pass
    assert folder.names() == ["thesis.tex"]


def test_a_place_that_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *args: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", fail)
    with (
        pytest.raises(CheckpointError, match=r"cannot be written to .*Permission denied.*another"),
        FolderLock(tmp_path / "run"),
    ):
        pass


FORK = """
import os, sys
from dsoftmax.storage.lock import FolderLock
ours = FolderLock(sys.argv[1])
ours.__enter__()
child = os.fork()
if child == 0:
    try:
        with FolderLock(sys.argv[1]):
            print("held twice", flush=True)
    except Exception as error:
        print(error, flush=True)
    print(ours._thread.is_alive(), flush=True)
    ours.__exit__(None, None, None)
    os._exit(0)
os.waitpid(child, 0)
print(os.listdir(sys.argv[1]), flush=True)
ours.require()
ours.__exit__(None, None, None)
print(os.listdir(sys.argv[1]), flush=True)
"""


def test_a_forked_child_neither_holds_nor_releases_the_lock(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, tmp_path], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert "is in use by process" in lines[0]
    assert lines[1:] == ["False", "['dsoftmax-lease.json']", "[]"]


# Forks takers for every line that it reads; each says how it went, and holds on until killed.
TAKERS = """
import os, socket, sys, time
from dsoftmax.storage import lock
for line in sys.stdin:
    name, hosts, count = line.split()
    children = []
    for taker in range(int(count)):
        child = os.fork()
        if child == 0:
            if hosts == "many":
                host = f"host{taker}"
                socket.gethostname = lambda: host
                lock._BEAT_SECONDS, lock._SILENCE_SECONDS = 0.05, 0.5
            ours = lock.FolderLock(os.path.join(sys.argv[1], name))
            try:
                ours.__enter__()
                os.write(1, b"held %d\\n" % os.getpid())
            except lock.CheckpointError:
                os.write(1, b"refused %d\\n" % os.getpid())
                os._exit(0)
            while True:
                time.sleep(1)
        children.append(child)
    sys.stdin.readline()
    for child in children:
        os.kill(child, 9)
        os.waitpid(child, 0)
    os.write(1, b"ended\\n")
"""


@pytest.fixture
def takers(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", TAKERS, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # it forks, which threads do not survive
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def answers(takers: subprocess.Popen[str], order: str, count: int) -> list[list[str]]:
    assert takers.stdin is not None
    assert takers.stdout is not None
    takers.stdin.write(order)
    return [takers.stdout.readline().split() for _ in range(count)]


@pytest.mark.timeout(600)  # a disk may take long to make a file durable
@pytest.mark.parametrize("rounds", [15, pytest.param(50, marks=pytest.mark.slow)])
def test_one_of_many_processes_takes_over_from_a_killed_one(
    tmp_path: Path, takers: subprocess.Popen[str], rounds: int
) -> None:
    for _ in range(rounds):
        said = answers(takers, "run one 4\n", 4)
        assert sorted(how for how, _ in said) == ["held", "refused", "refused", "refused"]
        (owner,) = (int(pid) for how, pid in said if how == "held")
        assert owner_of(open_folder(tmp_path / "run")).pid == owner
        assert answers(takers, "kill\n", 1) == [["ended"]]


def test_one_of_many_machines_takes_over_from_a_silent_one(
    tmp_path: Path, takers: subprocess.Popen[str]
) -> None:
    folder = open_folder(tmp_path / "run")
    folder.write("dsoftmax-lease.json", elsewhere().encoded())
    said = answers(takers, "run many 4\n", 4)
    # Where the machine is so busy that a owner is silent for long enough, another may follow.
    held = [int(pid) for how, pid in said if how == "held"]
    assert owner_of(folder).pid in held
    assert answers(takers, "kill\n", 1) == [["ended"]]
