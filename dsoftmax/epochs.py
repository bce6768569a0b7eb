"""Which mini-batches a fit takes, and whether the workers can keep what they come from."""

from __future__ import annotations

import warnings

from dsoftmax.runtime.executors import Executor
from dsoftmax.runtime.spans import Span
from dsoftmax.sampling import Epoch, auto_batch_size, lane_count
from dsoftmax.settings import Settings
from dsoftmax.sources.base import Source


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
    room = executor.cache_room(source, span, batch=True)
    if source.X.in_memory or lanes * span <= room:
        return
    warnings.warn(
        f"mini-batches are taken from {lanes} chunks of {span / 2**20:,.0f} MiB at once on each "
        f"worker, which remembers {room / 2**20:,.0f} MiB of them, so that chunks "
        "are decoded many times an epoch: give the workers more memory, store smaller chunks, or "
        "use solver='lbfgs'",
        stacklevel=6,
    )
