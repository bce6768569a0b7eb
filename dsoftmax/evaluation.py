"""Evaluation of a model over rows that need not fit in memory: one pass, sums only."""

from __future__ import annotations

from dataclasses import replace

from dsoftmax.errors import DataError
from dsoftmax.metrics import metrics_of
from dsoftmax.prediction import LinearModel, require_features
from dsoftmax.runtime.executors import executor_for
from dsoftmax.runtime.reduce import full_pass, reduce
from dsoftmax.runtime.spans import cut_spans
from dsoftmax.scores import Scores, scores_of
from dsoftmax.sources.base import Source


def evaluated(model: LinearModel, source: Source) -> Scores:
    """Return the metrics of a model over a source with labels.

    Raises
    ------
    DataError
        If the source has no y, other features, or a label that the model does not know.
    """
    require_features(source.X.shape, model, source.X.name)
    if source.y is None:
        raise DataError("y is missing: pass the labels of X")
    labelled = replace(source, classes=model.classes)
    spans = cut_spans(source.chunks, source.row_bytes)
    with executor_for(source) as executor:
        reduction = metrics_of(model.point(source.dtype), model.shift)
        sums, _ = reduce(executor, labelled, reduction, full_pass(spans))
    if not sums.weight > 0:
        raise DataError("all weights are zero; at least one row must count")
    return scores_of(sums, model.classes, weighted=source.sample_weight is not None)
