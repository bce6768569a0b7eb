"""The former place of `dsoftmax.estimators.dask_ml`, kept as an import path."""

from dsoftmax.estimators.dask_ml import dask_ml_searches

__all__ = ["dask_ml_searches"]
