"""Who may write to a folder: one process at a time, also after the one before it was killed.

The lease is a small file of JSON that says who holds it, and that its holder renews every few
seconds. To take over one that is dead, a process first creates a file named after the very
content of that lease, which only one can; if the lease still has that content, it is replaced.
This needs exclusive creation alone, no renaming, and no clock that two machines would share.
On a store without conditional puts (see `dsoftmax.storage.atomic_folder`) it is best effort.
"""

from __future__ import annotations

import hashlib
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
from dsoftmax.storage.atomic_folder import names_of_ours, open_folder

_NAME = "dsoftmax-lease.json"
_BEAT_SECONDS = 10.0
_SILENCE_SECONDS = 60.0
_POLLS_A_BEAT = 20
_TRIES = 1000
_held: set[str] = set()  # the tokens of the leases that this process holds


class FolderLock:
    """The right to write to a folder, for as long as the context lasts.

    Parameters
    ----------
    place : path or URL
    on_wait : called with a sentence, at most once, before waiting for a lease to fall silent

    Raises
    ------
    CheckpointError
        When entered, if another process holds it, or it cannot be written.
    DataError
        When entered, if the folder holds other things and no checkpoint.

    Notes
    -----
    The lease of a process that has ended is taken over at once on the same machine, or by a
    later run of the same batch job; any other after a minute without a sign of life.
    """

    def __init__(
        self, place: str | os.PathLike[str], on_wait: Callable[[str], None] | None = None
    ) -> None:
        self._folder = open_folder(place)
        self._on_wait = on_wait
        self._holder = LockOwner.this_process()

    def __enter__(self) -> Self:
        if self._holder.token in _held:
            raise self._refusal(self._holder)
        self._holder = LockOwner.this_process()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="dsoftmax-lease", daemon=True)
        _held.add(self._holder.token)
        try:
            names_of_ours(self._folder)
            self._take(_NAME)
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
        if os.getpid() == self._holder.pid:  # a forked child leaves its parent's lease alone
            self._release()

    def require(self) -> None:
        """Raise CheckpointError if another process has taken the lease over.

        The file is read for it; as long as it cannot be, no one else is assumed to have.
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

    def _take(self, name: str) -> None:
        """Create a file of ours, in the place of one whose holder is dead if need be."""
        content = self._holder.encoded()
        for _ in range(_TRIES):
            try:
                self._folder.create(name, content)
                return
            except FileExistsError:
                dead = self._dead(name)
            if dead is not None and self._replaced(name, dead, content):
                return
        raise OSError(f"{name} can neither be read nor created")

    def _replaced(self, name: str, dead: bytes, content: bytes) -> bool:
        """Replace a file, unless someone else did; whoever did it has had the claim to it."""
        claim = f"{_NAME}-after-{hashlib.sha256(name.encode() + dead).hexdigest()[:16]}"
        self._take(claim)  # a holder of it, too, may have died before it was done
        try:
            if self._content(name) != dead:
                return False
            self._folder.write(name, content)
            return True
        finally:
            self._folder.remove(claim)

    def _dead(self, name: str) -> bytes | None:
        """Return a file when its holder is dead, None once it is gone; refuse a living one."""
        poll = _BEAT_SECONDS / _POLLS_A_BEAT
        first = self._content(name)
        # Silence is counted in waits: if all processes are paused together, none of it passes.
        for waits in range(math.ceil(_SILENCE_SECONDS / poll) + 1):
            content = self._content(name) if waits else first
            if content is None:
                return None
            holder = LockOwner.decoded(content)
            running = None if holder is None else self._is_running(holder)
            if running is False:
                return content
            if running or content != first:
                raise self._refusal(holder)
            self._say_that_we_wait(holder)
            time.sleep(poll)
        return first

    def _is_running(self, holder: LockOwner) -> bool | None:
        if holder.pid == self._holder.pid and holder.is_beside(self._holder):
            return holder.token in _held
        return holder.is_running(self._holder)

    def _refusal(self, holder: LockOwner | None) -> CheckpointError:
        return CheckpointError(
            f"{self._folder.place} is in use by {holder or 'another process'}; wait for it to end, "
            "or give another folder (in GridSearchCV and the like, each candidate its own)"
        )

    def _say_that_we_wait(self, holder: LockOwner | None) -> None:
        say, self._on_wait = self._on_wait, None
        if say is not None:
            say(
                f"{self._folder.place} is held by {holder or 'an unknown process'}; taking it over "
                f"if there is no sign of life for {_SILENCE_SECONDS:.0f} s"
            )

    def _remove_leftovers(self) -> None:
        """Remove what killed holders and takers left; those alive do not rely on such files."""
        for name in self._folder.names():
            if name.startswith(_NAME) and name != _NAME:
                self._folder.remove(name)

    def _keep(self) -> None:
        while not self._left.wait(_BEAT_SECONDS):
            with suppress(OSError):  # an outage, a full disk: the next beat may succeed
                if self._taker():
                    return
                self._holder = replace(self._holder, beat=self._holder.beat + 1)
                self._folder.write(_NAME, self._holder.encoded())
                self._renewed = time.monotonic()

    def _taker(self) -> str:
        """Return who has taken the lease over, "" if no one has."""
        content = self._content(_NAME)
        if content is None:  # no one can have, and be done with it, in less than a silence
            silent = time.monotonic() - self._renewed >= _SILENCE_SECONDS
            return "a process that has ended since" if silent else ""
        found = LockOwner.decoded(content)
        return "" if found is None or found.token == self._holder.token else str(found)

    def _release(self) -> None:
        self._left.set()
        try:
            if self._thread.is_alive():  # it must not write the lease again after its removal
                self._thread.join(_SILENCE_SECONDS)
            with suppress(OSError):
                content = self._content(_NAME)
                holder = None if content is None else LockOwner.decoded(content)
                if holder is not None and holder.token == self._holder.token:
                    self._folder.remove(_NAME)
        finally:
            _held.discard(self._holder.token)

    def _content(self, name: str) -> bytes | None:
        try:
            return self._folder.read(name)
        except FileNotFoundError:
            return None


# Where a batch system names the job, what tells the tasks of an array apart (Slurm and PBS give
# each its own job id), and what counts how often the job was started again.
_BATCH_SYSTEMS = (
    ("SLURM_JOB_ID", None, "SLURM_RESTART_COUNT"),
    ("PBS_JOBID", None, None),
    ("LSB_JOBID", "LSB_JOBINDEX", None),
    ("JOB_ID", "SGE_TASK_ID", None),
)


@dataclass(frozen=True)
class LockOwner:
    """A process that holds something, as JSON can tell it.

    Attributes
    ----------
    host : name of the machine
    space : what process ids are unique in: a boot of a kernel, and a container
    pid : process id
    started : when the process was created, in seconds
    job : the batch job, "" outside one
    run : which run of that job it is, "" where the batch system does not say
    token : of this holder and no other
    beat : how often it gave a sign of life
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
        pid = os.getpid()
        job, run = _batch_job()
        started = _started(psutil.Process(pid))
        return cls(socket.gethostname(), _process_namespace(), pid, started, job, run, uuid4().hex)

    @classmethod
    def decoded(cls, content: bytes) -> Self | None:
        """Return the holder that wrote some JSON, None if none did."""
        try:
            holder = cls(**json.loads(content))
        except (TypeError, ValueError, RecursionError):
            return None
        kinds = (str, str, int, float, str, str, str, int)
        return holder if tuple(map(type, asdict(holder).values())) == kinds else None

    def encoded(self) -> bytes:
        """Return the holder as JSON."""
        return json.dumps(asdict(self)).encode()

    def is_beside(self, other: LockOwner) -> bool:
        """Whether two holders see each other's process ids."""
        return (self.host, self.space) == (other.host, other.space)

    def is_running(self, seen_from: LockOwner) -> bool | None:
        """Whether the process runs, as far as the calling one can know: None if it cannot."""
        if self.is_beside(seen_from):
            return _is_running(self.pid, self.started)
        # The processes of one run of a job can be on several machines at a time; those of two
        # runs follow each other.
        follows = self.run != seen_from.run or not self.run
        return False if self.job and self.job == seen_from.job and follows else None


def _is_running(pid: int, started: float) -> bool | None:
    try:
        if not psutil.pid_exists(pid):
            return False
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return False
        return abs(_started(process) - started) < 1.0  # otherwise the id was given out again
    except (psutil.Error, OverflowError):  # hidden from us, or no process id at all
        return None


def _started(process: psutil.Process) -> float:
    # On Linux the kernel counts from the boot; the time of day of both moves when clocks are set.
    origin = psutil.boot_time() if psutil.LINUX else 0.0
    return float(process.create_time() - origin)


def _process_namespace() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        return f"{getnode():x}"


def _batch_job() -> tuple[str, str]:
    for job, task, restarts in _BATCH_SYSTEMS:
        if os.environ.get(job) and (task is None or os.environ.get(task)):
            name = f"batch job {os.environ[job]}" + (f"[{os.environ[task]}]" if task else "")
            return name, os.environ.get(restarts, "0") if restarts else ""
    return "", ""
