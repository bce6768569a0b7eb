"""A fit that is longer than its jobs: run it again until it is done.

    python pipelines/resubmit.py STORE MODEL [SECONDS]

Each job is `dsoftmax train` with a checkpoint. The batch system's SIGTERM at the end of its time
(here after SECONDS) makes it write the checkpoint and end with exit code 75, "try again"; then
the same command is submitted once more, and goes on where it was, to the bits that an
uninterrupted fit has. With Slurm the two functions are `sbatch --signal=TERM@60` and, within the
job, `scontrol requeue`; a checkpoint at a URL may be gone on with from another machine.
"""

from __future__ import annotations

import subprocess
import sys

from dsoftmax import load_model

TRY_AGAIN = 75


def job(store: str, model: str, checkpoint: str, seconds: float) -> int:
    """Run one job, end it by SIGTERM when its time is over, and return its exit code."""
    command = [sys.executable, "-m", "dsoftmax", "train", store, model, "--quiet"]
    command += ["--checkpoint", checkpoint, "--tol", "1e-6", "--max-iter", "2000"]
    with subprocess.Popen(command) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            return process.wait()


def main(store: str, model: str, seconds: float) -> None:
    """Submit the job until its exit code is another than 75."""
    for submission in range(1, 1000):
        code = job(store, model, f"{model}.checkpoint", seconds)
        print(f"submission {submission}: exit code {code}", flush=True)
        if code != TRY_AGAIN:
            break
    if code != 0:
        sys.exit(code)
    fitted = load_model(model)
    print(f"loss {fitted.loss_:.6f} after {fitted.n_iter_} passes: {fitted.stop_reason_}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python pipelines/resubmit.py STORE MODEL [SECONDS]")
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 3600.0)
