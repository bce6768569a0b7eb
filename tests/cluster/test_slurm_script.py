"""The batch script without Slurm: what it does before it starts a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent / "cluster/slurm.sbatch"


def test_a_run_file_that_is_missing_ends_the_batch_script_with_the_error_last(
    tmp_path: Path,
) -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "here", "SLURM_NTASKS": "2"}
    task = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3", "SLURM_MEM_PER_CPU": "500"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    (tmp_path / "dsoftmax-7.log").touch()
    done = subprocess.run(
        ["bash", SCRIPT, "job.toml", "--checkpoint", "https://me:SECRET@host/state"],
        env={**os.environ, **job, **task, "PATH": path},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    first, *_, last = done.stdout.splitlines()
    assert done.returncode == 2
    assert "job 5_3 on here" in first
    assert "--seed 3 --run-folder runs/seed-3" in first
    assert "SECRET" not in done.stdout
    assert "job.toml' does not exist" in last
    assert [found.name for found in tmp_path.iterdir()] == ["dsoftmax-5_3.log"]
