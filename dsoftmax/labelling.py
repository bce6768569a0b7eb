"""From labels and weights as stored to codes and the weights that the objective sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dsoftmax.classes import class_factors, normalised, scan_labels
from dsoftmax.identity import labels_digest
from dsoftmax.reduction import Array
from dsoftmax.runtime.executors import Executor
from dsoftmax.runtime.reduce import full_pass
from dsoftmax.runtime.spans import Span, cut_spans
from dsoftmax.settings import Settings
from dsoftmax.sources.base import Source


class Labelled(NamedTuple):
    """What the scan of the labels leads to.

    Attributes
    ----------
    source : reads codes, and weights that are one on average
    class_weight : (n_classes,), total weight of each class
    digest : of what the scan has found
    """

    source: Source
    class_weight: Array
    digest: str


def label(
    source: Source, settings: Settings, executor: Executor, holes: Sequence[Span],
    least_classes: int,
) -> Labelled:  # fmt: skip
    """Scan the labels and weights of all rows but those of some chunks.

    Raises
    ------
    DataError
        As `scan_labels` and `class_factors`.
    """
    leaves = full_pass(cut_spans(source.chunks, source.row_bytes), holes)
    classes, counts = scan_labels(source, settings.classes, leaves, executor, least_classes)
    factors = class_factors(settings.class_weight, classes, counts)
    if source.sample_weight is not None or factors is not None:
        factors = normalised(factors, counts)
    weight = counts.weight if factors is None else counts.weight * factors
    return Labelled(source.with_classes(classes, factors), weight, labels_digest(classes, counts))
