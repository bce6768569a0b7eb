"""What reading and reducing rows cost, and what a task returns with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dsoftmax.data.retry import BadChunk
from dsoftmax.events import TimeSplit
from dsoftmax.storage.records import storable
from dsoftmax.typing import Additive

storable(TimeSplit)  # a checkpoint holds costs, and events know nothing of storage


@storable
@dataclass(frozen=True)
class Cost(Additive):
    """What reading and reducing rows cost.

    Attributes
    ----------
    rows, bytes : reduced, and decoded
    reads : spans decoded
    retries : reads that were tried again
    time : where the seconds of the workers went, and those in which slots had nothing to do
    seconds : from the start of a reduction to its end; 0 for that of a single task
    """

    rows: int = 0
    bytes: int = 0
    reads: int = 0
    retries: int = 0
    time: TimeSplit = field(default_factory=TimeSplit)
    seconds: float = 0.0


@storable
@dataclass(frozen=True)
class PartialSum:
    """A sum that is not complete: a checkpoint may hold it, and `Pass.reduce` resumes from it.

    Attributes
    ----------
    nodes : finished nodes of its tree by (level, index), see `Tree`
    cost : of the tasks so far
    points : digest of the points that are evaluated, "" for a sum that has none
    """

    nodes: Nodes
    cost: Cost
    points: str = ""


Nodes = dict[tuple[int, int], Any]


class TaskResult(NamedTuple):
    """What a task returns.

    Attributes
    ----------
    nodes : finished nodes of its part of the tree
    cost : what they cost
    bad_chunks : chunks that cannot be read, whose leaves are missing among the nodes
    numerics : what rounding depends on, by the address of the worker or the name of this host
    """

    nodes: Nodes
    cost: Cost
    bad_chunks: tuple[BadChunk, ...]
    numerics: dict[str, str]
