from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dsoftmax

PACKAGE = Path(dsoftmax.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = {
    0: {
        "cache", "errors", "folds", "holdout", "judging", "labels", "loss", "metrics", "panels",
        "penalty", "reduction", "scaling", "softmax", "solvers", "subsample",
    },
    1: {
        "sampling", "sources",
    },
    2: {
        "runtime",
    },
    3: {
        "checkpoint", "classes", "course", "csvfile", "cursor", "digits", "ending", "epochs",
        "evaluation", "events", "export", "fit", "gram", "holder", "identity", "ingestion",
        "inspection",
        "keeper", "labelling", "lease", "ledger", "npyfile", "objective", "parquetfile",
        "parttraining", "passes", "persistence", "places", "prediction", "reads", "records", "rows",
        "scores", "scoring", "settings", "shuffling", "solving", "stopping", "stores",
        "subproblem", "tables", "thinning", "trainer", "tuning", "validation", "zarrcopy",
    },
    4: {
        "cli", "columns", "diagnostics", "estimator", "modelfile", "parts", "planning",
        "predictor", "running", "search", "searching",
    },
}  # fmt: skip
LAYER = {name: layer for layer, names in LAYERS.items() for name in names}

ALLOWED = {
    "distributed": {"runtime", "diagnostics/dashboard"},
    "bokeh": {"diagnostics/candidates", "diagnostics/charts", "diagnostics/page"},
    "prometheus_client": {"diagnostics/prometheus"},
    "dask.array": {"prediction", "sources"},
    "zarr": {
        "digits", "ingestion", "persistence", "scoring", "sources", "stores", "zarrcopy",
    },
    "pyarrow": {"csvfile", "parquetfile", "tables"},
    "fsspec": {"places"},
    "psutil": {"holder", "runtime"},
    "matplotlib": {"diagnostics"},
    "dask_ml": {"searching"},
    "onnx": {"export"},
    "cryptography": {"runtime"},
    "click": {"cli", "runtime"},  # runtime: Dask passes a preload its arguments by click
}  # fmt: skip


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_point_down(path: Path) -> None:
    if part(path) in {"__init__", "__main__"}:
        return
    for name in imports(path):
        head = name.split(".")
        if head[0] == "dsoftmax" and len(head) > 1 and head[1] in LAYER:
            assert LAYER[head[1]] <= LAYER[part(path)], f"{path.name} imports {name}"


def test_every_module_has_a_layer() -> None:
    assert {part(path) for path in FILES} - {"__init__", "__main__"} <= set(LAYER)


@pytest.mark.parametrize("library", ALLOWED)
def test_libraries_stay_in_their_rooms(library: str) -> None:
    for path in FILES:
        if any(name == library or name.startswith(f"{library}.") for name in imports(path)):
            file = path.relative_to(PACKAGE).with_suffix("").as_posix()
            assert {part(path), file} & ALLOWED[library], f"{file} imports {library}"


def test_no_module_is_named_like_a_public_function() -> None:
    assert not set(dsoftmax.__all__) & {path.stem for path in PACKAGE.glob("*.py")}


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_functions_are_short_and_say_what_they_take() -> None:
    lengths = []
    for path in FILES:
        for function in functions(path):
            lengths.append(body_lines(function))
            assert lengths[-1] <= 50, f"{path.name}: {function.name} has {lengths[-1]} lines"
            assert function.args.kwarg is None, f"{path.name}: {function.name} takes **kwargs"
    assert sorted(lengths)[len(lengths) // 2] < 10


def test_files_are_short_and_have_names_that_mean_something() -> None:
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 320, path
        assert path.stem not in {"utils", "common", "helpers", "manager", "engine"}


def test_nothing_is_ever_unpickled_by_us() -> None:
    for path in FILES:
        assert not imports(path) & {"pickle", "cloudpickle", "joblib"}, path


def modules_after(code: str) -> set[str]:
    report = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_what_runs_on_a_worker_loads_neither_scikit_learn_nor_dask_array() -> None:
    loaded = modules_after(
        "import distributed, zarr\n"
        "import dsoftmax.objective, dsoftmax.labels, dsoftmax.metrics\n"
        "import dsoftmax.runtime.worker, dsoftmax.sources.zarr, dsoftmax.sources.memory\n"
        "import dsoftmax.tuning.kernel, dsoftmax.tuning.moments"
    )
    assert not {"sklearn", "dask.array", "dask_ml", "pandas", "scipy", "matplotlib"} & loaded


def test_the_package_is_imported_lazily() -> None:
    assert "dsoftmax.estimator" not in modules_after("import dsoftmax")
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
