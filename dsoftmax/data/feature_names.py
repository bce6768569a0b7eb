"""Names of the features, where the data bring some."""

from __future__ import annotations

from typing import Any

from dsoftmax.data.grid_rows import GridRows
from dsoftmax.data.row_array import RowArray
from dsoftmax.data.zarr_array import ZarrArray

Names = tuple[str, ...]


def feature_names(X: Any, array: RowArray) -> Names | None:
    """Return the names of the features, if all have one that is a string.

    Parameters
    ----------
    X : what the user passed: the columns of a DataFrame have names, and so has the last axis of
        a DataArray if it has a coordinate
    array : X as an array of rows; one of Zarr may have the attribute "feature_names"
    """
    stored = array.boxed if isinstance(array, GridRows) else array
    found: Any = getattr(X, "columns", None)
    if type(X).__module__.startswith("xarray."):
        found = X.coords[X.dims[-1]].values.tolist() if X.dims[-1] in X.coords else None
    elif isinstance(stored, ZarrArray) and not type(X).__module__.startswith("dask."):
        found = stored.array().attrs.get("feature_names")
    names = () if found is None or isinstance(found, str) else tuple(found)
    if len(names) != array.shape[-1] or not all(isinstance(name, str) for name in names):
        return None
    return names
