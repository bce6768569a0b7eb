"""A real Slurm on one node, started by hand: munged, slurmctld and slurmd, all in one folder."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "squeue", "srun")

_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=0
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
KillWait=10
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2
"""


def missing() -> list[str]:
    """Return the programs that this machine lacks."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [program for program in PROGRAMS if shutil.which(program, path=path) is None]


@dataclass
class Slurm:
    """A running node.

    Attributes
    ----------
    environment : of the commands that talk to it
    """

    environment: dict[str, str]

    def run(self, *command: str | Path, cwd: Path | None = None) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            env=self.environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def submit(self, *arguments: str | Path, cwd: Path) -> str:
        """Submit a batch job, and return its id."""
        return self.run("sbatch", "--parsable", *arguments, cwd=cwd)

    def state(self, job: str) -> str:
        """Return the states of a job, or of the tasks of an array."""
        found = self.run("squeue", "--all", "--noheader", "--states=all", "-o", "%T", "-j", job)
        return " ".join(sorted(set(found.split())))

    def shown(self, job: str, name: str) -> str:
        """Return what `scontrol show job` has to say under a name."""
        found = re.search(rf"\b{name}=(\S*)", self.run("scontrol", "show", "job", "-o", job))
        assert found is not None
        return found[1]

    def wait_for_end(self, job: str, seconds: float = 500) -> str:
        """Return the last state of a job; what was sent back to the queue starts at once."""
        ended = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}

        def has_ended() -> bool:
            self.hurry(job)
            return set(self.state(job).split()) <= ended

        wait_until(has_ended, seconds)
        return self.state(job)

    def hurry(self, job: str) -> None:
        """Have what was sent back to the queue start in some seconds, and not in two minutes.

        At once would be too soon: the node still takes it for the start that was ended.
        """
        waiting = self.run("squeue", "--noheader", "--states=PENDING", "-o", "%i %S", "-j", job)
        for line in waiting.splitlines():
            number, start = line.split()
            soon = datetime.now() + timedelta(seconds=20)
            if start != "N/A" and datetime.fromisoformat(start) > soon:
                with suppress(AssertionError):  # it starts just now
                    self.run("scontrol", "update", f"JobId={number}", "StartTime=now+8")


def processes_of(job: str) -> list[str]:
    """Return the commands of all that a job has started and that is alive."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("SLURM_JOB_ID") == job:
                found.append(" ".join(process.cmdline()))
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come to that"
        time.sleep(0.2)


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Start the three servers, which end with the context."""
    host = socket.gethostname().split(".")[0]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    folder.chmod(0o755)
    (folder / "slurm.conf").write_text(
        _CONFIGURATION.format(
            host=host,
            user=getpass.getuser(),
            folder=folder,
            controller=free_port(),
            node=free_port(),
        )
    )
    munge = [
        "munged",
        "--foreground",
        "--force",
        f"--key-file={key}",
        f"--socket={folder}/munge.socket",
        f"--pid-file={folder}/munge.pid",
        f"--log-file={folder}/munge.log",
        f"--seed-file={folder}/munge.seed",
    ]
    with ExitStack() as stack:
        for command in (munge, ["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", host]):
            stack.enter_context(_server(command, environment, folder / f"{command[0]}.out"))
        node = Slurm(environment)
        wait_until(lambda: _is_idle(node))
        yield node
        with suppress(AssertionError):
            node.run("scancel", "--full", "--user", getpass.getuser())
            wait_until(lambda: not node.run("squeue", "--noheader"), 30)


def _is_idle(node: Slurm) -> bool:
    try:
        return node.run("sinfo", "--noheader", "-o", "%T") == "idle"
    except AssertionError:  # the controller is not up yet
        return False


@contextmanager
def _server(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with (
        log.open("wb") as out,
        subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process,
    ):
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
