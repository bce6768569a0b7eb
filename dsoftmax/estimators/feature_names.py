"""The names of features, as scikit-learn checks them."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_feature_names

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
    ValueError
        If X has other names than the data of the fit, or the same in another order.

    Warns
    -----
    UserWarning
        If only one of the two has names.
    """
    names = None if source is None else source.feature_names
    if names is not None and not hasattr(X, "columns"):
        import pandas as pd

        X = pd.DataFrame(columns=list(names))
    _check_feature_names(estimator, X, reset=reset)
