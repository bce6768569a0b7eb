"""Learning from parts as they come: `partial_fit`, and what it goes on from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.utils.metaestimators import available_if

from dsoftmax.data.opening import open_data
from dsoftmax.data.source import Source
from dsoftmax.data.store_changes import require_unchanged, warn_of_absent_chunks
from dsoftmax.diagnostics.history import record_of
from dsoftmax.estimators.base import LinearClassifier
from dsoftmax.estimators.feature_names import check_feature_names
from dsoftmax.events import Callback
from dsoftmax.objective.linear_model import LinearModel
from dsoftmax.runtime.select import executor_for
from dsoftmax.storage.records import STORABLE, flatten, restore
from dsoftmax.training.fingerprint import described
from dsoftmax.training.params import MINI_BATCH, resolve_part
from dsoftmax.training.partial_fit import PartialFitState, train_part
from dsoftmax.training.result import FitResult


def _learns_from_parts(model: PartLearner) -> bool:
    """Tell scikit-learn whether there is `partial_fit`, and say why if there is not."""
    if model.solver not in ("auto", *MINI_BATCH):
        raise AttributeError(
            f"partial_fit updates by mini-batches, which solver={model.solver!r} does not; "
            f"use 'auto' or one of {MINI_BATCH}"
        )
    return True


class PartLearner(LinearClassifier):
    """An estimator that is fitted as a whole or part by part."""

    solver: str
    callbacks: Sequence[Callback]
    _partial_fit_state: PartialFitState | None

    @available_if(_learns_from_parts)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> Self:
        """Update the model by one pass over some rows, in mini-batches.

        Parameters
        ----------
        X, y : as for `fit`
            A part may hold a single class.
        classes : array-like of shape (n_classes,), optional
            All labels that will ever come; needed by the first call, unless given as the parameter
            `classes` or known from an earlier fit.
        sample_weight : as for `fit`
            Weights of the rows of the part.

        Returns
        -------
        self
            `loss_` is the mean over the mini-batches; the learning rate falls with the rows seen.

        Raises
        ------
        DataError
            If the classes are not known or not those of before, or the data cannot be used.
        AttributeError
            If the solver takes no mini-batches.
        """
        params = resolve_part(self.get_params(deep=False), classes, self._last_fit())
        source = open_data(X, y, sample_weight)
        before = getattr(self, "_partial_fit_state", None)
        require_unchanged(source, at_start=True)
        warn_of_absent_chunks(source, stacklevel=2)
        with executor_for(source) as executor:
            fit, self._partial_fit_state = train_part(
                source, params, executor, self.callbacks, before
            )
        check_feature_names(self, X, source, reset=not hasattr(self, "n_features_in_"))
        if before is not None:
            fit = replace(fit, passes=fit.passes + self.n_iter_, steps=fit.steps + self.n_steps_)
        self._set_fitted(fit, source)
        if fit.quarantined:
            warnings.warn(fit.left_out, stacklevel=2)
        return self

    def _set_fitted(self, fit: FitResult, source: Source) -> None:
        self.classes_ = fit.classes
        model = fit.model
        self.coef_, self.intercept_ = np.ascontiguousarray(model.coef.T), model.intercept
        self._shift = fit.shift
        self.n_features_in_ = source.n_features
        self.n_iter_, self.n_steps_ = fit.passes, fit.steps
        self.loss_, self.gap_, self.stop_reason_ = model.loss, model.gap, model.status.value
        self.loss_evaluated_ = model.evaluated
        self.best_iter_ = model.best_pass
        self.seed_, self.numerics_ = fit.seed, fit.numerics
        self.data_ = described(source) | {"labels": fit.labels}
        self.history_ = [record_of(event) for event in fit.history]
        self.quarantined_ = [bad_chunk._asdict() for bad_chunk in fit.quarantined]

    def _last_fit(self) -> LinearModel | None:
        if not hasattr(self, "coef_"):
            return None
        shift = getattr(self, "_shift", None)
        return LinearModel(self.classes_, self.coef_.T, self.intercept_, shift)

    def __getstate__(self) -> dict[str, Any]:
        # A solver's state as plain data: pickle carries anything, but skops no Enum.
        state: dict[str, Any] = super().__getstate__()
        if state.get("_partial_fit_state") is None:
            return state
        tree, arrays = flatten(state["_partial_fit_state"])
        return state | {"_partial_fit_state": {"tree": tree, "arrays": arrays}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        stored = state.get("_partial_fit_state")
        if stored is not None:
            state = state | {
                "_partial_fit_state": restore(stored["tree"], stored["arrays"], STORABLE)
            }
        super().__setstate__(state)
