"""Tasks come back to the worker that remembers their rows, as far as that is even."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dsoftmax.runtime.base import Affinity
from dsoftmax.runtime.cluster import assigned

WORKERS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 4), min_size=1)
HOMES = st.lists(st.integers(1, 64), max_size=40).map(
    lambda sizes: [Affinity(name, rows) for name, rows in enumerate(sizes)]
)


@given(HOMES, WORKERS, WORKERS)
def test_no_worker_has_more_than_its_share_and_the_largest_home(
    homes: list[Affinity], before: dict[str, int], workers: dict[str, int]
) -> None:
    found = assigned(homes, workers, assigned(homes, before, {}))
    assert set(found) == {home.name for home in homes}
    rows: Counter[str] = Counter()
    for home in homes:
        rows[found[home.name]] += home.rows
    share = sum(home.rows for home in homes) / sum(workers.values())
    for worker in rows:
        assert rows[worker] <= share * workers[worker] + max(home.rows for home in homes)


@given(HOMES, WORKERS)
def test_the_same_workers_get_the_same_homes(
    homes: list[Affinity], workers: dict[str, int]
) -> None:
    first = assigned(homes, workers, {})
    assert assigned(homes, workers, first) == first


def test_only_what_a_lost_worker_had_goes_elsewhere() -> None:
    homes = [Affinity(name, 10) for name in range(12)]
    first = assigned(homes, {"a": 1, "b": 1, "c": 1}, {})
    then = assigned(homes, {"a": 1, "b": 1}, first)
    assert all(then[name] == worker for name, worker in first.items() if worker != "c")


def test_a_worker_that_joins_takes_its_share_and_no_other_home_moves() -> None:
    homes = [Affinity(name, 10) for name in range(12)]
    first = assigned(homes, {"a": 1, "b": 1}, {})
    then = assigned(homes, {"a": 1, "b": 1, "c": 1}, first)
    assert Counter(then.values()) == {"a": 4, "b": 4, "c": 4}
    assert all(then[name] in (first[name], "c") for name in then)
