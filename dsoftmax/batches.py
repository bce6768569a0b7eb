"""The mini-batches of a fit, and what the rows that come first tell of the curvature."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from operator import add

from dsoftmax.objective import Objective
from dsoftmax.reduction import Array, Reduction
from dsoftmax.runtime.executors import Executor
from dsoftmax.runtime.spans import Span
from dsoftmax.sampling import Epoch, Leaf, auto_batch_size, lane_count
from dsoftmax.settings import Settings
from dsoftmax.sources.base import Source
from dsoftmax.subproblem import MOST_FEATURES, partial_gram

_ROWS_A_FEATURE = 8
_LEAST_ROWS = 1 << 13


def first_epoch(
    source: Source, settings: Settings, spans: tuple[Span, ...], n_rows: int
) -> Epoch:  # fmt: skip
    """Return the batches of the first epoch over spans of so many rows."""
    batch = min(settings.batch_size or auto_batch_size(n_rows), n_rows)
    span_bytes = max(stop - start for start, stop in spans) * source.row_bytes
    lanes = lane_count(len(spans), span_bytes, batch)
    return Epoch(spans, lanes, batch, settings.seed, shuffle=settings.shuffle)


def warn_of_small_cache(executor: Executor, epoch: Epoch, source: Source) -> None:
    """Warn if the spans that mini-batches are taken from would be decoded anew at every step."""
    lanes = -(-epoch.n_lanes // executor.processes)
    span = max(stop - start for start, stop in epoch.spans) * source.row_bytes
    if source.X.in_memory or lanes * span <= executor.cache_bytes:
        return
    warnings.warn(
        f"mini-batches are taken from {lanes} chunks of {span / 2**20:,.0f} MiB at once on each "
        f"worker, which remembers {executor.cache_bytes / 2**20:,.0f} MiB of them, so that chunks "
        "are decoded many times an epoch: give the workers more memory, store smaller chunks, or "
        "use solver='lbfgs'",
        stacklevel=6,
    )


def metric_leaves(epoch: Epoch, n_features: int) -> list[Leaf]:
    """Return the rows that tell a metric: 8 for a feature, or 8,192, of those that come first.

    They are of the first span of each lane, which the first batches decode anyway; none beyond
    2,048 features, where a metric costs more than it saves.
    """
    if n_features > MOST_FEATURES:
        return []
    rows = max(_ROWS_A_FEATURE * n_features, _LEAST_ROWS)
    spans = epoch.first_spans()
    shares = [rows * _count([lane]) // _count(spans) + 1 for lane in spans]
    return [
        tuple(replace(piece, high=min(piece.high, share)) for piece in lane)
        for lane, share in zip(spans, shares, strict=True)
    ]


def _count(leaves: list[Leaf]) -> int:
    return sum(piece.rows for leaf in leaves for piece in leaf)


def gram_of(objective: Objective) -> Reduction[Array]:
    """Return the reduction that sums [x, 1] [x, 1]' of the kernel's x."""
    chunk = partial(partial_gram, shift=objective.coordinates.shift, dtype=objective.dtype)
    return Reduction("gram", chunk, add)


def metric_of(objective: Objective, gram: Array, leaves: list[Leaf]) -> Array | None:
    """Return about the Hessian of a class, for the sum over some rows; None if none counts."""
    weight = float(gram[-1, -1])
    return objective.metric(gram / weight, _count(leaves)) if weight > 0 else None
