"""A lock on a folder: one process at a time writes to it, also after another was killed.

The lock is a small JSON file that names its owner, who writes it again every few seconds (the
heartbeat). To take over the lock of a dead process, another one first creates a claim: a file
named after the digest of the lock file, which only one process can create. If the lock file
still has that content, it is replaced. This needs exclusive creation alone: no renaming, and no
clock that two machines share. A store without conditional puts (see
`dsoftmax.storage.atomic_folder`) makes it best effort.
"""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import getnode, uuid4

import psutil

from dsoftmax.errors import CheckpointError
from dsoftmax.storage.atomic_folder import dsoftmax_files, open_folder
from dsoftmax.storage.digests import short_digest

_NAME = "dsoftmax-lease.json"
_BEAT_SECONDS = 10.0
_SILENCE_SECONDS = 60.0
_POLLS_A_BEAT = 20
_TRIES = 1000
_held_tokens: set[str] = set()  # of the locks that this process holds


class FolderLock:
    """A context in which no other process writes to a folder.

    Parameters
    ----------
    place : path or URL
    on_wait : called with a message, at most once, before waiting for missing heartbeats

    Raises
    ------
    CheckpointError
        When entered, if another process holds the lock, or it cannot be written.
    DataError
        When entered, if the folder holds other things and no checkpoint.

    Notes
    -----
    The lock of a process that has ended is taken over at once on the same machine, or by a
    later run of the same batch job; any other after a minute without a heartbeat.
    """

    def __init__(
        self, place: str | os.PathLike[str], on_wait: Callable[[str], None] | None = None
    ) -> None:
        self._folder = open_folder(place)
        self._on_wait = on_wait
        self._owner = LockOwner.this_process()

    def __enter__(self) -> Self:
        if self._owner.token in _held_tokens:
            raise self._refusal(self._owner)
        self._owner = LockOwner.this_process()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._send_heartbeats, name="dsoftmax-lock", daemon=True
        )
        _held_tokens.add(self._owner.token)
        try:
            dsoftmax_files(self._folder)
            self._acquire(_NAME)
            self._remove_leftovers()
            self._renewed = time.monotonic()
            self._thread.start()
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                raise CheckpointError(
                    f"{self._folder.place} cannot be written to ({error}); give another folder"
                ) from error
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if os.getpid() == self._owner.pid:  # a forked child leaves its parent's lock alone
            self._release()

    def require(self) -> None:
        """Raise CheckpointError if another process has taken the lock over.

        It reads the lock file. While that fails, the lock counts as held: an outage must not
        end a run.
        """
        try:
            taker = self._taker()
        except OSError:
            return
        if taker:
            raise CheckpointError(
                f"{self._folder.place} was taken over by {taker}, since this process gave no sign "
                f"of life for {_SILENCE_SECONDS:.0f} s; this run must not write there any more"
            )

    def _acquire(self, name: str) -> None:
        """Create a lock or claim file, or replace it if its owner is dead."""
        content = self._owner.encoded()
        for _ in range(_TRIES):
            try:
                self._folder.create(name, content)
                return
            except FileExistsError:
                dead = self._dead_content(name)
            if dead is not None and self._replaced(name, dead, content):
                return
        raise OSError(f"{name} can neither be read nor created")

    def _replaced(self, name: str, dead: bytes, content: bytes) -> bool:
        """Replace the file of a dead owner under a claim; return False if another did it first."""
        claim = f"{_NAME}-after-{short_digest(name, dead)}"
        self._acquire(claim)  # the owner of a claim, too, may have died before it was done
        try:
            if self._content(name) != dead:
                return False
            self._folder.write(name, content)
            return True
        finally:
            self._folder.remove(claim)

    def _dead_content(self, name: str) -> bytes | None:
        """Return a file whose owner is dead, or None once it is gone; refuse a living owner."""
        poll = _BEAT_SECONDS / _POLLS_A_BEAT
        first = self._content(name)
        # Silence is counted in polls, not by a clock: if all processes are paused together (a
        # laptop that sleeps), none of it passes.
        for waits in range(math.ceil(_SILENCE_SECONDS / poll) + 1):
            content = self._content(name) if waits else first
            if content is None:
                return None
            owner = LockOwner.decoded(content)
            running = None if owner is None else owner.is_running(self._owner)
            if running is False:
                return content
            if running or content != first:
                raise self._refusal(owner)
            self._tell_of_wait(owner)
            time.sleep(poll)
        return first

    def _refusal(self, owner: LockOwner | None) -> CheckpointError:
        return CheckpointError(
            f"{self._folder.place} is in use by {owner or 'another process'}; wait for it to end, "
            "or give another folder (in GridSearchCV and the like, each candidate its own)"
        )

    def _tell_of_wait(self, owner: LockOwner | None) -> None:
        say, self._on_wait = self._on_wait, None
        if say is not None:
            say(
                f"{self._folder.place} is held by {owner or 'an unknown process'}; taking it over "
                f"if there is no sign of life for {_SILENCE_SECONDS:.0f} s"
            )

    def _remove_leftovers(self) -> None:
        """Remove claims and partial files of killed processes; no living one relies on them."""
        for name in self._folder.names():
            if name.startswith(_NAME) and name != _NAME:
                self._folder.remove(name)

    def _send_heartbeats(self) -> None:
        while not self._stop.wait(_BEAT_SECONDS):
            with suppress(OSError):  # an outage, a full disk: the next beat may succeed
                if self._taker():
                    return
                self._owner = replace(self._owner, beat=self._owner.beat + 1)
                self._folder.write(_NAME, self._owner.encoded())
                self._renewed = time.monotonic()

    def _taker(self) -> str:
        """Return who has taken the lock over, "" if no one has."""
        content = self._content(_NAME)
        if content is None:  # no one takes it and releases it in less time than that
            silent = time.monotonic() - self._renewed >= _SILENCE_SECONDS
            return "a process that has ended since" if silent else ""
        owner = LockOwner.decoded(content)
        return "" if owner is None or owner.token == self._owner.token else str(owner)

    def _release(self) -> None:
        self._stop.set()
        try:
            if self._thread.is_alive():  # it must not write the file again after its removal
                self._thread.join(_SILENCE_SECONDS)
            with suppress(OSError):
                owner = LockOwner.decoded(self._content(_NAME))
                if owner is not None and owner.token == self._owner.token:
                    self._folder.remove(_NAME)
                self._folder.leave()
        finally:
            _held_tokens.discard(self._owner.token)

    def _content(self, name: str) -> bytes | None:
        try:
            return self._folder.read(name)
        except FileNotFoundError:
            return None


