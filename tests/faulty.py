"""Arrays that fail by a script: faults as data."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from distributed.protocol.pickle import cloudpickle

from dsoftmax.data.row_array import RowArray
from dsoftmax.data.source import Source

FAULTS: dict[str, tuple[type[Exception], tuple[Any, ...]]] = {
    "timeout": (TimeoutError, ("the storage is slow",)),
    "reset": (ConnectionResetError, ("the storage has hung up",)),
    "busy": (OSError, (errno.EBUSY, "503 Slow Down")),
    "bad": (ValueError, ("the checksum does not match",)),
}


@dataclass(frozen=True)
class Faulty:
    """A RowArray of which some chunks fail.

    Attributes
    ----------
    array : what it reads
    script : by the first row of a chunk, what happens at each read of it in turn: "ok", or one of
        FAULTS; the last entry goes for all reads after it
    log : folder in which the reads of all processes are counted
    """

    array: RowArray
    script: Mapping[int, Sequence[str]]
    log: Path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.array, name)

    def read(self, start: int, stop: int) -> np.ndarray:
        for row in self.script:
            if start <= row < stop:
                turns = self.script[row]
                turn = turns[min(self._count(row), len(turns) - 1)]
                if turn != "ok":
                    kind, arguments = FAULTS[turn]
                    raise kind(*arguments)
        return self.array.read(start, stop)

    def _count(self, row: int) -> int:
        """Return how often the chunk was read before, in any process."""
        for number in range(10**6):
            try:
                os.close(os.open(self.log / f"{row}-{number}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            return number
        raise AssertionError

    def reads(self, row: int) -> int:
        """How often a chunk in the script was read."""
        return len(list(self.log.glob(f"{row}-*")))

    def part(self, start: int, stop: int) -> Faulty:
        return replace(self, array=self.array.part(start, stop))

    def with_blocks(self, blocks: Mapping[Any, Any]) -> Faulty:
        return self


@dataclass(frozen=True)
class Deadly(Faulty):
    """An array whose reader is killed at a row, as the kernel does without memory."""

    row: int = 0

    def read(self, start: int, stop: int) -> np.ndarray:
        if start <= self.row < stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.array.read(start, stop)


def with_faults(source: Source, script: Mapping[int, Sequence[str]], log: Path) -> Source:
    """Return a source whose X fails by a script."""
    log.mkdir(exist_ok=True)
    return replace(source, X=Faulty(source.X, script, log))


def by_value(module: ModuleType) -> None:
    """Have the classes of a module travel with the tasks: workers do not have it."""
    cloudpickle.register_pickle_by_value(module)


by_value(sys.modules[__name__])
