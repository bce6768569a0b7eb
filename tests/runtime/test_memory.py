"""What limits the memory of a process, and how much of it may cache data."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsoftmax.runtime.cluster import _tightest
from dsoftmax.runtime.memory import Location, _limits_of_cgroups, cache_room

MIB = 1 << 20


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/job/step\n", {"job/memory.max": "500", "job/step/memory.max": "max"}, [500]),
        ("0::/\n", {"memory.max": "700"}, [700]),
        (
            "9:memory:/slurm/job_1\n2:cpu:/other\n",
            {"memory/slurm/job_1/memory.limit_in_bytes": "300", "other/memory.max": "1"},
            [300],
        ),
        ("0::/gone\n", {}, []),
    ],
)
def test_the_cgroups_above_a_process_limit_its_memory(
    tmp_path: Path, own: str, files: dict[str, str], expected: list[int]
) -> None:
    (tmp_path / "cgroup").write_text(own)
    for name, text in files.items():
        file = tmp_path / "fs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    assert list(_limits_of_cgroups(tmp_path / "cgroup", tmp_path / "fs")) == expected
    assert list(_limits_of_cgroups(tmp_path / "not Linux", tmp_path / "fs")) == []


def test_the_worker_with_least_memory_a_thread_decides() -> None:
    workers = {
        "a": {"nthreads": 8, "memory_limit": 8000},
        "b": {"nthreads": 1, "memory_limit": 900},
        "c": {"nthreads": 16, "memory_limit": 0},
    }
    assert _tightest(workers) == ("b", 900)
    assert _tightest({"c": workers["c"]}) == ("c", 0)


def test_a_cache_never_takes_what_the_tasks_need() -> None:
    site = Location("a cluster", 1, 1, 1, memory_limit=1000 * MIB)
    assert cache_room(site, 200 * MIB, batch=False) == 400 * MIB
    assert cache_room(site, 500 * MIB, batch=True) == 250 * MIB
    assert cache_room(site, 700 * MIB, batch=True) == 100 * MIB  # up to where Dask pauses it
    assert cache_room(site, 900 * MIB, batch=True) == 0
    assert cache_room(site, 900 * MIB, batch=False) == 0
    assert cache_room(site._replace(memory_limit=0), 900 * MIB, batch=False) == 1 << 30
