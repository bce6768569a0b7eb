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
    affinities: list[Affinity], before: dict[str, int], workers: dict[str, int]
) -> None:
    found = assigned(affinities, workers, assigned(affinities, before, {}))
    assert set(found) == {affinity.name for affinity in affinities}
    rows: Counter[str] = Counter()
    for affinity in affinities:
        rows[found[affinity.name]] += affinity.rows
    share = sum(affinity.rows for affinity in affinities) / sum(workers.values())
    for worker in rows:
        assert rows[worker] <= share * workers[worker] + max(
            affinity.rows for affinity in affinities
        )


@given(HOMES, WORKERS)
def test_the_same_workers_get_the_same_homes(
    affinities: list[Affinity], workers: dict[str, int]
) -> None:
    first = assigned(affinities, workers, {})
    assert assigned(affinities, workers, first) == first


def test_only_what_a_lost_worker_had_goes_elsewhere() -> None:
    affinities = [Affinity(name, 10) for name in range(12)]
    first = assigned(affinities, {"a": 1, "b": 1, "c": 1}, {})
    then = assigned(affinities, {"a": 1, "b": 1}, first)
    assert all(then[name] == worker for name, worker in first.items() if worker != "c")


def test_a_worker_that_joins_takes_its_share_and_no_other_home_moves() -> None:
    affinities = [Affinity(name, 10) for name in range(12)]
    first = assigned(affinities, {"a": 1, "b": 1}, {})
    then = assigned(affinities, {"a": 1, "b": 1, "c": 1}, first)
    assert Counter(then.values()) == {"a": 4, "b": 4, "c": 4}
    assert all(then[name] in (first[name], "c") for name in then)
