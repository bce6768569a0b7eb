"""How often the execution changes from one file of the package to another.

    python -m tests.benchmarks.file_changes [--trace SOLVER]

For each solver one evaluation of one chunk is followed, from an `ask` of the solver to the next,
in the middle of a fit: the chunk has been decoded before, and one task of this process reduces
it. Counted are the calls of functions of the package, in the order in which they begin (to go on
with a generator is no call); the changes of file, which are pairs of consecutive calls in two
files; and the returns, which are changes to a file that had been left before.

`--trace` prints these calls instead, each further to the right than its caller, with a "+" where
a file comes first, and a "<" where it comes back.
"""

from __future__ import annotations

import argparse
import dis
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import mode
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np
import zarr

import dsoftmax
from dsoftmax import SoftmaxRegression

PACKAGE = str(Path(dsoftmax.__file__).parent)

# Rows enough for two blocks of the kernel, and a sample of fewer rows than there are, and of more
# than there are coefficients: what is followed is what happens to large data.
ROWS, FEATURES, CLASSES = 8192, 64, 10
SOLVERS: dict[str, dict[str, Any]] = {
    "lbfgs": {"max_iter": 8},
    "newton": {"max_iter": 6, "sample_size": 2048},
    "sgd": {"max_iter": 6, "batch_size": 1024},
}


class Call(NamedTuple):
    """The call of a function.

    Attributes
    ----------
    file : of the function, within the package
    function : its name, with that of its class
    depth : how many functions of the package were under way
    """

    file: str
    function: str
    depth: int


Cycle = tuple[Call, ...]


class Figures(NamedTuple):
    """How straight the way of a cycle is."""

    calls: int
    files: int
    changes: int
    returns: int


class Follower:
    """Records the calls of a fit, as a profile hook; as a callback, which cycles are evaluations.

    Attributes
    ----------
    cycles : the calls from each `ask` to the next
    evaluations : the cycles that told of a step or a pass, and decoded nothing for it
    """

    def __init__(self) -> None:
        self._ask: CodeType | None = None  # the first one: of the solver, and of none within it
        self.cycles: list[list[Call]] = []
        self.evaluations: list[int] = []

    def on_event(self, event: Any) -> None:
        if type(event).__name__ in ("StepEnded", "PassEnded") and self.cycles and not event.bytes:
            self.evaluations.append(len(self.cycles) - 1)

    def hook(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not of_package(code) or frame.f_lasti > entry(code):
            return
        if self._ask is None and code.co_name == "ask":
            self._ask = code
        if code is self._ask:
            self.cycles.append([])
        if self.cycles:
            file = code.co_filename.removeprefix(f"{PACKAGE}/")
            self.cycles[-1].append(Call(file, code.co_qualname, depth(frame)))

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follow this thread, and those that begin meanwhile."""
        threading.setprofile(self.hook)
        sys.setprofile(self.hook)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def usual(self) -> Cycle:
        """Return the most frequent evaluation, neither the first nor the last."""
        steady = sorted(set(self.evaluations) - {0, len(self.cycles) - 1})
        return mode(tuple(self.cycles[number]) for number in steady)


@cache
def of_package(code: CodeType) -> bool:
    return code.co_filename.startswith(f"{PACKAGE}/")


@cache
def entry(code: CodeType) -> int:
    """Return where a function begins: one that goes on after a `yield` does so beyond it."""
    return next(step.offset for step in dis.get_instructions(code) if step.opname == "RESUME")


def depth(frame: FrameType) -> int:
    """Return how many functions of the package are under way below a frame."""
    found, caller = 0, frame.f_back
    while caller is not None:
        found, caller = found + of_package(caller.f_code), caller.f_back
    return found


def build(folder: str) -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 17, (ROWS, FEATURES), "u1")
    raw = 0.05 * X @ rng.normal(size=(FEATURES, CLASSES))
    y = (raw + rng.gumbel(size=raw.shape)).argmax(axis=1)
    zarr.create_array(f"{folder}/X", data=X, chunks=X.shape)
    zarr.create_array(f"{folder}/y", data=y, chunks=y.shape)


def follow(solver: str) -> Cycle:
    """Return the calls of one evaluation."""
    follower = Follower()
    model = SoftmaxRegression(
        solver=solver, tol=0, random_state=0, callbacks=[follower], **SOLVERS[solver]
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build(folder)
        with follower.following():
            model.fit(f"{folder}/X", f"{folder}/y")
    return follower.usual()


def changes(cycle: Cycle) -> Iterator[tuple[Call, str]]:
    """Yield the calls, each with what it is: "+" in a new file, "<" back in one, else nothing."""
    seen = {cycle[0].file}
    yield cycle[0], "+"
    for before, call in pairwise(cycle):
        back = "<" if call.file in seen else "+"
        yield call, "" if call.file == before.file else back
        seen.add(call.file)


def figures(cycle: Cycle) -> Figures:
    signs = [sign for _, sign in changes(cycle)]
    files, returns = signs.count("+"), signs.count("<")
    return Figures(len(cycle), files, files - 1 + returns, returns)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.file_changes")
    parser.add_argument("--trace", choices=SOLVERS, metavar="SOLVER", help=", ".join(SOLVERS))
    solver = parser.parse_args().trace
    if solver is not None:
        cycle = follow(solver)
        top = min(call.depth for call in cycle)
        for call, sign in changes(cycle):
            print(f"{sign:<2}{'  ' * (call.depth - top)}{call.file}:{call.function}")
        return
    print(f"{'solver':<8}" + "".join(f"{name:>9}" for name in Figures._fields))
    for name in SOLVERS:
        print(f"{name:<8}" + "".join(f"{number:>9}" for number in figures(follow(name))))


if __name__ == "__main__":
    main()
