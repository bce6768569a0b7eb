from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from dsoftmax.data.byte_cache import ByteCache


def held(cache: ByteCache[int], keys: int = 20) -> list[int]:
    return [key for key in range(keys) if cache.get(key) is not None]


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 50)), max_size=60))
def test_it_never_holds_more_than_it_may(puts: list[tuple[int, int]]) -> None:
    cache: ByteCache[int] = ByteCache()
    sizes: dict[int, int] = {}
    for key, size in puts:
        if cache.get(key) is None and size <= 100:
            sizes[key] = size
        cache.put(key, key, size, most=100)
        assert sum(sizes[k] for k in held(cache)) <= 100
        assert cache.get(key) in ((key,) if size <= 100 else (key, None))


def test_the_least_recently_used_goes_first() -> None:
    cache: ByteCache[int] = ByteCache()
    for key in range(3):
        cache.put(key, key, 1, most=3)
    assert cache.get(0) == 0
    cache.put(3, 3, 1, most=3)
    assert held(cache) == [0, 2, 3]
    cache.put(4, 4, 3, most=3)
    assert held(cache) == [4]


def test_keys_come_in_the_order_of_their_use() -> None:
    cache: ByteCache[str, int] = ByteCache()
    for key in "abc":
        cache.put(key, 0, 1, most=3)
    cache.get("a")
    assert list(cache) == ["b", "c", "a"]


def test_what_is_too_large_is_not_held_and_drives_nothing_out() -> None:
    cache: ByteCache[int] = ByteCache()
    cache.put(0, 0, 5, most=10)
    cache.put(1, 1, 11, most=10)
    assert held(cache) == [0]


def test_nothing_is_held_within_no_bytes() -> None:
    cache: ByteCache[int] = ByteCache()
    cache.put(0, 0, 1, most=0)
    assert held(cache) == []


def test_a_key_is_counted_once() -> None:
    cache: ByteCache[int] = ByteCache()
    for _ in range(10):
        cache.put(0, 0, 4, most=10)
    cache.put(1, 1, 4, most=10)
    assert held(cache) == [0, 1]


def test_dropping_everything_gives_all_room_back() -> None:
    cache: ByteCache[int] = ByteCache()
    cache.put(0, 0, 10, most=10)
    cache.drop_if(lambda key: True)
    assert held(cache) == []
    cache.put(1, 1, 4, most=10)
    cache.put(2, 2, 6, most=10)
    assert held(cache) == [1, 2]


def test_threads_share_it() -> None:
    cache: ByteCache[int] = ByteCache()

    def work(seed: int) -> None:
        for i in range(3000):
            key = (i * (seed + 1)) % 50
            assert cache.get(key) in (None, key)
            cache.put(key, key, 1 + key % 7, most=60)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert sum(1 + key % 7 for key in held(cache, 50)) <= 60
    cache.put("last", 0, 60, most=60)
    assert held(cache, 50) == []


def test_what_stays_is_not_driven_out_and_the_others_are() -> None:
    cache: ByteCache[str, int] = ByteCache()
    for key in ("old", "mine 0", "mine 1"):
        cache.put(key, 0, 4, most=12)
    for key in ("mine 2", "mine 3"):
        cache.put(key, 0, 4, most=12, stays=lambda other: other.startswith("mine"))
    found = [key for key in ("old", "mine 0", "mine 1", "mine 2", "mine 3") if cache.get(key) == 0]
    assert found == ["mine 0", "mine 1", "mine 2"]


def test_nothing_is_dropped_for_what_has_no_room_in_the_end() -> None:
    cache: ByteCache[str, int] = ByteCache()
    cache.put("old", 0, 4, most=12)
    cache.put("mine", 0, 8, most=12)
    cache.put("mine too", 0, 8, most=12, stays=lambda other: other == "mine")
    assert cache.get("old") == 0
    assert cache.get("mine too") is None
