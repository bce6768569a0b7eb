"""A few of the random trials of `tests/benchmarks/chaos.py`, which runs hundreds."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.benchmarks.chaos import Pool, eager, trial


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_disturbed_fits_have_the_bits_of_undisturbed_ones(tmp_path: Path) -> None:
    pool = Pool({"2 x 1": (2, 1), "3 x 2": (3, 2)})
    with eager(), closing(pool):
        for seed in range(1000, 1003):
            same, happened = trial(seed, tmp_path, pool)
            assert same, f"trial {seed}: {dict(happened)}"
