"""The scikit-learn estimator: parameters in, training run, attributes out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

from sklearn.exceptions import ConvergenceWarning

from dsoftmax.data.opening import open_data
from dsoftmax.estimators.feature_names import check_feature_names
from dsoftmax.estimators.partial_fit import PartLearner
from dsoftmax.estimators.session import session
from dsoftmax.events import Callback
from dsoftmax.training.params import resolve
from dsoftmax.training.trainer import Trainer
from dsoftmax.training.validation import open_validation


class SoftmaxRegression(PartLearner):
    """Softmax (multinomial logistic) regression on data of any size.

    Minimises, over coefficients theta and intercepts b, ::

        (1 / sum(w)) sum_i w_i * -log p(y_i | x_i)
            + alpha * (l1_ratio * |theta|_1 + (1 - l1_ratio) / 2 * |theta|^2),
        p(y = j | x) = exp(theta_j . x + b_j) / sum_l exp(theta_l . x + b_l).

    The rows are streamed chunk by chunk from Zarr, on the workers of the active
    `distributed.Client`, or else of a local cluster that is started when needed; NumPy arrays
    are reduced in this process. The result does not depend on which.

    Parameters
    ----------
    alpha : float, default=1e-4
        Strength of the penalty, on the scale of the mean loss: scikit-learn's
        ``C = 1 / (sum(w) * alpha)``. The intercept is not penalised.
    l1_ratio : float, default=0.0
        Share of the L1 penalty, which makes coefficients exactly zero; not with "lbfgs".
    fit_intercept : bool, default=True
        Whether to fit an intercept for each class.
    class_weight : dict or "balanced", default=None
        Factor of the weight of each class's rows; "balanced" makes all classes weigh the same.
    classes : array-like of shape (n_classes,), default=None
        The labels to expect; by default those found in y.
    standardize : bool, default=False
        Penalise the coefficients of the standardised features. `coef_` is in units of
        the data all the same.
    solver : {"auto", "newton", "lbfgs", "sgd", "adam"}, default="auto"
        "newton": a sample of the rows is kept in memory, whose curvature makes each pass count: a
        handful of passes, to any accuracy and for any penalty. "lbfgs": limited-memory
        quasi-Newton, every evaluation a pass, for `l1_ratio` 0. "sgd": mini-batches with
        Nesterov's momentum, which need no tuning; with ``batch_size >= n_samples``, accelerated
        proximal gradient (FISTA). "adam": mini-batches, as others have them. "auto" is "newton" if
        its sample holds all rows, or no fewer than there are coefficients; else "lbfgs", or FISTA
        if `l1_ratio` is not 0.
    max_iter : int, default=100
        Budget in passes over X, whatever the solver; never exceeded.
    tol : float or "auto", default=1e-4
        Full-batch solvers stop when the largest entry of the (projected) gradient, with respect
        to the coefficients of features scaled alike, is at most `tol` times its value at the
        intercept-only model. "auto" is 1e-4, and has "newton" stop as soon as `gap_` is a 300th of
        half the number of coefficients over that of rows, which is what the choice of the rows
        leaves uncertain of a fit without a penalty (Wilks, 1938), if there are ten rows a
        coefficient. Mini-batches stop after
        `n_iter_no_change` passes that lower the mean loss by less than `tol`, relatively; never
        with ``tol=0`` or a cosine schedule.
    batch_size : int or "auto", default="auto"
        Rows of a mini-batch; "auto" is a 128th of the rows, from 64 to 65,536.
    sample_size : int or "auto", default="auto"
        About how many rows "newton" keeps in the memory of this process, in their stored dtype;
        "auto" is a 32nd of them, at least 8 * n_features * sqrt(n_classes) and 4 MiB, at most a
        third of them and 128 MiB; or all of them, up to 4 MiB. They are part of a checkpoint.
    learning_rate : float or "auto", default="auto"
        Step size of mini-batches. A number is in units of the data, as in other libraries, and the
        rule is the plain one. With "auto" the features are scaled alike. "sgd" then steps in
        the metric of the first rows (8 for a feature, at least 8,192; up to 2,048 features),
        as far as a batch can tell it; returns an average of the iterates; takes the noise out of
        gradients by those at a snapshot, from the third pass on; and shortens its steps by four
        after a pass that was worse than the best, which is undone. With an L1 penalty, the metric
        is diagonal and there is no average. `partial_fit` has no snapshots. "adam" takes 0.01.
    schedule : {"auto", "constant", "inverse", "cosine"}, default="auto"
        How the learning rate falls: "inverse" as 1 / (1 + passes), "cosine" to zero at the end
        of the budget. "auto" keeps a number constant; else it is "inverse" for `partial_fit`,
        "cosine" for "adam", and for "sgd" "inverse" in the first two passes, constant from there
        on.
    momentum : float, default=0.9
        Nesterov's momentum of "sgd", from 0 to below 1.
    clip_norm : float, default=None
        Scale mini-batch gradients down to this Euclidean norm.
    shuffle : bool, default=True
        Shuffle the chunks, and the rows within a chunk, anew for each pass of mini-batches.
    early_stopping : bool, default=False
        Stop when the validation loss has not fallen by more than `tol`, relatively, for
        `n_iter_no_change` passes, and keep the model for which it was lowest. It is that of
        `X_val`, or else of rows held out of X, which the fit does not learn from and evaluates in
        the reads that it makes anyway (with mini-batches: at the steps of the pass, Blum, Kalai
        and Langford, Beating the hold-out, COLT 1999).
    validation_fraction : float, default=0.1
        Share of the rows that `early_stopping` holds out, chosen by `random_state` and the index
        of the row alone; without a meaning for a fit with `X_val`.
    n_iter_no_change : int, default=5
        See `tol` and `early_stopping`.
    random_state : int, RandomState or None, default=None
        Determines the shuffles; the seed used is kept in `seed_`.
    warm_start : bool, default=False
        Start from the coefficients of the last fit, if it had the same classes and features. The
        result is no worse than that: the first pass evaluates them, or with mini-batches adds up
        their losses on the rows of each step.
    checkpoint : path or URL, default=None
        A folder to keep the state of the fit in. If it holds that of an unfinished fit of the same
        data and parameters, this one goes on from there, to the same bits; if of a finished one,
        it is returned. A larger `max_iter` lets a fit that ran out of it go on.
    callbacks : sequence of Callback, default=()
        Objects with a method ``on_event(event)``; see `dsoftmax.events`.
    verbose : int, default=0
        1 prints a row for every pass to standard error, with how far the next one is.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
    intercept_ : ndarray of shape (n_classes,) or (1,)
        Centred over classes.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Defined when the features have names that are all strings: the columns of a DataFrame, the
        coordinate of the last axis of a DataArray, or the attribute "feature_names" of a Zarr
        array, which `ingest` takes from a table.
    n_iter_ : int
        Passes over X, the scan of the labels not counted.
    n_steps_ : int
        Evaluations (full-batch) or updates (mini-batch).
    loss_ : float
        The penalised objective at the returned coefficients. Where the budget left no pass to
        evaluate it, an estimate: what the model of "newton" says, the mean over mini-batches.
    loss_evaluated_ : bool
        Whether `loss_` was evaluated on all rows; else it is an estimate.
    gap_ : float or None
        Estimate of how far `loss_` is above its minimum, from the curvature that "newton" has met
        and what its model had not foreseen: good to a factor of a few. None where it is not known:
        from other solvers, with an L1 penalty, right after the sample was chosen anew, and of a
        model that validation rows chose.
    best_iter_ : int or None
        The pass whose model `early_stopping` kept.
    stop_reason_ : str
    history_ : list of dict
        A record for every step and pass, see `dsoftmax.diagnostics.history.History`; those of
        passes have what validation rows said: "validation_loss", "validation_accuracy" and more.
    seed_ : int
    quarantined_ : list of dict
        The chunks of X that were left out, see `open_data`: "start", "stop" (rows) and "reason".
    data_ : dict
        What the metadata of the data (of the last part, after `partial_fit`) and the scan of the
        labels say: shapes, dtypes, chunks and digests, as text.
    numerics_ : dict
        The kinds of arithmetic that computed the fit (CPU, BLAS, versions), each with the first
        worker that had it. If there are two, the last bits depend on who computed what.

    References
    ----------
    Bishop, Pattern Recognition and Machine Learning, 2006, section 4.3.4 (the model);
    Shamir, Srebro and Zhang, ICML 2014, and Xu et al., NeurIPS 2016 (newton);
    Liu and Nocedal, Mathematical Programming 45, 1989 (lbfgs); Beck and Teboulle, SIAM J.
    Imaging Sciences 2, 2009 (FISTA); Sutskever, Martens, Dahl and Hinton, ICML 2013 (sgd);
    Polyak and Juditsky, SIAM J. Control and Optimization 30, 1992, Johnson and Zhang, NIPS 2013,
    and Bach and Moulines, NIPS 2013 (its automatic steps);
    Kingma and Ba, ICLR 2015 (adam).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = SoftmaxRegression(alpha=1e-3).fit(X, y)
    >>> model.predict(X[:3])
    array([0, 0, 0])
    >>> print(f"{model.score(X, y):.2f}")
    0.98
    """

    def __init__(
        self,
        alpha: float = 1e-4,
        l1_ratio: float = 0.0,
        fit_intercept: bool = True,
        class_weight: Mapping[Any, float] | str | None = None,
        classes: Any = None,
        standardize: bool = False,
        solver: str = "auto",
        max_iter: int = 100,
        tol: float | str = 1e-4,
        batch_size: int | str = "auto",
        sample_size: int | str = "auto",
        learning_rate: float | str = "auto",
        schedule: str = "auto",
        momentum: float = 0.9,
        clip_norm: float | None = None,
        shuffle: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        random_state: Any = None,
        warm_start: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        callbacks: Sequence[Callback] = (),
        verbose: int = 0,
    ) -> None:
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.classes = classes
        self.standardize = standardize
        self.solver = solver
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.sample_size = sample_size
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.momentum = momentum
        self.clip_norm = clip_norm
        self.shuffle = shuffle
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.warm_start = warm_start
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
        """Fit the model to the rows of X and their labels y.

        Parameters
        ----------
        X : Zarr array, path or URL of one, Dask array, DataArray, array-like, or an opened source
            Real numbers, of shape (n_samples, n_features), or (..., n_features) with several axes
            of samples. A `Source` of `open_data` brings its own y.
        y : the same kinds, of the shape of X without its last axis
            Labels: integers, booleans or strings.
        sample_weight : the same kinds, of the shape of y, optional
            Finite and not negative.
        X_val, y_val, sample_weight_val : the same kinds, optional
            Other rows, that the model is evaluated on after every pass: see `history_` and
            `early_stopping`. Reading them is not counted as a pass.

        Returns
        -------
        self
            Fitted.

        Raises
        ------
        DataError
            If the parameters or the data cannot be used; what metadata can tell is found out
            before anything is read. Also if a store has changed since it was opened, which is found
            at the end, where it is listed again.
        ChunkError
            If a store cannot deliver some rows, or has lost a chunk since it was opened.
        OutageError
            If storage or the cluster does not answer any more, for as long as is waited for it.
        CheckpointError
            If `checkpoint` is damaged, that of another run, or in use by another process.

        Warns
        -----
        ConvergenceWarning
            If the budget was spent before the solver converged, the loss diverged, or the fit
            was interrupted; the best model so far is kept.
        UserWarning
            If chunks were left out, or a checkpoint could not be written.
        UserWarning
            If rows are left out (`open_data`), or chunks of an array are not in its store, which
            reads them as its fill value; and as `open_data`.
        """
        last = self._last_fit() if self.warm_start else None
        params = resolve(self.get_params(deep=False), last)
        source = open_data(X, y, sample_weight)
        validation_source = open_validation(source, X_val, y_val, sample_weight_val)
        with session(self, params, source, validation_source) as run:
            executor, validation, callbacks = run
            fit = Trainer(source, params, executor, callbacks, self.checkpoint, validation).fit()
        check_feature_names(self, X, source, reset=True)
        self._partial_fit_state = None
        self._set_fitted(fit, source)
        if fit.quarantined:
            warnings.warn(fit.left_out, stacklevel=2)
        if not fit.model.status.converged:
            warnings.warn(fit.advice, ConvergenceWarning, stacklevel=2)
        return self
