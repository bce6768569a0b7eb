"""The next span is read ahead where storage is waited for, and only there."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from dsoftmax import ChunkError, open_data
from dsoftmax.reduction import Chunk, Reduction
from dsoftmax.runtime import loading
from dsoftmax.runtime.loading import Loaded, Task, note
from dsoftmax.runtime.worker import reduce_leaves
from dsoftmax.sampling import whole_span
from dsoftmax.sources.base import Source

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
    found = loading._Storage()
    monkeypatch.setattr(loading, "_storage", found)
    return found


def run(source: Source, function: Callable[[Chunk], float]) -> float:
    leaves = tuple((whole_span((start, start + 10)),) for start in (0, 10, 20))
    parts = {piece.start: source for (piece,) in leaves}
    task = Task(parts, {}, False, leaves, 0, 3, None)
    return reduce_leaves(task, Reduction("sum", function, operator.add)).nodes[(2, 0)]


def test_the_next_span_is_read_while_one_is_reduced_if_storage_is_slow(
    source: Source, storage: Any
) -> None:
    storage.share = 1.0
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


def test_a_chunk_that_was_read_ahead_and_is_bad_is_named(source: Source, storage: Any) -> None:
    storage.share = 1.0
    source.X.broken = 10  # type: ignore[attr-defined]
    with pytest.raises(ChunkError, match=r"rows 10 to 19 cannot be read: .* does not match"):
        run(source, lambda chunk: 0.0)


@pytest.mark.parametrize(("fetch", "kernel", "pays"), [(5.0, 5.0, True), (0.1, 5.0, False)])
def test_whether_it_pays_is_learned_from_the_reads_before(
    storage: Any, fetch: float, kernel: float, pays: bool
) -> None:
    chunk = Chunk(np.ones((1, 1)), None, None, 0)
    for _ in range(10):
        note(Loaded(chunk, 8, 1, fetch, 1.0, fetch, 0), kernel)
    assert (storage.share > loading._WORTH_IT) == pays
    share = storage.share
    note(Loaded(chunk, 0, 0, 0.0, 0.0, 0.0, 0), kernel)
    assert storage.share == share, "what was remembered says nothing of storage"
