"""Models for those who predict without dsoftmax: as scikit-learn's estimator, as ONNX."""

from __future__ import annotations

import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsoftmax.errors import DataError, DsoftmaxError, quoted
from dsoftmax.objective.linear_model import LinearModel
from dsoftmax.storage.atomic_folder import open_folder
from dsoftmax.typing import Array

if TYPE_CHECKING:
    import onnx


_OPSET, _IR = 17, 8  # of 2022: what every runtime of today reads
_INPUTS = ("float32", "float64", "uint8", "int16")


def write_onnx(
    model: LinearModel,
    path: str | os.PathLike[str],
    names: Array | None,
    dtype: str,
    overwrite: bool,
) -> None:
    """Write a model; see `SoftmaxRegression.to_onnx`."""
    place = Path(path)
    if find_spec("onnx") is None:
        raise DsoftmaxError("ONNX files need onnx: pip install 'dsoftmax[onnx]'")
    if dtype not in _INPUTS:
        raise DataError(
            f"dtype is {quoted(dtype)}; expected what X will hold: {', '.join(_INPUTS)}"
        )
    if place.exists() and not (overwrite and place.is_file()):
        raise DataError(f"{place} is there already; pass overwrite=True, or choose another file")
    content = onnx_model(model, names, dtype).SerializeToString()
    open_folder(place.parent).write(place.name, content)


def onnx_model(model: LinearModel, names: Array | None, dtype: str) -> onnx.ModelProto:
    """Return Cast, Gemm, Softmax and the label of the largest: computed in float64."""
    from onnx import checker, helper
    from onnx.numpy_helper import from_array

    classes = _storable(model.classes)
    coef, intercept = _all_columns(model)
    tensors = {"coef": coef, "intercept": intercept, "classes": classes}
    nodes = [
        helper.make_node("Cast", ["X"], ["rows"], to=_kind(np.float64)),
        helper.make_node("Gemm", ["rows", "coef", "intercept"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["p"], axis=1),
        helper.make_node("Cast", ["p"], ["probabilities"], to=_kind(np.float32)),
        helper.make_node("ArgMax", ["scores"], ["code"], axis=1, keepdims=0),
        helper.make_node("Gather", ["classes", "code"], ["label"]),
    ]
    n_features, n_classes = coef.shape
    graph = helper.make_graph(
        nodes,
        "softmax_regression",
        [helper.make_tensor_value_info("X", _kind(dtype), ["rows", n_features])],
        [
            helper.make_tensor_value_info("label", _kind(classes.dtype), ["rows"]),
            helper.make_tensor_value_info("probabilities", _kind(np.float32), ["rows", n_classes]),
        ],
        [from_array(value, name) for name, value in tensors.items()],
    )
    made = helper.make_model(
        graph,
        producer_name="dsoftmax",
        producer_version=version("dsoftmax"),
        ir_version=_IR,
        opset_imports=[helper.make_opsetid("", _OPSET)],
    )
    if names is not None:
        helper.set_model_props(made, {"feature_names": "\n".join(names)})
    checker.check_model(made)
    return made


def _kind(dtype: Any) -> int:
    from onnx import TensorProto, helper

    if np.dtype(dtype).kind == "O":
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _storable(classes: Array) -> Array:
    """Return labels in a dtype that runtimes gather: int64, float64, bool or strings."""
    if classes.dtype.kind in "US":
        return classes.astype(str).astype(object)
    if classes.dtype.kind in "iu":
        if classes.max() > np.iinfo(np.int64).max:
            raise DataError(f"the label {classes.max()} is too large for ONNX; expected int64")
        return classes.astype(np.int64)
    return classes.astype(np.float64) if classes.dtype.kind == "f" else classes


def _all_columns(model: LinearModel) -> tuple[Array, Array]:
    """Return a column for each class: the log odds of two classes are those over zero."""
    coef, intercept = (np.asarray(a, np.float64) for a in (model.coef, model.intercept))
    if len(intercept) > 1:
        return np.ascontiguousarray(coef), intercept
    return np.hstack([np.zeros_like(coef), coef]), np.append(0.0, intercept)


def sklearn_model(model: LinearModel, params: dict[str, Any], facts: dict[str, Any]) -> Any:
    """Return a fitted `LogisticRegression`; see `SoftmaxRegression.to_sklearn`."""
    from sklearn.linear_model import LogisticRegression

    made = LogisticRegression(**params)
    made.classes_ = model.classes.copy()
    made.coef_ = model.coef.T.copy()
    made.intercept_ = np.array(model.intercept)
    made.n_features_in_ = len(model.coef)
    for name, value in facts.items():
        setattr(made, name, value)
    return made
