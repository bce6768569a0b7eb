"""The `repr` of estimators, which scikit-learn makes of their parameters."""

from __future__ import annotations

import copy
import os

from sklearn.base import BaseEstimator

from dsoftmax.storage.credentials import public_url


class PublicRepr(BaseEstimator):  # type: ignore[misc]
    """An estimator whose `repr`, in text and HTML, has no credentials of its checkpoint's URL."""

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        return str(BaseEstimator.__repr__(self._shown(), N_CHAR_MAX))

    def _html_repr(self) -> str:
        return str(BaseEstimator._html_repr(self._shown()))

    def _shown(self) -> PublicRepr:
        shown, place = copy.copy(self), getattr(self, "checkpoint", None)
        if isinstance(place, str | os.PathLike):
            shown.checkpoint = public_url(place)
        return shown
