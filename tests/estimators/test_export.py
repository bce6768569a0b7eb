"""The model elsewhere: scikit-learn, ONNX, skops, and ten lines of zarr."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import skops.io
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer

from dsoftmax import DataError, SoftmaxRegression

Arrays = tuple[np.ndarray, np.ndarray]
README = Path(__file__).parents[2] / "README.md"

LABELS: dict[str, Any] = {
    "strings": [f"class {i}" for i in range(10)],
    "numbers": [7 * i - 3 for i in range(10)],
    "bytes": np.arange(10, dtype=np.uint8),
    "floats": np.arange(10.0),
}


def fitted(digits: Arrays, labels: str, n_classes: int) -> tuple[SoftmaxRegression, np.ndarray]:
    X, y = digits if n_classes > 2 else load_breast_cancer(return_X_y=True)
    model = SoftmaxRegression(alpha=0.1, tol=1e-2, max_iter=500)
    return model.fit(X, np.asarray(LABELS[labels])[y]), X


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("n_classes", [2, 10])
def test_scikit_learns_estimator_has_the_coefficients_and_predicts_alike(
    digits: Arrays, labels: str, n_classes: int
) -> None:
    model, X = fitted(digits, labels, n_classes)
    other = model.to_sklearn()
    np.testing.assert_array_equal(other.coef_, model.coef_)
    np.testing.assert_array_equal(other.intercept_, model.intercept_)
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    np.testing.assert_allclose(other.predict_proba(X), model.predict_proba(X), atol=1e-14)
    np.testing.assert_allclose(other.decision_function(X), model.decision_function(X), atol=1e-10)
    assert other.predict(X).dtype == model.predict(X).dtype
    other.coef_[:] = 0
    assert model.coef_.any()
    assert clone(other).max_iter == model.max_iter


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_onnx_predicts_alike(
    digits: Arrays, tmp_path: Path, labels: str, n_classes: int, dtype: str
) -> None:
    model, X = fitted(digits, labels, n_classes)
    X = X.astype("f4").astype(dtype)
    model.to_onnx(tmp_path / "model.onnx", dtype=dtype)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    label, p = session.run(["label", "probabilities"], {"X": X})
    exact = X.astype("f8")
    np.testing.assert_allclose(p, model.predict_proba(exact), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(label, model.predict(exact))
    one = session.run(None, {"X": X[:1]})
    assert (one[0].shape, one[1].shape) == ((1,), (1, n_classes))
    for missing in (np.nan, np.inf, -np.inf):
        X[1, 3] = missing
        _, p = session.run(["label", "probabilities"], {"X": X[:3]})
        np.testing.assert_array_equal(np.isnan(p).all(axis=1), [False, True, False])


def test_onnx_takes_far_features_in_float32_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    X = (1e6 + rng.normal(size=(600, 3)).round(2) + y[:, None]).astype("f4")
    model = SoftmaxRegression(alpha=1e-3, tol=1e-3).fit(X, y)
    model.to_onnx(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (p,) = session.run(["probabilities"], {"X": X})
    np.testing.assert_allclose(p, model.predict_proba(X.astype("f8")), rtol=0, atol=1e-6)


def test_onnx_takes_bytes_and_tells_the_names_of_the_features(
    digits: Arrays, tmp_path: Path
) -> None:
    import pandas as pd

    X, y = digits
    names = [f"pixel {i}" for i in range(64)]
    model = SoftmaxRegression(alpha=0.1, tol=1e-2).fit(pd.DataFrame(X, columns=names), y > 4)
    model.to_onnx(tmp_path / "model.onnx", dtype="uint8")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    label, _ = session.run(None, {"X": X.astype("u1")})
    assert label.dtype == bool
    np.testing.assert_array_equal(label, model.predict(pd.DataFrame(X, columns=names)))
    assert session.get_modelmeta().custom_metadata_map["feature_names"].split("\n") == names
    assert onnx.load(tmp_path / "model.onnx").producer_name == "dsoftmax"


def test_an_onnx_file_is_never_overwritten_unasked(tmp_path: Path) -> None:
    model = SoftmaxRegression().fit([[0.0], [1.0]], [0, 1])
    model.to_onnx(tmp_path / "model.onnx")
    with pytest.raises(DataError, match="is there already"):
        model.to_onnx(tmp_path / "model.onnx")
    model.to_onnx(tmp_path / "model.onnx", overwrite=True)
    with pytest.raises(DataError, match="is there already"):
        model.to_onnx(tmp_path, overwrite=True)
    with pytest.raises(DataError, match="dtype is 'int8'; expected"):
        model.to_onnx(tmp_path / "other.onnx", dtype="int8")
    huge = SoftmaxRegression().fit([[0.0], [1.0]], np.array([0, 2**64 - 1], np.uint64))
    with pytest.raises(DataError, match="18446744073709551615 is too large"):
        huge.to_onnx(tmp_path / "other.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("learning_rate", ["auto", 0.01])
def test_skops_keeps_it_between_the_parts_it_learns_from(
    digits: Arrays, solver: str, learning_rate: Any
) -> None:
    X, y = digits
    model = SoftmaxRegression(solver=solver, learning_rate=learning_rate, random_state=0)
    model.partial_fit(X, y, classes=range(10))
    stored = skops.io.dumps(model)
    trusted = skops.io.get_untrusted_types(data=stored)
    assert trusted == ["dsoftmax.estimators.classifier.SoftmaxRegression"]
    again = skops.io.loads(stored, trusted=trusted)
    assert again.history_ == model.history_
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(again.partial_fit(X, y).coef_, model.partial_fit(X, y).coef_)


@pytest.mark.parametrize("n_classes", [2, 10])
def test_ten_lines_of_the_readme_read_a_model_without_dsoftmax(
    digits: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_classes: int
) -> None:
    model, X = fitted(digits, "strings", n_classes)
    model.save(tmp_path / "model.zarr")
    (lines,) = re.findall(r"```python\n(import json[^`]*?)```", README.read_text())
    assert "dsoftmax" not in lines.replace('"dsoftmax"', "")
    assert len(lines.strip().splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"X": X}
    exec(lines, scope)
    np.testing.assert_allclose(scope["p"], model.predict_proba(X), atol=1e-14)
    np.testing.assert_array_equal(scope["labels"], model.predict(X))
