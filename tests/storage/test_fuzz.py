"""Damaged files end in the right answer or in an error of ours, whatever the damage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--count", "40", "--only", "model", "checkpoint of lbfgs, signed", "zarr 3", "run file"],
        pytest.param(["--count", "1000"], marks=pytest.mark.slow),
    ],
    ids=["some", "all"],
)
def test_no_damage_makes_a_traceback_a_hang_or_code_run(arguments: list[str]) -> None:
    run = [sys.executable, "-m", "tests.storage.fuzz", *arguments]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
