"""Softmax regression on data larger than memory, streamed from Zarr, computed on Dask workers.

Names are imported when first used, so that a worker that needs only the kernel
loads only the kernel.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsoftmax.errors import (
        CheckpointError,
        ChunkError,
        DataError,
        DsoftmaxError,
        MemoryBoundError,
        OutageError,
    )
    from dsoftmax.estimator import SoftmaxRegression
    from dsoftmax.ingestion import ingest
    from dsoftmax.inspection import inspect_data
    from dsoftmax.modelfile import load_model
    from dsoftmax.planning import plan_fit
    from dsoftmax.search import SoftmaxRegressionCV
    from dsoftmax.sources import open_data

__version__ = "0.1.0"

_HOME = {
    "CheckpointError": "errors",
    "ChunkError": "errors",
    "DataError": "errors",
    "DsoftmaxError": "errors",
    "MemoryBoundError": "errors",
    "OutageError": "errors",
    "SoftmaxRegression": "estimator",
    "SoftmaxRegressionCV": "search",
    "ingest": "ingestion",
    "inspect_data": "inspection",
    "load_model": "modelfile",
    "plan_fit": "planning",
    "open_data": "sources",
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
    if name not in _HOME:
        raise AttributeError(f"module 'dsoftmax' has no attribute {name!r}")
    return getattr(import_module(f"dsoftmax.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
