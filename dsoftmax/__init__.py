"""Softmax regression on data larger than memory, streamed from Zarr, computed on Dask workers.

Names are imported when first used, so that a worker that needs only the kernel
loads only the kernel.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsoftmax.data.ingest.ingestion import ingest
    from dsoftmax.data.opening import open_data
    from dsoftmax.diagnostics.data_report import inspect_data
    from dsoftmax.errors import (
        CheckpointError,
        ChunkError,
        DataError,
        DsoftmaxError,
        MemoryBoundError,
        OutageError,
    )
    from dsoftmax.estimators.classifier import SoftmaxRegression
    from dsoftmax.estimators.classifier_cv import SoftmaxRegressionCV
    from dsoftmax.estimators.load import load_model
    from dsoftmax.estimators.plan import plan_fit

    __version__: str

_HOME = {
    "CheckpointError": "errors",
    "ChunkError": "errors",
    "DataError": "errors",
    "DsoftmaxError": "errors",
    "MemoryBoundError": "errors",
    "OutageError": "errors",
    "SoftmaxRegression": "estimators.classifier",
    "SoftmaxRegressionCV": "estimators.classifier_cv",
    "ingest": "data.ingest.ingestion",
    "inspect_data": "diagnostics.data_report",
    "load_model": "estimators.load",
    "plan_fit": "estimators.plan",
    "open_data": "data.opening",
}

__all__ = [
    "CheckpointError",
    "ChunkError",
    "DataError",
    "DsoftmaxError",
    "MemoryBoundError",
    "OutageError",
    "SoftmaxRegression",
    "SoftmaxRegressionCV",
    "__version__",
    "ingest",
    "inspect_data",
    "load_model",
    "open_data",
    "plan_fit",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # slow, beside all else here

        return version("dsoftmax")
    if name not in _HOME:
        raise AttributeError(f"module 'dsoftmax' has no attribute {name!r}")
    return getattr(import_module(f"dsoftmax.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
