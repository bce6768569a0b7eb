"""The next span is read ahead: of a task where storage is waited for, of a step always."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from distributed import Client

from dsoftmax import ChunkError, open_data
from dsoftmax.data.batches import Epoch, whole_span
from dsoftmax.data.source import Source
from dsoftmax.events import TimeSplit
from dsoftmax.objective.first_read import moments_of
from dsoftmax.objective.reduction import Chunk, Reduction
from dsoftmax.runtime import worker
from dsoftmax.runtime.cost import Cost, TaskResult
from dsoftmax.runtime.reduce import Pass
from dsoftmax.runtime.select import executor_for
from dsoftmax.runtime.span_cache import CachePolicy, LoadedSpan, SpanCache
from dsoftmax.runtime.spans import cut_spans
from dsoftmax.runtime.worker import Loader, Task, reduce_leaves

Store = Callable[..., str]

SECONDS = 30  # a wait that is never over in a test that passes


@dataclass
class Watched:
    """A RowArray that tells who reads it, and when."""

    array: Any
    readers: dict[int, str] = field(default_factory=dict)
    begun: dict[int, threading.Event] = field(default_factory=dict)
    broken: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.array, name)

    def read(self, start: int, stop: int) -> np.ndarray:
        self.readers[start] = threading.current_thread().name
        self.begun.setdefault(start, threading.Event()).set()
        if start == self.broken:
            raise ValueError("the checksum does not match")
        return self.array.read(start, stop)


@pytest.fixture
def source(store: Store) -> Source:
    path = store(rows=10, X=np.arange(90.0).reshape(30, 3), y=np.arange(30) % 3)
    source = open_data(f"{path}/X", f"{path}/y").with_classes(np.arange(3))
    return replace(source, X=Watched(source.X))  # type: ignore[arg-type]


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = worker._Storage()
    monkeypatch.setattr(worker, "_storage", found)
    return found


def run(source: Source, function: Callable[[Chunk], float]) -> float:
    leaves = tuple((whole_span((start, start + 10)),) for start in (0, 10, 20))
    parts = {row_slice.start: source for (row_slice,) in leaves}
    task = Task(parts, {}, False, leaves, 0, 3, None)
    return reduce_leaves(task, Reduction("sum", function, operator.add)).nodes[(2, 0)]


def test_the_next_span_is_read_while_one_is_reduced_if_storage_is_slow(
    source: Source, storage: Any
) -> None:
    storage.wait_fraction = 1.0
    X: Any = source.X

    def total(chunk: Chunk) -> float:
        following = chunk.start + 10
        if following < 30:
            assert X.begun.setdefault(following, threading.Event()).wait(SECONDS)
        return float(chunk.X.sum())

    assert run(source, total) == np.arange(90.0).sum()
    own = threading.current_thread().name
    assert [X.readers[start] == own for start in (0, 10, 20)] == [True, False, False]


def test_nothing_is_read_ahead_if_storage_is_fast(source: Source, storage: Any) -> None:
    assert run(source, lambda chunk: float(chunk.X.sum())) == np.arange(90.0).sum()
    X: Any = source.X
    assert set(X.readers.values()) == {threading.current_thread().name}


def test_what_is_held_is_not_read_ahead(
    source: Source, storage: Any, remembered: SpanCache
) -> None:
    storage.wait_fraction = 1.0
    leaves = tuple((whole_span((start, start + 10)),) for start in (0, 10))
    parts = {row_slice.start: source for (row_slice,) in leaves}
    task = Task(parts, {}, False, leaves, 0, 2, keep(1 << 20)._replace(drop_after_use=False))
    total = Reduction("sum", lambda chunk: float(chunk.X.sum()), operator.add)
    reduce_leaves(task, total)
    X: Any = source.X
    X.readers.clear()
    with Loader(task) as opened:
        assert opened.load(leaves[0][0]).cost.reads == 0
        assert opened._pool is None
    assert reduce_leaves(task, total).cost.reads == 0
    assert X.readers == {}


def test_a_chunk_that_was_read_ahead_and_is_bad_is_named(source: Source, storage: Any) -> None:
    storage.wait_fraction = 1.0
    source.X.broken = 10  # type: ignore[attr-defined]
    with pytest.raises(ChunkError, match=r"rows 10 to 19 cannot be read: .* does not match"):
        run(source, lambda chunk: 0.0)


@pytest.mark.parametrize(("fetch", "kernel", "pays"), [(5.0, 5.0, True), (0.1, 5.0, False)])
def test_whether_it_pays_is_learned_from_the_reads_before(
    storage: Any, fetch: float, kernel: float, pays: bool
) -> None:
    chunk = Chunk(np.ones((1, 1)), None, None, 0)
    for _ in range(10):
        storage.learn(LoadedSpan(chunk, Cost(0, 8, 1, 0, TimeSplit(fetch, 1.0)), fetch), kernel)
    assert (storage.wait_fraction > worker._WAITS_ENOUGH) == pays
    share = storage.wait_fraction
    storage.learn(LoadedSpan(chunk, Cost(), 0.0), kernel)
    assert storage.wait_fraction == share, "what was remembered says nothing of storage"


def keep(room: int) -> CachePolicy:
    return CachePolicy("run", room, 0, drop_after_use=True, cyclic=False)


def step(source: Source, start: int, following: int | None, room: int) -> TaskResult:
    """Reduce the span at `start`, as a step that a step with another span follows."""
    later = () if following is None else (whole_span((following, following + 10)),)
    parts = dict.fromkeys((start, *(row_slice.start for row_slice in later)), source)
    leaves = ((whole_span((start, start + 10)),),)
    task = Task(parts, {}, False, leaves, 0, 1, keep(room), later)
    return reduce_leaves(task, Reduction("sum", lambda chunk: float(chunk.X.sum()), operator.add))


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> SpanCache:
    found = SpanCache()
    monkeypatch.setattr(worker, "spans", found)
    return found


def test_the_span_of_the_next_step_is_read_before_it_is_asked_for_and_counted_once(
    source: Source, remembered: SpanCache
) -> None:
    X: Any = source.X
    begun = X.begun.setdefault(10, threading.Event())
    first = step(source, 0, 10, room=1 << 20)
    assert begun.wait(SECONDS)
    second = step(source, 10, None, room=1 << 20)
    assert X.readers[10] != X.readers[0] == threading.current_thread().name
    assert second.nodes[(0, 0)] == np.arange(30.0, 60.0).sum()
    assert [first.cost.reads, second.cost.reads, second.cost.bytes] == [1, 1, 240]


def test_nothing_is_read_for_the_next_step_without_room_for_it(
    source: Source, remembered: SpanCache
) -> None:
    step(source, 0, 10, room=200)
    X: Any = source.X
    assert list(X.readers) == [0]


def test_a_bad_chunk_of_the_next_step_is_named_when_it_is_needed(
    source: Source, remembered: SpanCache
) -> None:
    source.X.broken = 10  # type: ignore[attr-defined]
    assert step(source, 0, 10, room=1 << 20).nodes
    with pytest.raises(ChunkError, match=r"rows 10 to 19 cannot be read: .* does not match"):
        step(source, 10, None, room=1 << 20)


def test_what_is_read_for_a_run_that_has_ended_is_not_remembered(remembered: SpanCache) -> None:
    reading, ended = threading.Event(), threading.Event()

    def read() -> LoadedSpan:
        reading.set()
        assert ended.wait(SECONDS)
        return LoadedSpan(Chunk(np.ones((1, 1)), None, None, 0), Cost(0, 8, 1), 0.0)

    key, later = ("run", 0, 1, None), ("run", 1, 2, None)
    remembered.begin_to_read(key, keep(1 << 20), 8, read)
    remembered.begin_to_read(later, keep(1 << 20), 8, read)
    assert reading.wait(SECONDS)
    remembered.forget("run")
    ended.set()
    counted = [remembered.get(name, keep(1 << 20), read).cost.reads for name in (key, later)]
    assert counted == [1, 1]
    assert remembered.get(key, keep(1 << 20), read).cost.reads == 0


def test_spans_that_give_way_take_the_place_of_nothing(remembered: SpanCache) -> None:
    span = LoadedSpan(Chunk(np.ones((1, 1)), None, None, 0), Cost(0, 8, 1), 0.0)
    own = CachePolicy("own", 24, 0, drop_after_use=False, cyclic=True)
    guest = own._replace(name="guest", evict_others=False)

    def reads(keep: CachePolicy, *numbers: int) -> int:
        return sum(
            remembered.get((keep.name, i, i + 1, None), keep, lambda: span).cost.reads
            for i in numbers
        )

    assert reads(guest, 0, 1, 2, 3) == 4
    assert reads(guest, 0, 1, 2) == 0, "the first are held"
    assert reads(own, 0, 1) == 2, "and go when others come"
    assert reads(guest, 2) == 0
    assert reads(guest, 0, 1) == 2, "for which they are held no more"
    assert reads(own, 0, 1) == 0


@pytest.mark.usefixtures("small_spans")
def test_steps_that_are_read_ahead_have_the_same_bits(cluster: Client, store: Store) -> None:
    path = store(rows=10, X=np.random.default_rng(0).normal(size=(320, 3)), y=np.arange(320) % 4)
    source = open_data(f"{path}/X", f"{path}/y").with_classes(np.arange(4))
    epoch = Epoch(cut_spans(source.chunks, source.row_bytes), 4, 50, seed=0)
    reduction = moments_of(4, source.dtype)

    def means(run: str, *, ahead: bool) -> list[bytes]:
        with executor_for(source) as executor:
            found = [
                Pass(
                    executor,
                    source,
                    epoch.batch(number),
                    batch=True,
                    cache_name=f"{executor.run_key}-{run}",
                    following=epoch.batch(number + 1) if ahead else (),
                ).reduce(reduction)
                for number in range(epoch.n_steps)
            ]
        assert sum(cost.rows for _, cost in found) == 320
        return [sums.mean.tobytes() for sums, _ in found]

    assert means("a", ahead=True) == means("b", ahead=False)
