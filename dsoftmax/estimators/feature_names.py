"""Names of features: those of the data of a fit, and whether other data have the same."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_feature_names

from dsoftmax.data.axes import feature_axis, require_same_feature_axis
from dsoftmax.data.source import Source


def check_feature_names(
    estimator: BaseEstimator, X: Any, source: Source | None, *, reset: bool
) -> None:
    """Set `feature_names_in_` or hold X against it; see `sklearn.utils.validation.validate_data`.

    Parameters
    ----------
    estimator : the estimator
    X : what it is given
    source : the same, opened; None for an array that has no names
    reset : whether it is fitted

    Raises
    ------
    DataError
        If the features lie along an axis of another name.
    ValueError
        If X has other names than the data of the fit, or the same in another order.

    Warns
    -----
    UserWarning
        If only one of the two has names.
    """
    if source is not None and not reset:
        fitted = getattr(estimator, "best_estimator_", estimator)
        expected = getattr(fitted, "_feature_axis", None)
        require_same_feature_axis(source.X.name, feature_axis(source.axes), expected)
    names = None if source is None else source.feature_names
    if names is not None and not hasattr(X, "columns"):
        import pandas as pd

        X = pd.DataFrame(columns=list(names))
    _check_feature_names(estimator, X, reset=reset)
