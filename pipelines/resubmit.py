"""A fit that is longer than its jobs: run it again until it is done.

    python pipelines/resubmit.py STORE MODEL [SECONDS]

Each job is `dsoftmax train` with a checkpoint. The batch system's SIGTERM at the end of its time
(here after SECONDS) makes it write the checkpoint and end with exit code 75, "try again"; then
the same command is submitted once more, and goes on where it was, to the bits that an
uninterrupted fit has. What is cancelled, by Ctrl-C or SIGTERM to this program, is not: with a
checkpoint it ends in the same way, so who submits has to know which of the two it was. With Slurm
that is `cluster/slurm.sbatch`, where the end of the time has a signal of its own. A checkpoint at a
URL may be gone on with from another machine.
"""

from __future__ import annotations

import signal
import subprocess
import sys

from dsoftmax import load_model

TRY_AGAIN = 75


def job(store: str, model: str, checkpoint: str, seconds: float) -> int:
    """Run one job, end it by SIGTERM when its time is over, and return its exit code.

    Raises
    ------
    KeyboardInterrupt
        If it is cancelled; the job has ended then.
    """
    command = [sys.executable, "-m", "dsoftmax", "train", store, model, "--quiet"]
    command += ["--checkpoint", checkpoint, "--tol", "1e-6", "--max-iter", "2000"]
    with subprocess.Popen(command) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise


def main(store: str, model: str, seconds: float) -> None:
    """Submit the job until its exit code is another than 75, or it is cancelled."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
    try:
        main(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 3600.0)
    except KeyboardInterrupt:
        sys.exit("cancelled; run it again to go on")
