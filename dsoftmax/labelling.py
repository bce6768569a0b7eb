"""From labels and weights as stored to codes and the weights that the objective sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from dsoftmax.classes import (
    class_factors,
    normalised,
    report_left_out,
    require_classes,
    scan_labels,
)
from dsoftmax.errors import DataError
from dsoftmax.identity import labels_digest
from dsoftmax.labels import LabelCounts
from dsoftmax.reduction import Array
from dsoftmax.runtime.executors import Executor
from dsoftmax.runtime.reduce import full_pass
from dsoftmax.runtime.spans import Span, cut_spans
from dsoftmax.settings import Settings
from dsoftmax.sources.base import Source, preview


class Labelled(NamedTuple):
    """What the scan of the labels leads to.

    Attributes
    ----------
    source : reads codes, and weights that are one on average
    class_weight : (n_classes,), total weight of each class
    class_rows : (n_classes,), how many rows each has
    digest : of what the scan has found
    """

    source: Source
    class_weight: Array
    class_rows: Array
    digest: str

    @property
    def classes(self) -> Array:
        """Labels, sorted (n_classes,)."""
        assert self.source.classes is not None
        return self.source.classes


def label(
    source: Source, settings: Settings, executor: Executor, holes: Sequence[Span],
    least_classes: int, before: Labelled | None = None,
) -> Labelled:  # fmt: skip
    """Scan the labels and weights of all rows but those of some chunks.

    Parameters
    ----------
    source, settings, executor : of the fit
    holes : the rows that are left out
    least_classes : how many classes there must be
    before : what was found before more rows were left out; its classes stay the same

    Raises
    ------
    DataError
        As `scan_labels` and `class_factors`; and if a class has lost all of its rows.
    """
    named = settings.classes if before is None else before.classes
    leaves = full_pass(cut_spans(source.chunks, source.row_bytes), holes)
    classes, counts = scan_labels(source, named, leaves, executor)
    lost = (counts.weight == 0) & (counts.held_out > 0)
    if source.hold_out is not None and lost.any():
        # A class that would have no row left to be learned from keeps them all.
        source = replace(source, hold_out=replace(source.hold_out, spared=classes[lost]))
        classes, counts = scan_labels(source, classes, leaves, executor)
    report_left_out(source, counts)
    require_classes(source, classes, counts, least_classes)
    _require_judges(source, counts)
    factors = class_factors(settings.class_weight, classes, counts)
    if source.sample_weight is not None or factors is not None:
        factors = normalised(factors, counts)
    weight = counts.weight if factors is None else counts.weight * factors
    if before is not None and least_classes > 1:
        _require_all(classes, (before.class_weight > 0) & (weight == 0), holes)
    coded, digest = source.with_classes(classes, factors), labels_digest(classes, counts)
    return Labelled(coded, weight, counts.counts, digest)


def _require_judges(source: Source, counts: LabelCounts) -> None:
    """Refuse to hold out no row that counts."""
    if source.hold_out is not None and not counts.held_out.any():
        raise DataError(
            f"validation_fraction={source.hold_out.fraction:g} holds out no row that counts, of "
            f"{source.n_samples:,} rows (a class keeps its last ones); set it higher, change "
            "random_state, or pass X_val and y_val"
        )


def _require_all(classes: Array, lost: Array, holes: Sequence[Span]) -> None:
    if lost.any():
        rows = ", ".join(f"{start} to {stop - 1}" for start, stop in holes[:5])
        raise DataError(
            f"all rows of the class(es) {preview(classes[lost])} are in chunks that cannot be read "
            f"(rows {rows}); restore them, or leave those classes out on purpose"
        )
