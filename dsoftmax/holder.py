"""A process as another one can know it: where it runs, for whom, and whether it still does."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self
from uuid import getnode, uuid4

import psutil

# Where a batch system names the job, what tells the tasks of an array apart (Slurm and PBS give
# each its own job id), and what counts how often the job was started again.
_BATCH_SYSTEMS = (
    ("SLURM_JOB_ID", None, "SLURM_RESTART_COUNT"),
    ("PBS_JOBID", None, None),
    ("LSB_JOBID", "LSB_JOBINDEX", None),
    ("JOB_ID", "SGE_TASK_ID", None),
)


@dataclass(frozen=True)
class Holder:
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
        return cls(socket.gethostname(), _space(), pid, started, job, run, uuid4().hex)

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

    def is_beside(self, other: Holder) -> bool:
        """Whether two holders see each other's process ids."""
        return (self.host, self.space) == (other.host, other.space)

    def is_running(self, seen_from: Holder) -> bool | None:
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


def _space() -> str:
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
