"""Stops `dsoftmax train` by signals at random times, and counts how it ends.

    python -m tests.benchmarks.stops FOLDER [TRIALS] [cluster|process ...]

Each trial starts a run with a checkpoint, sends it one to three signals (SIGINT or SIGTERM), the
first at a random time of its life, from the start of the interpreter to its end. It counts the
exit codes, processes and temporary files that are left, and what is printed that should not be. Of
every sixth run, the same command is run again until it is done: the model has to have the bits of
an undisturbed run. Then it is run once more, and has to end at once with exit code 0.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import zarr

from dsoftmax import load_model

WHERE = {"process": (), "cluster": ("--workers", "2", "--memory-limit", "500MB")}
_MARK = "DSOFTMAX_TRIAL"
_NEVER_SAID = ("Traceback", "Aborted", "Exception ignored")
_AGAIN = 6  # one trial in so many is run again to its end
_MOST_SECONDS = 8.0  # an undisturbed run may take, on a machine that is idle
_GONE_SECONDS = 1.0  # for which a process that was killed may take to vanish


@dataclass(frozen=True)
class Trial:
    """How a run was stopped, and how it ended.

    Attributes
    ----------
    where : it ran: a key of `WHERE`
    signals : sent
    seconds : after its start that the first was sent
    early : whether the first of them came before the command had its handlers
    code : its exit code
    said : on standard error
    left : what it left behind: processes, temporary files
    again : how runs of the same command ended, to the end
    """

    where: str
    signals: tuple[str, ...]
    seconds: float
    early: bool
    code: int
    said: str
    left: tuple[str, ...]
    again: tuple[int, ...] = ()

    @property
    def faults(self) -> list[str]:
        """What is not as it has to be."""
        found = [*self.left]
        if self.early:  # Python decides
            return found
        if self.code not in (0, 75):  # 0: it was done before
            found.append(f"exit code {self.code}")
        found += [words for words in _NEVER_SAID if words in self.said]
        if self.again and (self.again[-2:] != (0, 0) or set(self.again[:-2]) - {75}):
            found.append(f"run again: {self.again}")
        return found


class Trials:
    """Trials on one small store, whose undisturbed model is known.

    Parameters
    ----------
    folder : where everything is written, which must not exist
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        rng = np.random.default_rng(0)
        X = rng.normal(size=(12_000, 24)).astype("f4")
        y = (X @ rng.normal(size=(24, 5)) + rng.gumbel(size=(12_000, 5))).argmax(axis=1)
        group = zarr.open_group(folder / "data.zarr", mode="w")
        group.create_array("X", data=X, chunks=(500, 24))
        group.create_array("y", data=y, chunks=(500,))
        self._seconds: dict[str, float] = {}
        for where in WHERE:
            started = time.monotonic()
            process = self._start(folder / where, where)
            process.communicate(timeout=120)
            assert process.returncode == 0
            self._seconds[where] = min(time.monotonic() - started, _MOST_SECONDS)
        self._expected = self._bits(folder / "process")

    def run(self, where: str, seed: int, *, again: bool) -> Trial:
        """Stop a run, and say how it ended."""
        rng = np.random.default_rng(seed)
        place = self._folder / f"{where}-{seed}"
        names = rng.choice(["SIGINT", "SIGTERM"], size=int(rng.integers(1, 4)))
        seconds = float(rng.uniform(0, 1.05 * self._seconds[where]))
        process = self._start(place, where)
        sent, early = [], False
        for name, wait in zip(names, [seconds, *rng.exponential(0.3, len(names))], strict=False):
            try:
                process.wait(wait)
                break
            except subprocess.TimeoutExpired:
                early = early or (not sent and not _takes_signals(process.pid))
                process.send_signal(getattr(signal, name))
                sent.append(str(name))
        _, said = process.communicate(timeout=120)
        left = self._left(place)
        codes = self._again(place, where) if again else ()
        return Trial(where, tuple(sent), seconds, early, process.returncode, said, left, codes)

    def _again(self, place: Path, where: str) -> tuple[int, ...]:
        codes = []
        while len(codes) < 9 and codes[-2:] != [0, 0]:
            process = self._start(place, where)
            process.communicate(timeout=120)
            codes.append(process.returncode)
        return (*codes, *([] if self._bits(place) == self._expected else [-99]))

    def _start(self, place: Path, where: str) -> subprocess.Popen[str]:
        temporary = place / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        arguments = ["train", f"{self._folder}/data.zarr", f"{place}/model.zarr", "--quiet"]
        arguments += ["--checkpoint", f"{place}/state", "--solver", "lbfgs"]
        arguments += ["--max-iter", "25", "--tol", "0", *WHERE[where]]
        settings = {"DASK_DSOFTMAX__CHECKPOINT_INTERVAL": "0", "TMPDIR": str(temporary)}
        return subprocess.Popen(
            [sys.executable, "-m", "dsoftmax", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | settings | {_MARK: str(place)},
        )

    def _left(self, place: Path) -> tuple[str, ...]:
        deadline = time.monotonic() + _GONE_SECONDS
        while (alive := _marked(place)) and time.monotonic() < deadline:
            time.sleep(0.05)
        files = sorted(path.name for path in (place / "tmp").iterdir())
        return (*(f"process {name}" for name in alive), *(f"file {name}" for name in files))

    def _bits(self, place: Path) -> bytes:
        return bytes(load_model(place / "model.zarr").coef_.tobytes())


def _takes_signals(pid: int) -> bool:
    """Return whether a process catches SIGTERM, as far as the system tells."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended, or this is not Linux
        return True
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def _marked(place: Path) -> list[str]:
    """Return the command lines of the processes that a run has started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == str(place):
                found.append(" ".join(process.cmdline())[:80])
        except psutil.Error:
            continue
    return found


def main(folder: Path, n_trials: int, places: list[str]) -> None:
    """Run trials, and print the exit codes by where they ran and how many signals they got."""
    trials = Trials(folder)
    for where in places:
        counts: dict[str, Counter[int]] = defaultdict(Counter)
        n_faults = n_again = 0
        for seed in range(n_trials):
            trial = trials.run(where, seed, again=seed % _AGAIN == 0)
            kind = "before it takes them" if trial.early else f"{len(trial.signals)} signals"
            counts[kind][trial.code] += 1
            n_again += bool(trial.again)
            if trial.faults:
                n_faults += 1
                print(f"{where} {seed}: {trial.faults}, after {trial.seconds:.2f} s", flush=True)
                print(f"    {trial.signals} {trial.said.strip()[-600:]}", flush=True)
        print(f"{where}: {n_trials} trials, {n_again} run again, {n_faults} with faults")
        for kind, codes in sorted(counts.items()):
            print(f"  {kind}: {dict(sorted(codes.items()))}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int((sys.argv[2:] or ["100"])[0]), sys.argv[3:] or list(WHERE))
