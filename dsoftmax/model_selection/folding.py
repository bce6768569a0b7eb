"""The folds of a search: dealt out by class, or named by the user row by row."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dsoftmax.data.axes import axes_of, require_same_axes
from dsoftmax.data.batches import Leaf
from dsoftmax.data.folds import Folds, UserFolds, parts_of, stratified
from dsoftmax.data.opening import row_array
from dsoftmax.data.source import Source
from dsoftmax.errors import DataError, quoted
from dsoftmax.model_selection.sums import FoldMoments
from dsoftmax.objective.labels import preview
from dsoftmax.objective.reduction import ALL
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.reduce import reduce
from dsoftmax.training.fingerprint import chunk_digests
from dsoftmax.training.label_scan import EncodedData, scan_labels
from dsoftmax.typing import Array


def with_folds(source: Source, cv: Any, validation: Source | None) -> Source:
    """Return a source with the folds that `cv` names row by row, if it does.

    Raises
    ------
    DataError
        If there is neither `cv` nor a validation set, or both.
    """
    if cv is None and validation is None:
        raise DataError("cv is None, and there is no X_val to choose by; pass one of them")
    if cv is not None and validation is not None:
        raise DataError(f"cv is {quoted(cv)}, and X_val is given too; pass cv=None to choose by it")
    return source if cv is None or isinstance(cv, int | np.integer) else with_cv(source, cv)


def with_cv(source: Source, cv: Any) -> Source:
    """Return the source with the fold of each row, as the user names it.

    Raises
    ------
    DataError
        If there is not one label for each row.
    """
    try:
        array = row_array("cv", cv)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(
            f"cv is a {type(cv).__name__} that makes no array; expected the fold of each row, "
            "which can be made of the test sets of splits, or a number of folds"
        ) from error
    require_same_axes(source.axes, axes_of(cv, array))
    if array.shape != source.shape:
        raise DataError(
            f"{array.name} has shape {array.shape}; expected one fold for each row of X, of shape "
            f"{source.shape}, or a number of folds"
        )
    if array.dtype.kind not in "biuUSTO":
        raise DataError(f"{array.name} has dtype {array.dtype}; folds are whole numbers or strings")
    return replace(source, cv=array if source.grid is None else array.laid_out(source.grid))


def folded(
    labelled: EncodedData, n_folds: int, seed: int, leaves: Sequence[Leaf], executor: Executor
) -> EncodedData:
    """Return the encoded labels with folds in their source.

    Reads the labels once more, or the folds that the user named.

    Raises
    ------
    DataError
        If there are fewer than two folds, or no class has a row for each.
    """
    source = labelled.source
    folds: Folds
    digest = labelled.digest
    if source.cv is not None:
        folds, values = _given(source, leaves, executor)
        digest = f"{digest} {values}"
    else:
        reduction = parts_of(len(labelled.classes))
        # Which rows are dropped for missing values is known only from X.
        targets_only = not source.drops_missing
        parts, _ = reduce(executor, source, reduction, leaves, targets_only=targets_only)
        folds = stratified(n_folds, seed, parts)
    return labelled._replace(source=replace(source, folds=folds), digest=digest)


def fold_names_source(source: Source) -> Source:
    """Return a source whose labels are the folds that the user named."""
    return replace(
        source,
        y=source.cv,
        sample_weight=None,
        cv=None,
        classes=None,
        class_weight=None,
        missing="raise",
        ignore_label=float("nan"),  # folds that are missing are counted
    )


def _given(source: Source, leaves: Sequence[Leaf], executor: Executor) -> tuple[UserFolds, str]:
    named = fold_names_source(source)
    names, counts = scan_labels(named, None, leaves, executor)
    if counts.ignored:
        raise DataError(
            f"{named.y.name if named.y else 'cv'} has a missing value in {counts.ignored:,} rows; "
            "expected the fold of each row: give those that are in no fold a negative number"
        )
    if names.dtype.kind == "i":
        names = names[names >= 0]
    if len(names) < 2:
        raise DataError(
            f"{named.y.name if named.y else 'cv'} names {len(names)} fold(s) "
            f"({preview(names)}); expected at least 2 (negative numbers are in none)"
        )
    digests, _ = reduce(executor, named, chunk_digests, leaves, targets_only=True)
    values = hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()[:16]
    return UserFolds(names), values


def require_folds(first: FoldMoments, folds: Folds, classes: Array) -> None:
    """Refuse folds without rows, and warn of classes whose rows are all in one fold.

    Raises
    ------
    DataError
        If a fold has no row with a positive weight, or fewer than two classes are left without it.
    """
    names = folds.names if isinstance(folds, UserFolds) else np.arange(folds.n_folds)
    everywhere = first.without(ALL).class_weight
    for fold, name in enumerate(names):
        if not first.judging[fold].sum() > 0:
            raise DataError(f"no row that counts is in the fold {name!s}; give it some, or none")
        left = first.without(fold).class_weight
        if np.count_nonzero(left) < 2:
            raise DataError(
                f"without the fold {name!s}, rows of {np.count_nonzero(left)} class(es) are left "
                "to learn from; choose other folds"
            )
        if len(lost := classes[(left == 0) & (everywhere > 0)]):
            warnings.warn(
                f"all rows of the class(es) {preview(lost)} are in the fold {name!s}, whose models "
                "cannot know them",
                stacklevel=6,  # the line that calls `SoftmaxRegressionCV.fit`
            )
