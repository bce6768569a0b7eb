from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import dsoftmax

PACKAGE = Path(dsoftmax.__file__).parent
TESTS = Path(__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}

# From the top down: a room imports only from rooms of lines below its own, and from itself.
ROOMS = (
    ("__init__", "__main__", "searching"),
    ("cli",),
    ("estimators",),
    ("diagnostics",),
    ("model_selection",),
    ("training",),
    ("runtime",),
    ("solvers", "metrics", "data"),
    ("objective",),
    ("storage",),
    ("events", "errors"),
    ("typing",),
)
LAYER = {room: len(ROOMS) - number for number, rooms in enumerate(ROOMS) for room in rooms}

LIBRARIES = {
    "distributed": {"runtime", "diagnostics/dashboard"},
    "bokeh": {"diagnostics"},
    "prometheus_client": {"diagnostics/prometheus"},
    "dask.array": {"estimators", "data"},
    "zarr": {"storage", "data", "estimators", "cli/demo_data"},
    "pyarrow": {"data/ingest/tables"},
    "fsspec": {"storage/atomic_folder"},
    "psutil": {"storage/lock", "runtime"},
    "matplotlib": {"diagnostics"},
    "dask_ml": {"estimators/dask_ml"},
    "onnx": {"estimators/export"},
    "cryptography": {"runtime/tls"},
    "click": {"cli", "runtime/lifeline"},  # Dask passes a preload its arguments by click
}


def room(name: str) -> str:
    return name.split("/")[0]


def file_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


@cache
def imports(tree: ast.Module) -> set[str]:
    """Return the dotted names that a file imports, lazily too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(path: Path) -> set[str]:
    """Return the files of the package that a file imports."""
    names = {name.removeprefix("dsoftmax.").replace(".", "/") for name in imports(TREES[path])}
    return {name for name in names if (PACKAGE / f"{name}.py").exists()}


def test_imports_between_folders_point_down() -> None:
    for path in FILES:
        here = room(file_of(path))
        for name in own_imports(path):
            there = room(name)
            assert there == here or LAYER[there] < LAYER[here], f"{file_of(path)} imports {name}"


def test_no_files_import_each_other_in_a_circle() -> None:
    waiting = {file_of(path): own_imports(path) - {file_of(path)} for path in FILES}
    while free := {name for name, needed in waiting.items() if not needed & waiting.keys()}:
        waiting = {name: needed for name, needed in waiting.items() if name not in free}
    assert not waiting, f"a circle is among {sorted(waiting)}"


def test_no_test_module_imports_another() -> None:
    modules = {
        "tests." + ".".join(p.relative_to(TESTS).with_suffix("").parts): p
        for p in TESTS.rglob("test_*.py")
    }
    for path in modules.values():
        assert not imports(ast.parse(path.read_text())) & modules.keys(), path


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_stay_in_their_rooms(library: str) -> None:
    for path in FILES:
        if any(name == library or name.startswith(f"{library}.") for name in imports(TREES[path])):
            file = file_of(path)
            assert {room(file), file} & LIBRARIES[library], f"{file} imports {library}"


def test_no_module_is_named_like_a_public_function() -> None:
    assert not set(dsoftmax.__all__) & {path.stem for path in PACKAGE.glob("*.py")}


def test_files_are_few_and_short_and_have_names_that_mean_something() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8
    for path in FILES:
        text = path.read_text()
        assert len(text.splitlines()) <= 320, path
        assert "fmt: skip" not in text, path
        assert path.stem not in {"utils", "common", "helpers", "manager", "engine"}


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_functions_are_short_and_say_what_they_take() -> None:
    lengths = []
    for path, tree in TREES.items():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append(body_lines(function))
                assert lengths[-1] <= 50, f"{path}: {function.name} has {lengths[-1]} lines"
                assert function.args.kwarg is None, f"{path}: {function.name} takes **kwargs"
    assert sorted(lengths)[len(lengths) // 2] < 10


def test_nothing_is_ever_unpickled_by_us() -> None:
    for path in FILES:
        assert not imports(TREES[path]) & {"pickle", "cloudpickle", "joblib"}, path


def modules_after(code: str) -> set[str]:
    report = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_what_runs_on_a_worker_loads_neither_scikit_learn_nor_dask_array() -> None:
    loaded = modules_after(
        "import distributed, zarr\n"
        "import dsoftmax.objective.objective, dsoftmax.data.label_counts\n"
        "import dsoftmax.metrics.metrics, dsoftmax.runtime.worker\n"
        "import dsoftmax.data.zarr_array, dsoftmax.data.numpy_array\n"
        "import dsoftmax.model_selection.sums, dsoftmax.estimators.write_rows"
    )
    assert not {"sklearn", "dask.array", "dask_ml", "pandas", "scipy", "matplotlib"} & loaded


def test_the_package_is_imported_lazily() -> None:
    assert "dsoftmax.estimators.classifier" not in modules_after("import dsoftmax")
    assert "numpy" not in modules_after("import dsoftmax")


@pytest.mark.slow
def test_an_import_brings_no_more_than_zarr_dask_and_distributed() -> None:
    ground = modules_after("import zarr, dask.array, distributed")
    assert not {name for name in modules_after("import dsoftmax") - ground if "." not in name} - {
        "dsoftmax"
    }
    own = modules_after("from dsoftmax import SoftmaxRegression, load_model, open_data, ingest")
    late = {"dask_ml", "pandas", "xarray", "matplotlib", "pyarrow", "onnx", "bokeh", "skops"}
    assert not late & (own - ground)


def test_every_public_name_is_there_and_documented() -> None:
    for name in dsoftmax.__all__:
        value = getattr(dsoftmax, name)
        assert name == "__version__" or value.__doc__, name
    with pytest.raises(AttributeError, match="no_such_name"):
        dsoftmax.no_such_name  # noqa: B018
