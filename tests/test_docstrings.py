"""Public docstrings are what numpydoc expects, so that they render."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import dsoftmax
from dsoftmax import diagnostics
from dsoftmax.estimators import dask_ml
from dsoftmax.metrics import scores

pytestmark = pytest.mark.slow

# A summary that says it all needs no second paragraph, and not every method an example of its own.
_NOT_ASKED = {"ES01", "EX01", "SA01"}


def public_names() -> Iterator[str]:
    for name in dsoftmax.__all__:
        if name != "__version__":
            found = getattr(dsoftmax, name)
            yield f"{found.__module__}.{found.__qualname__}"
    model = dsoftmax.SoftmaxRegression
    for name in sorted(vars(model) | vars(model.__mro__[1]) | vars(model.__mro__[2])):
        if not name.startswith(("_", "set_")) and callable(getattr(model, name, None)):
            yield f"{model.__module__}.{model.__qualname__}.{name}"
    search = dsoftmax.SoftmaxRegressionCV
    for name in ("fit", "plot_path", "save"):
        yield f"{search.__module__}.{search.__qualname__}.{name}"
    for found in (
        diagnostics.plot_history,
        diagnostics.plot_scores,
        dask_ml.dask_ml_searches,
        scores.EvaluationResult,
        scores.EvaluationResult.to_dict,
    ):
        yield f"{found.__module__}.{found.__qualname__}"


@pytest.mark.parametrize("name", list(public_names()))
def test_public_docstrings_are_clean_for_numpydoc(name: str) -> None:
    validate = pytest.importorskip("numpydoc.validate").validate
    errors = validate(name)["errors"]
    assert [f"{code}: {text}" for code, text in errors if code not in _NOT_ASKED] == []


def test_the_methods_of_the_estimator_are_among_them() -> None:
    names = {name.rpartition(".")[2] for name in public_names()}
    assert {"fit", "partial_fit", "predict_proba", "predict_to", "evaluate", "to_onnx"} <= names
