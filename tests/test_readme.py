"""The README's own lines, run as they stand."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsoftmax import SoftmaxRegression

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture
def folder(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> Path:
    """A folder with an mnist.npz of the right shape that is too large to stay in-process."""
    X, y = digits
    rows = np.arange(90_000) % len(y)
    images = np.zeros((len(rows), 784), "u1")
    images[:, :64] = 15 * X[rows]
    labels = y[rows].astype("u1")
    np.savez(
        tmp_path / "mnist.npz",
        X_train=images,
        y_train=labels,
        X_test=images[:500],
        y_test=labels[:500],
    )
    return tmp_path


@pytest.mark.parametrize("way", ["script", pytest.param("-c", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_the_python_example_runs_verbatim_on_the_local_cluster(folder: Path, way: str) -> None:
    lines = python_blocks()[0]
    (folder / "example.py").write_text(lines)
    command = ["example.py"] if way == "script" else ["-c", lines]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=folder, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "newton on" in done.stderr
    assert "Dask workers" in done.stderr
    assert float(done.stdout) > 0.9
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TensorBoard's own
def test_the_callback_feeds_tensorboard(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    pytest.importorskip("tensorboardX")
    names: dict[str, Any] = {}
    (lines,) = (block for block in python_blocks() if "class TensorBoard" in block)
    exec(lines, names)
    callback = names["TensorBoard"](str(tmp_path))
    model = SoftmaxRegression(tol=0.1, callbacks=[callback]).fit(*digits)
    callback.writer.close()
    (file,) = tmp_path.glob("events*")
    found = [loss for tag, loss in scalars_in(file.read_bytes()) if tag == "pass/loss"]
    assert np.allclose(found, [record["loss"] for record in model.history_])


def scalars_in(content: bytes) -> Iterator[tuple[str, float]]:
    """Yield the scalars of a file of TensorBoard: records of a length, a checksum and an event."""
    from tensorboardX.proto.event_pb2 import Event

    while content:
        length = int.from_bytes(content[:8], "little")
        for value in Event.FromString(content[12 : 12 + length]).summary.value:
            yield value.tag, value.simple_value
        content = content[length + 16 :]


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_every_test_that_the_readme_names_exists() -> None:
    tests = "\n".join(path.read_text() for path in README.parent.glob("tests/**/*.py"))
    named = set(re.findall(r"`(test_\w+)`", README.read_text()))
    assert len(named) > 5
    assert {name for name in named if f"def {name}(" not in tests} == set()


def slow_tests() -> Iterator[tuple[Path, str, bool]]:
    """Yield the file and name of each test, and whether a plain pytest leaves it out."""
    for path in README.parent.glob("tests/**/test_*.py"):
        tree = ast.parse(path.read_text())
        marks = [
            node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
        ]
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                whole = any("pytest.mark.slow" in ast.unparse(mark) for mark in marks)
                own = "pytest.mark.slow" in map(ast.unparse, node.decorator_list)
                yield path.relative_to(README.parent), node.name, whole or own


def test_the_readme_says_of_slow_tests_that_they_are() -> None:
    slow: dict[str, bool] = {}
    for path, name, is_slow in slow_tests():
        for key in (str(path), name):
            slow[key] = slow.get(key, True) and is_slow
    named = re.findall(r"`(test_\w+|tests/[\w/]+/test_\w+\.py)`( \(slow\))?", README.read_text())
    assert len(named) > 40
    assert [name for name, mark in named if slow[name] != bool(mark)] == []


def test_every_path_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"`(?:python )?((?:tests|pipelines)/[\w/.]+)", README.read_text()))
    assert len(named) > 5
    assert {path for path in named if not (README.parent / path).exists()} == set()


def test_every_name_in_the_guide_to_the_code_exists() -> None:
    package = README.parent / "dsoftmax"
    for name in re.findall(r"`([\w./]+)(?:\(\w*\))?`", (package / "README.md").read_text()):
        if "/" in name or name.endswith(".py"):
            assert any((root / name).exists() for root in (package, README.parent)), name
        elif name.count(".") >= 2 and not name.startswith("dask."):
            module = next(
                ".".join(["dsoftmax", *name.split(".")[:end]])
                for end in (3, 2)
                if (package / "/".join(name.split(".")[:end])).with_suffix(".py").exists()
            )
            value: Any = importlib.import_module(module)
            for attribute in name.split(".")[module.count(".") :]:
                value = getattr(value, attribute)
