"""The estimator that chooses its own penalty."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from dsoftmax.data.opening import open_data
from dsoftmax.data.source import Source
from dsoftmax.estimators.base import LinearClassifier
from dsoftmax.estimators.classifier import SoftmaxRegression
from dsoftmax.estimators.feature_names import check_feature_names
from dsoftmax.estimators.session import session
from dsoftmax.events import Callback
from dsoftmax.model_selection.folding import with_folds
from dsoftmax.model_selection.path import resolve_search
from dsoftmax.model_selection.search import CrossValidationSearch, SearchResult
from dsoftmax.training.validation import open_validation

# Parameters and fitted attributes that the winner and the search share.
_PARAMS = (
    *("fit_intercept", "class_weight", "classes", "standardize", "solver", "max_iter", "tol"),
    *("sample_size", "random_state"),
)
_FITTED = (
    *("classes_", "coef_", "intercept_", "_shift", "n_features_in_", "n_iter_", "n_steps_", "gap_"),
    *("loss_", "loss_evaluated_", "stop_reason_", "seed_", "numerics_", "data_", "quarantined_"),
    "history_",
)


class SoftmaxRegressionCV(LinearClassifier):
    """Softmax regression that chooses the strength of its penalty.

    All candidates and folds are one stack of models, which each read of the rows serves: it gives
    every model its gradient, and its loss on the rows that it does not learn from.

    Parameters
    ----------
    alphas : int or array-like of shape (n_alphas,), default=10
        Strengths to try, on the scale of the mean loss; or how many: evenly spaced in their
        logarithms, with an L1 penalty over four decades from the one for which all coefficients
        are zero, without one over six from where the model can explain about a tenth of the loss.
    l1_ratios : array-like of shape (n_l1_ratios,), default=(0.0,)
        Shares of the L1 penalty to try with each.
    cv : int, array-like of shape (n_samples,) or None, default=5
        How many folds: those of a class differ by a row at most, and a row's is decided by
        `random_state`, its class, and how many rows of the class come before. Or the fold of each
        row, such as a patient or a scene (a whole number or a string, of the kinds that `y` may
        be; a negative number for rows that every model learns from). Or None, to be judged by
        `X_val`.
    scoring : {"neg_log_loss", "accuracy"}, default="neg_log_loss"
        What is to be highest, in the mean over the folds, on rows that are not learned from.
        They are weighed by `sample_weight`, and not by `class_weight`.
    select : {"best", "1se"}, default="best"
        "1se": the largest alpha whose mean score is within a standard error of the best.
    refit : bool, default=True
        Fit the winner to all rows; if not, its coefficients are the means over the folds.
    prune : bool, default=True
        Eliminate candidates before they converge, if they cannot win any more (racing: Maron and
        Moore, 1994). This needs an estimate of the distance to the minimum, so it applies only to
        "neg_log_loss", the solver "newton" and candidates without an L1 penalty. A candidate is
        eliminated if its loss is higher than the best by more than both can still change (notes).
        It keeps the scores and coefficients that it has then, which are not those of a converged
        model; its objective may be that of a sample of the rows. If False, none is eliminated.
    fit_intercept, class_weight, classes, standardize : as for `SoftmaxRegression`
        Class weights "balanced" are those of all rows.
    solver : {"auto", "newton", "lbfgs"}, default="auto"
        As for `SoftmaxRegression`; "newton" keeps one sample for all models, and can eliminate
        candidates.
    max_iter : int, default=100
        Budget in passes over X, for everything together. A quarter is reserved for the refit, and
        half for the fold models while full-data models are ahead of them, see the notes.
    tol : float or "auto", default=1e-4
        As for `SoftmaxRegression`, for each model. With folds and `prune`, a loose tolerance
        makes scores too good, see the notes.
    sample_size, random_state, checkpoint, callbacks, verbose : as for `SoftmaxRegression`
        The seed also deals the folds; the checkpoint holds all models.

    Attributes
    ----------
    alpha_, l1_ratio_ : float
        The penalty of the winner.
    alphas_ : ndarray of shape (n_alphas,), or (n_l1_ratios, n_alphas) if each has its own
        Descending.
    l1_ratios_ : ndarray of shape (n_l1_ratios,)
    scores_ : ndarray of shape (n_folds, n_l1_ratios, n_alphas)
        Of the models on the rows that they did not learn from; one "fold" with `X_val`. If the
        search is interrupted while full-data models are ahead, the scores are of these, which have
        learned from all rows.
    coefs_paths_ : ndarray of shape (n_folds, n_l1_ratios, n_alphas, n_classes, n_features + 1)
        Of the models, intercepts last; one class for two.
    objectives_ : ndarray of shape (n_folds, n_l1_ratios, n_alphas)
        Penalised objectives of the models, on the rows that they learned from.
    converged_ : ndarray of shape (n_folds, n_l1_ratios, n_alphas)
        Which models were followed to their minima.
    coef_, intercept_, classes_, n_features_in_, feature_names_in_, seed_, data_, numerics_
        As of `SoftmaxRegression`, for the winner; `loss_`, `loss_evaluated_`, `gap_`,
        `stop_reason_` and `quarantined_` too. A search starts anew without a chunk it leaves out.
    n_iter_, n_steps_ : int
        Passes over X, the scans of the labels and X_val not counted, and reads that evaluated.
    history_ : list of dict
        A record for every pass: how the best candidate stood.
    best_estimator_ : SoftmaxRegression
        The winner, fitted, with its alpha.

    Notes
    -----
    Racing. If the objective of a model is a gap g above its minimum, by estimate, its mean loss on
    m held-out rows changes by at most ``g + 2 * sqrt(g * p / (2 * n)) + 3 * sqrt(2 * g / m)`` until
    it converges. It learns from n rows, and p is the number of coefficients as far as the penalty
    leaves them free: the trace of H (H + A)^-1, with the curvatures H of the loss and A of the
    penalty. Candidates are eliminated at the ends of passes, by numbers that do not depend on the
    cluster. With `X_val`, they are also eliminated before the first pass that all take part in: the
    minimum for a sample of s rows is at most ``(p + 3 * sqrt(2 * p)) / (2 * s)`` above that for all
    rows. If many are left, one of them is the pilot: it takes two passes alone, and the others
    start where it is.

    Warm starts. With folds, "newton" and candidates that may be eliminated, a full-data model of
    each candidate goes ahead of its fold models, until its gap is a tenth of theirs. Each pass
    evaluates its point for the rows of every fold apart, which gives the losses and gradients of
    all fold models there. While they are there, the second term above is larger by a factor of
    ``1 + sqrt(r)``, with r rows learned from for each that is held out. Then each fold model goes
    on by itself, until its own gradient has fallen to `tol`, and to a third. If it is within `tol`
    at the start, one step may do: the search in memory is short, and the pass that evaluates it has
    to find at least half of the gain that was expected (approximate cross-validation: Wilson, Kasy
    and Mackey, 2020, in which that step is not evaluated). Everywhere else, fold models start from
    the intercepts alone.

    A fold model that starts at its full-data model starts from coefficients that the rows judging
    it had a part in. At a loose `tol` it stops before it has forgotten all of that: its scores are
    too good, most of all for small alphas, and another alpha may win. Choose a smaller `tol`, or
    ``prune=False``, which is free of it at any `tol`.

    As many models share a read as have gradients of 16 MiB together.

    References
    ----------
    Maron and Moore, Hoeffding races, NIPS 6, 1994; Friedman, Hastie and Tibshirani, Journal of
    Statistical Software 33, 2010; Breiman, Friedman, Olshen and Stone, Classification and
    Regression Trees, 1984; Hastie, Tibshirani and Friedman, Elements of Statistical Learning, 2009;
    Wilson, Kasy and Mackey, Approximate cross-validation, 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = SoftmaxRegressionCV(alphas=[1e-4, 1e-2, 1.0], random_state=0).fit(X, y)
    >>> model.alpha_
    0.01
    >>> model.scores_.shape
    (5, 1, 3)
    """

    def __init__(
        self,
        alphas: Any = 10,
        l1_ratios: Any = (0.0,),
        cv: Any = 5,
        scoring: str = "neg_log_loss",
        select: str = "best",
        refit: bool = True,
        prune: bool = True,
        fit_intercept: bool = True,
        class_weight: Mapping[Any, float] | str | None = None,
        classes: Any = None,
        standardize: bool = False,
        solver: str = "auto",
        max_iter: int = 100,
        tol: float | str = 1e-4,
        sample_size: int | str = "auto",
        random_state: Any = None,
        checkpoint: str | os.PathLike[str] | None = None,
        callbacks: Sequence[Callback] = (),
        verbose: int = 0,
    ) -> None:
        self.alphas = alphas
        self.l1_ratios = l1_ratios
        self.cv = cv
        self.scoring = scoring
        self.select = select
        self.refit = refit
        self.prune = prune
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.classes = classes
        self.standardize = standardize
        self.solver = solver
        self.max_iter = max_iter
        self.tol = tol
        self.sample_size = sample_size
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.callbacks = callbacks
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Fit all candidates to the rows of X and their labels y, and choose one.

        Parameters
        ----------
        X, y, sample_weight, X_val, y_val, sample_weight_val : as for `SoftmaxRegression.fit`
            The rows, labels and weights; and, with ``cv=None``, those to choose by.

        Returns
        -------
        self
            Fitted.

        Raises
        ------
        DataError
            If the parameters or the data cannot be used, or folds are missing or too small.
        ChunkError, OutageError, CheckpointError
            As `SoftmaxRegression.fit`.
        MemoryBoundError
            If this process has no room for the states of all models.

        Warns
        -----
        ConvergenceWarning
            If the budget was spent or the search interrupted before it was over.
        UserWarning
            If chunks or rows are left out, or all rows of a class are in one fold.
        """
        params, options = resolve_search(self.get_params(deep=False))
        source = open_data(X, y, sample_weight)
        validation_source = open_validation(source, X_val, y_val, sample_weight_val)
        source = with_folds(source, self.cv, validation_source)
        with session(self, params, source, validation_source) as run:
            executor, validation, callbacks = run
            found = CrossValidationSearch(
                source, params, options, executor, callbacks, self.checkpoint, validation
            ).run()
        check_feature_names(self, X, source, reset=True)
        self._set_found(found, source)
        if found.fit.quarantined:
            warnings.warn(found.fit.left_out, stacklevel=2)
        if not found.fit.model.status.converged:
            warnings.warn(found.fit.advice, ConvergenceWarning, stacklevel=2)
        return self

    def _set_found(self, found: SearchResult, source: Source) -> None:
        params = {name: getattr(self, name) for name in _PARAMS}
        best = SoftmaxRegression(*found.candidates.pairs[found.chosen], **params)
        best._set_fitted(found.fit, source)
        if hasattr(self, "feature_names_in_"):
            best.feature_names_in_ = self.feature_names_in_
        self.best_estimator_ = best
        for name in _FITTED:
            setattr(self, name, getattr(best, name))
        self.alpha_, self.l1_ratio_ = best.alpha, best.l1_ratio
        alphas, self.l1_ratios_ = found.candidates.alphas, found.candidates.l1_ratios
        self.alphas_ = alphas[0] if (alphas == alphas[0]).all() else alphas
        shape = (len(found.scores), *alphas.shape)
        self.scores_ = found.scores.reshape(shape)
        self.coefs_paths_ = found.coefs.reshape(*shape, *found.coefs.shape[2:])
        self.objectives_ = found.objectives.reshape(shape)
        self.converged_ = found.converged.reshape(shape)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the winner as a model, which `load_model` reads as a `SoftmaxRegression`.

        Parameters
        ----------
        path, overwrite : as for `SoftmaxRegression.save`
            Where it goes.
        """
        check_is_fitted(self)
        self.best_estimator_.save(path, overwrite=overwrite)

    def plot_path(self, ax: Any = None) -> Any:
        """Draw the held-out loss against alpha, and below it the norm of the coefficients.

        The loss, or the accuracy if that is the scoring, is the mean over the folds with its
        standard error, a line for each share of the L1 penalty; hollow dots are of candidates that
        were not followed to their minima. The norm is that of all coefficients but the intercepts,
        Euclidean, in units of the data, in the mean over the folds.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, or two of them, optional
            Where to draw the loss, and the norm if there are two; by default a new figure.

        Returns
        -------
        matplotlib.figure.Figure
            A new one is not known to pyplot: no window opens, and nothing has to be closed.

        Raises
        ------
        DsoftmaxError
            If matplotlib is not installed.
        NotFittedError
            If the search is not fitted.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> model = SoftmaxRegressionCV(alphas=[1e-3, 1e-2, 1e-1], cv=3, random_state=0)
        >>> figure = model.fit(*load_iris(return_X_y=True)).plot_path()
        """
        from dsoftmax.diagnostics.path_plot import plot_path

        check_is_fitted(self)
        return plot_path(self, ax)
