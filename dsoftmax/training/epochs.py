"""Which mini-batches a fit takes, and whether workers can cache the chunks they come from."""

from __future__ import annotations

import warnings

from dsoftmax.data.batches import Epoch, auto_batch_size, lane_count
from dsoftmax.data.source import Source
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.memory import cache_room_for
from dsoftmax.runtime.spans import Span
from dsoftmax.training.params import FitParams


def first_epoch(source: Source, params: FitParams, spans: tuple[Span, ...], n_rows: int) -> Epoch:
    """Return the mini-batches of the first epoch over spans of so many rows."""
    batch = min(params.batch_size or auto_batch_size(n_rows), n_rows)
    span_bytes = max(stop - start for start, stop in spans) * source.row_bytes
    lanes = lane_count(len(spans), span_bytes, batch)
    return Epoch(spans, lanes, batch, params.seed, shuffle=params.shuffle)


def warn_of_small_cache(executor: Executor, epoch: Epoch, source: Source) -> None:
    """Warn if the spans that mini-batches are taken from are decoded anew at every step."""
    lanes = -(-epoch.n_lanes // executor.location.processes)
    rows = max(stop - start for start, stop in epoch.spans)
    span = rows * source.row_bytes
    room = cache_room_for(source, executor.location, rows, batch=True)
    if source.X.in_memory or lanes * span <= room:
        return
    warnings.warn(
        f"mini-batches are taken from {lanes} chunks of {span / 2**20:,.0f} MiB at once on each "
        f"worker, which remembers {room / 2**20:,.0f} MiB of them, so that chunks "
        "are decoded many times an epoch: give the workers more memory, store smaller chunks, or "
        "use solver='lbfgs'",
        stacklevel=6,
    )
