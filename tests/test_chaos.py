"""A few of the random trials of `tests/benchmarks/chaos.py`, which runs hundreds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.chaos import clusters, eager, trial


@pytest.mark.slow
def test_disturbed_fits_have_the_bits_of_undisturbed_ones(tmp_path: Path) -> None:
    with eager(), clusters({"2 x 1": (2, 1), "3 x 2": (3, 2)}) as clients:
        for seed in range(1000, 1010):
            same, happened = trial(seed, tmp_path, clients)
            assert same, f"trial {seed}: {dict(happened)}"
