from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "pipelines" / "standard_scaler.py"


@pytest.mark.slow
def test_the_scaler_recipe_prints_that_scaling_helps(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", RECIPE, "5000", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    raw, scaled = (float(number) for number in re.findall(r"accuracy (\S+)", done.stdout))
    assert raw + 0.02 < scaled
    assert scaled > 0.85