@dataclass(frozen=True)
class LockOwner:
    """The process that holds a lock, as the lock file describes it.

    Attributes
    ----------
    host : name of the machine
    space : where its process id is unique: a boot of a kernel, and a container
    pid : process id
    started : when the process was created, in seconds
    job : the batch job, "" outside one
    run : which run of that job it is, "" where the scheduler does not say
    token : unique to each acquired lock
    beat : number of its last heartbeat
    """

    host: str
    space: str
    pid: int
    started: float
    job: str
    run: str
    token: str
    beat: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f" ({self.job})" if self.job else "")

    @classmethod
    def this_process(cls) -> Self:
        """Return the running process, with a new token."""
        pid, (job, run) = os.getpid(), _batch_job()
        return cls(socket.gethostname(), _pid_space(), pid, _start_time(pid), job, run, uuid4().hex)

    @classmethod
    def decoded(cls, content: bytes | None) -> Self | None:
        """Return the owner that a lock file names, or None if it is no lock file."""
        try:
            owner = cls(**json.loads(content or b""))
        except (TypeError, ValueError, RecursionError):
            return None
        kinds = (str, str, int, float, str, str, str, int)
        return owner if tuple(map(type, asdict(owner).values())) == kinds else None

    def encoded(self) -> bytes:
        """Return the content of the lock file."""
        return json.dumps(asdict(self)).encode()

    def is_running(self, seen_from: LockOwner) -> bool | None:
        """Whether the process runs, or None if only its heartbeat can tell."""
        if (self.host, self.space) != (seen_from.host, seen_from.space):
            # Processes of one run of a job can be on several machines at a time; those of two
            # runs follow each other.
            follows = self.run != seen_from.run or not self.run
            return False if self.job and self.job == seen_from.job and follows else None
        if self.pid == seen_from.pid:  # a file that this process could not remove may be left
            return self.token in _held_tokens
        try:
            # Another start time means that the system has given the id to another process.
            return abs(_start_time(self.pid) - self.started) < 1.0
        except (psutil.NoSuchProcess, ValueError):
            return False
        except psutil.Error:  # a process that this user may not look at
            return None


def _start_time(pid: int) -> float:
    process = psutil.Process(pid)
    if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        raise psutil.ZombieProcess(pid)
    # On Linux the kernel counts from the boot; the time of day of both moves when clocks are set.
    boot_time = psutil.boot_time() if psutil.LINUX else 0.0
    return float(process.create_time() - boot_time)


def _pid_space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        return f"{getnode():x}"


def _batch_job() -> tuple[str, str]:
    """Return the job as Slurm, PBS, LSF or Grid Engine name it, and which run of it this is."""
    environ = os.environ
    if job := environ.get("SLURM_JOB_ID"):  # the tasks of an array have ids of their own
        return f"batch job {job}", environ.get("SLURM_RESTART_COUNT", "0")
    if job := environ.get("PBS_JOBID"):
        return f"batch job {job}", ""
    for name, index in (("LSB_JOBID", "LSB_JOBINDEX"), ("JOB_ID", "SGE_TASK_ID")):
        if environ.get(name) and environ.get(index):  # others may set JOB_ID, too
            return f"batch job {environ[name]}[{environ[index]}]", ""
    return "", ""
