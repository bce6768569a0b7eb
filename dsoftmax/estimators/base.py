"""What a fitted linear model can do: predict, score, evaluate, be saved."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from dsoftmax.data.opening import open_data
from dsoftmax.data.source import Source
from dsoftmax.estimators.export import sklearn_model, write_onnx
from dsoftmax.estimators.feature_names import check_feature_names
from dsoftmax.estimators.predict import evaluate, is_dask, predict
from dsoftmax.estimators.predict_to import predict_to_store
from dsoftmax.estimators.public_repr import PublicRepr
from dsoftmax.metrics.scores import EvaluationResult
from dsoftmax.objective.linear_model import LinearModel

_SHARED = ("fit_intercept", "class_weight", "max_iter", "tol")


class LinearClassifier(ClassifierMixin, PublicRepr):  # type: ignore[misc]
    """The methods of an estimator that has `classes_`, `coef_` and `intercept_`."""

    def predict(self, X: Any, *, missing_label: Any = None) -> Any:
        """Return the most probable label of each row.

        Parameters
        ----------
        X : as for `fit`
            The rows. Stored numbers are decoded by the attributes of their own array, whatever
            those of the training data were; `X` may be ``open_data(X, decode=False)``, which
            reads them as they are stored.
        missing_label : label, optional
            What rows with a missing value get: a NaN or an infinity, a masked value, or one that
            attributes mark so (see `open_data`). By default such a row is an error. The labels are
            of a dtype that holds the classes and this one: integers become larger ones (-1 beside
            uint8: int16) or float64 (NaN), strings longer ones.

        Returns
        -------
        array of shape (n_samples,), or of the axes of the samples if there are several
            NumPy for data in memory, else a Dask array that computes when asked; a DataArray for
            a DataArray.

        Raises
        ------
        DataError
            If X has another number of features than the model, or no dtype holds the classes and
            `missing_label`; if a row has a missing value and there is no label for it (of a Dask
            array, when it is computed).

        Warns
        -----
        UserWarning
            If chunks of X are not in its store, which reads them as its fill value; if only one of
            X and the model has names of features; and as `open_data`.
        """
        return self._predicted(X, "predict", missing_label)

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class.

        Parameters
        ----------
        X : as for `fit`
            The rows, read as `predict` reads them.

        Returns
        -------
        array of shape (n_samples, n_classes)
            Of the kind that `predict` returns; the columns are those of `classes_`. Rows with a
            missing value have NaN.

        Warns
        -----
        UserWarning
            As `predict`.
        """
        return self._predicted(X, "predict_proba")

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithms of the probabilities, without underflow.

        Parameters
        ----------
        X : as for `fit`
            The rows, read as `predict` reads them.

        Returns
        -------
        array of shape (n_samples, n_classes)
            Of the kind that `predict` returns; the columns are those of `classes_`. Rows with a
            missing value have NaN.

        Warns
        -----
        UserWarning
            As `predict`.
        """
        return self._predicted(X, "predict_log_proba")

    def decision_function(self, X: Any) -> Any:
        """Return theta_j . x + b_j, of which the probabilities are the softmax.

        Parameters
        ----------
        X : as for `fit`
            The rows, read as `predict` reads them.

        Returns
        -------
        array of shape (n_samples, n_classes), or (n_samples,) for two classes
            Of the kind that `predict` returns; for two classes the log odds of the second. Rows
            with a missing value have NaN.

        Warns
        -----
        UserWarning
            As `predict`.
        """
        return self._predicted(X, "decision_function")

    def predict_to(
        self,
        X: Any,
        path: str | os.PathLike[str],
        method: str = "predict_proba",
        *,
        overwrite: bool = False,
        resume: bool = False,
        missing_label: Any = None,
    ) -> None:
        """Write predictions to a new Zarr array, chunk by chunk; they are never held at once.

        Every chunk is written whole, with a checksum. A local array appears only when it is
        complete; one at a URL is known to be incomplete until then, and is not read.

        Parameters
        ----------
        X : as for `fit`
            The rows, read as `predict` reads them.
        path : path or URL
            Of the array.
        method : {"predict_proba", "predict", "predict_log_proba", "decision_function"}
            What to write.
        overwrite : bool, default=False
            Replace a Zarr array that is there already.
        resume : bool, default=False
            Keep what is written if this is stopped, and go on from there if it was: call it again
            with the same model and data, which are known by the address, the metadata and the first
            chunk of X. Until it is complete, a local array is at `path` with
            ".partial" to its name. One process at a time.
        missing_label : label, optional
            As for `predict`; other methods write NaN for rows with a missing value. If it is an
            integer, and none of the classes, it is the array's attribute "_FillValue", by which
            xarray and `open_data` read it as missing.

        Raises
        ------
        DataError
            If X does not fit the model, there is something at `path` already, or what was begun
            is of another model, data or `missing_label`; as `predict`.

        Warns
        -----
        UserWarning
            As `predict`.
        """
        check_is_fitted(self)
        source = self._opened(X)
        model = self._linear(X, source, missing_label)
        predict_to_store(model, source, path, method, overwrite=overwrite, resume=resume)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy on the rows of X, streamed as in `fit`.

        Parameters
        ----------
        X, y, sample_weight : as for `fit`
            The rows, their labels and weights.

        Returns
        -------
        float
            Share of the weight that is predicted right.

        Warns
        -----
        UserWarning
            As `evaluate`.
        """
        return float(self._evaluated(X, y, sample_weight)["accuracy"])

    def evaluate(self, X: Any, y: Any = None, sample_weight: Any = None) -> EvaluationResult:
        """Return metrics on the rows of X in one streamed pass.

        The confusion matrix that is returned takes 8 bytes for each pair of classes; on the
        workers there are only the pairs that occur.

        Parameters
        ----------
        X, y, sample_weight : as for `fit`
            The rows, their labels and weights.

        Returns
        -------
        EvaluationResult
            A dict: "n_samples", "accuracy", "balanced_accuracy", "top_k_accuracy", "log_loss" (the
            mean, without penalty), "brier_score", "ece", "f1_macro", "per_class",
            "confusion_matrix" and "reliability", each as
            `dsoftmax.metrics.scores.EvaluationResult` says; and "unknown_labels", those in y that
            the model does not know. As text it is a table, and `to_dict()` is made for JSON.

        Raises
        ------
        DataError
            If X does not fit the model, or y has labels of another type than its classes; if X has
            a missing value, unless it is opened by ``open_data(X, y, missing="drop")``.

        Warns
        -----
        UserWarning
            If rows with missing values are left out, or y has labels that the model does not know,
            which are counted as wrong and listed in "unknown_labels"; and as `predict`.
        """
        return self._evaluated(X, y, sample_weight)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model to a small Zarr group, without pickle; `load_model` reads it.

        Parameters
        ----------
        path : path or URL
            Where the group goes.
        overwrite : bool, default=False
            Replace a model that is there already, or else raise DataError.
        """
        from dsoftmax.storage.model_file import save_model

        check_is_fitted(self)
        save_model(self, path, overwrite=overwrite)

    def to_sklearn(self) -> Any:
        """Return the model as scikit-learn's `LogisticRegression`, with the very coefficients.

        Returns
        -------
        sklearn.linear_model.LogisticRegression
            Fitted. `fit_intercept`, `class_weight`, `max_iter` and `tol` are those of this model;
            its other parameters, of which only a new fit takes note, are scikit-learn's. It
            raises on missing values in every method.
        """
        check_is_fitted(self)
        params = {name: getattr(self, name) for name in _SHARED}
        facts = {"n_iter_": np.array([self.n_iter_], np.int32)}
        if hasattr(self, "feature_names_in_"):
            facts["feature_names_in_"] = self.feature_names_in_
        return sklearn_model(self._model(), params, facts)

    def to_onnx(
        self, path: str | os.PathLike[str], *, dtype: str = "float32", overwrite: bool = False
    ) -> None:
        """Write the model as an ONNX file, for runtimes without Python.

        Its input is "X" of shape (rows, n_features), and its outputs are "label" (rows,) and
        "probabilities" (rows, n_classes) in float32, computed in float64. Integers come back as
        int64. The property "feature_names" holds the names of the features, a line each. A row with
        a NaN or an infinity has probabilities of NaN, and an arbitrary label: there is no
        `missing_label`.

        Parameters
        ----------
        path : path
            Of the file.
        dtype : {"float32", "float64", "uint8", "int16"}, default="float32"
            Of the input.
        overwrite : bool, default=False
            Replace a file that is there already.

        Raises
        ------
        DsoftmaxError
            If onnx is not installed (the extra `onnx`).
        DataError
            If there is something at `path` already, or labels are too large for int64.
        """
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        write_onnx(self._model(), path, names, dtype, overwrite)

    def _evaluated(self, X: Any, y: Any, sample_weight: Any) -> EvaluationResult:
        check_is_fitted(self)
        source = self._opened(X, y, sample_weight)
        return evaluate(self._linear(X, source), source)

    def _predicted(self, X: Any, method: str, missing_label: Any = None) -> Any:
        check_is_fitted(self)
        source = None if is_dask(X) and self._fit_fact("_decode", True) else self._opened(X)
        return predict(self._linear(X, source, missing_label), X, source, method)

    def _linear(self, X: Any, source: Source | None, missing_label: Any = None) -> LinearModel:
        check_feature_names(self, X, source, reset=False)
        return self._model(missing_label)

    def _opened(self, X: Any, y: Any = None, sample_weight: Any = None) -> Source:
        """Return rows as those of the fit were read: as their attributes say, or as stored."""
        decode = self._fit_fact("_decode", True) or isinstance(X, Source)
        return open_data(X, y, sample_weight, decode=decode)

    def _fit_fact(self, name: str, default: Any) -> Any:
        """Return what the model knows of the data of its fit; a search, what its winner knows."""
        return getattr(getattr(self, "best_estimator_", self), name, default)

    def _model(self, missing_label: Any = None) -> LinearModel:
        shift = getattr(self, "_shift", None)
        return LinearModel(self.classes_, self.coef_.T, self.intercept_, shift, missing_label)
