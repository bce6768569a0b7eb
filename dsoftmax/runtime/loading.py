"""Rows of a task, decoded: remembered, or read, or read ahead while others are reduced.

To read ahead pays where reads wait for their storage: then the next span is fetched and
decoded by a thread while this one is reduced. Where they do not, both would fight for the same
core, and the task reads when it needs to. Which it is, is learned from the reads before.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from dsoftmax.cache import ByteCache
from dsoftmax.reduction import Chunk
from dsoftmax.runtime.memory import below
from dsoftmax.sampling import Leaf, Piece, permutation
from dsoftmax.sources.base import Source
from dsoftmax.sources.faults import retries_here
from dsoftmax.sources.timing import decoded_here, decoding

_WORTH_IT = 0.2  # share of the time in which storage is waited for, from which to read ahead
_NEWEST = 0.2  # weight of the last read in that share


class Keep(NamedTuple):
    """How a worker remembers decoded spans.

    Attributes
    ----------
    run : under which name
    most : within how many bytes
    ceiling : of the memory of its process, with which it remembers no more; 0 for none
    release : whether the rows of the task are not asked for again in this epoch
    all_in_turn : whether all spans are asked for in turn, again and again; what is held then
        stays, since the span that was used least recently is the one that comes next
    """

    run: str
    most: int
    ceiling: int
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

    @property
    def pieces(self) -> Sequence[Piece]:
        """What it reads, in order."""
        return [piece for leaf in self.leaves for piece in leaf]


class Loaded(NamedTuple):
    """The rows of a piece, and what it took to have them.

    Attributes
    ----------
    chunk : Chunk
    bytes, reads : decoded for it, and in how many spans
    read_seconds, decode_seconds : for which storage, and decoding and shuffling, were waited for
    fetch_seconds : for which the storage was waited for, by this thread or another one
    retries : of reads
    """

    chunk: Chunk
    bytes: int
    reads: int
    read_seconds: float
    decode_seconds: float
    fetch_seconds: float
    retries: int


class Loader:
    """Loads the pieces of a task, one after the other.

    As a context, it lets go of what it has begun to read.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._next = dict(pairwise(task.pieces))
        self._ahead: dict[Piece, concurrent.futures.Future[Loaded]] = {}
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def load(self, piece: Piece) -> Loaded:
        """Return the rows of a piece, and begin to read the next one if that pays."""
        ahead, started = self._ahead.pop(piece, None), time.perf_counter()
        loaded = _load(self._task, piece) if ahead is None else ahead.result()
        if ahead is not None:
            loaded = _waited_for(loaded, time.perf_counter() - started)
        following = self._next.get(piece)
        if following is not None and self._pays(following):
            self._pool = self._pool or concurrent.futures.ThreadPoolExecutor(1, "dsoftmax-ahead")
            self._ahead[following] = self._pool.submit(_load, self._task, following)
        return loaded

    def _pays(self, piece: Piece) -> bool:
        stored = self._task.parts[piece.start].X.may_wait
        return stored and not self._task.targets_only and _storage.share > _WORTH_IT


def _waited_for(loaded: Loaded, seconds: float) -> Loaded:
    """Return what was read ahead, with the time for which it was waited for in the end."""
    read = min(loaded.read_seconds, seconds)
    return loaded._replace(read_seconds=read, decode_seconds=seconds - read)


class _Storage:
    """How much of their time the tasks of this process would wait for storage."""

    share = 0.0

    def note(self, loaded: Loaded, kernel_seconds: float) -> None:
        own = loaded.fetch_seconds + loaded.decode_seconds + kernel_seconds
        if loaded.reads and own > 0:
            self.share += _NEWEST * (loaded.fetch_seconds / own - self.share)


_storage = _Storage()


def note(loaded: Loaded, kernel_seconds: float) -> None:
    """Take note of how long rows took to load and to reduce: it tells whether to read ahead."""
    _storage.note(loaded, kernel_seconds)


def _load(task: Task, piece: Piece) -> Loaded:
    started, decoded, retries = time.perf_counter(), decoded_here(), retries_here()
    chunk, n_bytes, reads = _rows(task, piece)
    decoded = decoded_here() - decoded
    read = time.perf_counter() - started - decoded
    return Loaded(chunk, n_bytes, reads, read, decoded, read, retries_here() - retries)


def _rows(task: Task, piece: Piece) -> tuple[Chunk, int, int]:
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
        _remember(key, span, keep)
    if not keep.all_in_turn and keep.release and piece.high == piece.stop - piece.start:
        _spans.drop(key)
    return span, reads


def _remember(key: tuple[Any, ...], span: Chunk, keep: Keep) -> None:
    if not keep.all_in_turn:
        _spans.put(key, span, span.nbytes, keep.most)
    elif below(keep.ceiling):  # the span itself is there already
        _spans.put(key, span, span.nbytes, keep.most, lambda other: bool(other[0] == keep.run))


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
