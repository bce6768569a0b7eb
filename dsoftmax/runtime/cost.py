"""What reading and reducing rows cost, and what a task returns with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from dsoftmax.data.retry import BadChunk


@dataclass(frozen=True)
class Cost:
    """What a reduction cost.

    Attributes
    ----------
    work : rows, bytes and seconds of the workers, added up
    seconds : from start to end
    waiting_seconds : slot-seconds in which nothing was read, decoded or computed
    """

    work: TaskCost
    seconds: float
    waiting_seconds: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.work + other.work,
            self.seconds + other.seconds,
            self.waiting_seconds + other.waiting_seconds,
        )


@dataclass(frozen=True)
class TaskCost:
    """What a task did.

    Attributes
    ----------
    rows, bytes : reduced, and decoded
    reads : spans decoded
    read_seconds, decode_seconds, kernel_seconds : spent waiting for storage, decoding and
        shuffling, and computing
    retries : reads that were tried again
    """

    rows: int = 0
    bytes: int = 0
    reads: int = 0
    read_seconds: float = 0.0
    decode_seconds: float = 0.0
    kernel_seconds: float = 0.0
    retries: int = 0

    def __add__(self, other: TaskCost) -> TaskCost:
        return TaskCost(
            self.rows + other.rows,
            self.bytes + other.bytes,
            self.reads + other.reads,
            self.read_seconds + other.read_seconds,
            self.decode_seconds + other.decode_seconds,
            self.kernel_seconds + other.kernel_seconds,
            self.retries + other.retries,
        )


NO_COST = Cost(TaskCost(), 0.0, 0.0)


@dataclass(frozen=True)
class PartialSum:
    """A sum under way: it can be written down, and taken up again by `reduce`.

    Attributes
    ----------
    nodes : finished nodes of its tree by (level, index), merged as siblings meet
    cost : what they cost
    """

    nodes: Nodes
    cost: Cost


Nodes = dict[tuple[int, int], Any]


class TaskResult(NamedTuple):
    """What a task returns.

    Attributes
    ----------
    nodes : finished nodes of its part of the tree
    work : Work
    bad_chunks : chunks that cannot be read, whose leaves are missing among the nodes
    numerics : what the arithmetic depends on, by the address of the worker or the name of this host
    """

    nodes: Nodes
    work: TaskCost
    bad_chunks: tuple[BadChunk, ...]
    numerics: dict[str, str]
