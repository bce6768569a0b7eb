"""What runs on a worker: read, decode, reduce, and return sums.

A task opens nothing for long and keeps nothing that matters: the chunks it remembers for
the next mini-batch are a cache, and a worker that has lost them decodes them again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from dsoftmax.cache import ByteCache
from dsoftmax.errors import ChunkError, DataError
from dsoftmax.reduction import Chunk, Reduction
from dsoftmax.runtime import blas
from dsoftmax.runtime.numerics import numerics, worker_name
from dsoftmax.runtime.spans import Tree
from dsoftmax.sampling import Leaf, Piece, permutation
from dsoftmax.sources.base import Source
from dsoftmax.sources.faults import Fault, retries_here
from dsoftmax.sources.timing import decoded_here, decoding

Result = TypeVar("Result")


@dataclass(frozen=True)
class Work:
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

    def __add__(self, other: Work) -> Work:
        return Work(
            self.rows + other.rows,
            self.bytes + other.bytes,
            self.reads + other.reads,
            self.read_seconds + other.read_seconds,
            self.decode_seconds + other.decode_seconds,
            self.kernel_seconds + other.kernel_seconds,
            self.retries + other.retries,
        )


class Keep(NamedTuple):
    """How a worker remembers decoded spans.

    Attributes
    ----------
    run : under which name
    most : within how many bytes
    release : whether the rows of the task are not asked for again in this epoch
    all_in_turn : whether all spans are asked for in turn, again and again; what is held then
        stays, since the span that was used least recently is the one that comes next
    """

    run: str
    most: int
    release: bool
    all_in_turn: bool


class Task(NamedTuple):
    """Consecutive leaves of a sum.

    Attributes
    ----------
    parts : where the rows of each span are, by the first row of the span
    blocks : Dask blocks among them, by key: futures until the task runs, then their values
    targets_only : whether y and weights are enough
    leaves : the rows of each leaf
    first, n_leaves : index of the first leaf, and how many the whole sum has
    keep : whether to remember decoded spans for the next task, or None
    """

    parts: dict[int, Source]
    blocks: dict[Any, Any]
    targets_only: bool
    leaves: tuple[Leaf, ...]
    first: int
    n_leaves: int
    keep: Keep | None

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(piece.rows for leaf in self.leaves for piece in leaf)


Nodes = dict[tuple[int, int], Any]


class Outcome(NamedTuple):
    """What a task returns.

    Attributes
    ----------
    nodes : finished nodes of its part of the tree
    work : Work
    faults : chunks that cannot be read, whose leaves are missing among the nodes
    worker : address of the worker, or what this process is called
    numerics : what its arithmetic depends on
    """

    nodes: Nodes
    work: Work
    faults: tuple[Fault, ...]
    worker: str
    numerics: str


def reduce_leaves(task: Task, reduction: Reduction[Any]) -> Outcome:
    """Return the sums of the task's part of the tree."""
    tree: Tree[Any] = Tree(task.n_leaves, reduction.combine)
    work = Work()
    faults: list[Fault] = []
    for index, leaf in enumerate(task.leaves, start=task.first):
        try:
            sums, done = _reduce_leaf(task, reduction, leaf)
        except ChunkError:
            found = _faults(task, leaf)
            faults += found
            if found:
                continue
            if all(part.most_bad == 0 for part in task.parts.values()):
                raise
            sums, done = _reduce_leaf(task, reduction, leaf)  # what was wrong with it has passed
        tree.add(0, index, sums)
        work += done
    return Outcome(tree.nodes, work, tuple(faults), worker_name(), numerics())


def _reduce_leaf(task: Task, reduction: Reduction[Any], leaf: Leaf) -> tuple[Any, Work]:
    sums, work = None, Work()
    for piece in leaf:
        part, done = _reduce_piece(task, reduction, piece)
        sums = part if sums is None else reduction.combine(sums, part)
        work += done
    return sums, work


def _faults(task: Task, leaf: Leaf) -> list[Fault]:
    """Return the chunks of a leaf that cannot be read, if it is allowed to leave some out."""
    found = []
    for piece in leaf:
        source = task.parts[piece.start].with_blocks(task.blocks)
        if source.most_bad == 0:
            return []
        inner = (row for row in source.chunks if piece.start < row < piece.stop)
        for start, stop in pairwise((piece.start, *inner, piece.stop)):
            try:
                source.read_targets(start, stop) if task.targets_only else source.read(start, stop)
            except ChunkError as error:
                found.append(Fault(start, stop, str(error)))
    return found


def with_one_blas_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a process that is a worker."""
    blas.keep()
    return function(*arguments)


def _reduce_piece(task: Task, reduction: Reduction[Any], piece: Piece) -> tuple[Any, Work]:
    started, decoded, retries = time.perf_counter(), decoded_here(), retries_here()
    chunk, read_bytes, reads = _load(task, piece)
    loaded, decoded = time.perf_counter(), decoded_here() - decoded
    sums = _named(task.parts[piece.start], reduction.chunk, chunk)
    done = time.perf_counter()
    return sums, Work(
        len(chunk.X), read_bytes, reads, loaded - started - decoded, decoded, done - loaded,
        retries_here() - retries,
    )  # fmt: skip


def _named(source: Source, function: Callable[[Chunk], Result], chunk: Chunk) -> Result:
    """Call a function, and have its error call X and y by their names."""
    try:
        return function(chunk)
    except DataError as error:
        role, _, rest = str(error).partition(" ")
        array = {"X": source.X, "y": source.y}.get(role)
        raise DataError(f"{role if array is None else array.name} {rest}") from None


def _load(task: Task, piece: Piece) -> tuple[Chunk, int, int]:
    """Return the rows of a piece, and how many bytes and spans were decoded for them."""
    source = task.parts[piece.start].with_blocks(task.blocks)
    if task.targets_only:
        return source.read_targets(piece.start, piece.stop), 0, 0
    if task.keep is None:
        span, reads = _read_shuffled(source, piece), 1
    else:
        span, reads = _remembered(source, piece, task.keep)
    return span.rows(piece.low, piece.high), reads * span.X.nbytes, reads


def _remembered(source: Source, piece: Piece, keep: Keep) -> tuple[Chunk, int]:
    """Return the span of a piece, decoded and shuffled now or in an earlier step.

    The span of a mini-batch is dropped with its last row: were it left to age, the next spans of
    all lanes would push out one another.
    """
    key = (keep.run, piece.start, piece.stop, piece.shuffle)
    span = _spans.get(key)
    reads = 0 if span is not None else 1
    if span is None:
        span = _read_shuffled(source, piece)
        stays = (lambda other: bool(other[0] == keep.run)) if keep.all_in_turn else None
        _spans.put(key, span, span.nbytes, keep.most, stays)
    if not keep.all_in_turn and keep.release and piece.high == piece.stop - piece.start:
        _spans.drop(key)
    return span, reads


def _read_shuffled(source: Source, piece: Piece) -> Chunk:
    span = source.read(piece.start, piece.stop)
    if piece.shuffle is None:
        return span
    with decoding():
        return span.take(permutation(piece))


_spans: ByteCache[tuple[Any, ...], Chunk] = ByteCache()


def forget(run: str) -> None:
    """Drop what this process remembers of a run: its end leaves no memory behind."""
    _spans.drop_if(lambda key: key[0].startswith(run))
