"""How long decoding takes, told apart from waiting for the store.

Zarr fetches and decodes the chunks of one read side by side, so that the two overlap. Each
moment of a read is shared out among what is under way: with three chunks being fetched and
one being decoded, a quarter of it is decoding.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import zarr
from zarr.core.codec_pipeline import BatchedCodecPipeline, fill_value_or_default

from dsoftmax.storage.bounded_codecs import bounded, most_bytes


class _Seconds(threading.local):
    value = 0.0


_seconds = _Seconds()


def decoded_here() -> float:
    """Return for how many seconds this thread has been decoding, since it began."""
    return _seconds.value


@contextmanager
def decoding() -> Iterator[None]:
    """Count the time of the block as decoding, except while a `timed` array waits for its store."""
    timer, started = _ReadTimer(), time.perf_counter()
    token = _read_timer.set(timer)
    try:
        yield
    finally:
        _read_timer.reset(token)
        _seconds.value += time.perf_counter() - started - timer.fetched


class _ReadTimer:
    """Shares out the time of a read; it is used on Zarr's event loop only."""

    def __init__(self) -> None:
        self.fetched = 0.0
        self._fetching = self._decoding = 0
        self._since = 0.0

    def count(self, *, fetching: int = 0, decoding: int = 0) -> None:
        """Add to how many chunks are being fetched and decoded from now on."""
        now = time.perf_counter()
        if self._fetching:
            share = self._fetching / (self._fetching + self._decoding)
            self.fetched += share * (now - self._since)
        self._since = now
        self._fetching += fetching
        self._decoding += decoding


# Tasks and threads that Zarr starts for a read inherit the context of who reads.
_read_timer: ContextVar[_ReadTimer | None] = ContextVar("dsoftmax-read-timer", default=None)


class _Pipeline(BatchedCodecPipeline):
    """Zarr's own pipeline, which tells the timer of the read when it fetches and decodes.

    Where one chunk is all of a read, it returns the decoded chunk itself; Zarr would copy it.
    """

    # The public `zarr.storage.WrapperStore` can time fetches, too, but cannot spare that copy: a
    # read of one chunk of 4 MB then takes 3% (zstd) to 44% (raw) longer.

    async def read_batch(self, batch_info: Iterable[Any], out: Any, drop_axes: Any = ()) -> None:
        batch, timer = list(batch_info), _read_timer.get()
        if timer is not None:
            batch = [(_Getter(first, timer), *rest) for first, *rest in batch]
        if len(batch) > 1 or drop_axes or self.supports_partial_decode:
            await super().read_batch(batch, out, drop_axes)
            return
        ((getter, spec, rows, where, _),) = batch
        (chunk,) = await self.decode_batch([(await getter.get(spec.prototype), spec)])
        selected = None if chunk is None else chunk[rows]
        if selected is None:
            out[where] = fill_value_or_default(spec)
        elif (
            selected.shape == out.shape
            and selected.dtype == out.dtype
            and _most_of(selected, chunk)
        ):
            out._data = selected.as_ndarray_like()
        else:
            out[where] = selected

    async def decode_batch(self, chunk_bytes_and_specs: Iterable[Any]) -> Any:
        timer = _read_timer.get()
        if timer is None:
            return await super().decode_batch(chunk_bytes_and_specs)
        timer.count(decoding=1)
        try:
            return await super().decode_batch(chunk_bytes_and_specs)
        finally:
            timer.count(decoding=-1)


def _most_of(part: Any, whole: Any) -> bool:
    """Whether a view has most of the bytes that it keeps in memory."""
    return bool(2 * math.prod(part.shape) > math.prod(whole.shape))


class _Getter:
    """Fetches bytes of a chunk or shard, and tells the timer."""

    def __init__(self, inner: Any, timer: _ReadTimer) -> None:
        self._inner, self._timer = inner, timer

    async def get(self, prototype: Any, byte_range: Any = None) -> Any:
        self._timer.count(fetching=1)
        try:
            return await self._inner.get(prototype, byte_range)
        finally:
            self._timer.count(fetching=-1)


def timed(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """Return an array, changed so that `decoding` knows when it waits for its store.

    Its chunks are not decoded to more than they can hold. With another codec pipeline than Zarr's
    own, there is no such bound, and all time counts as decoding.
    """
    inner = array.async_array
    pipeline = inner.codec_pipeline
    if type(pipeline) is BatchedCodecPipeline:
        most = most_bytes(array)
        ours = _Pipeline(
            pipeline.array_array_codecs,
            bounded(pipeline.array_bytes_codec, most),
            tuple(bounded(codec, most) for codec in pipeline.bytes_bytes_codecs),
            pipeline.batch_size,
        )
        object.__setattr__(inner, "codec_pipeline", ours)  # Zarr has no setter for it
    return array
