"""Which rows a mini-batch holds: a pure function of the data's spans, the seed and the step.

An epoch shuffles the order of the spans and deals them to a fixed number of *lanes*; a
lane is a stream of rows, those of its spans one after the other, each span shuffled in
itself. A batch takes rows from all lanes, from each in proportion to what it holds, so
that lanes end together, every row is used exactly once, and all batches but the last have
`batch_size` rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dsoftmax.typing import Array, cached_property

_LANE_BYTES = 1 << 26  # decoded spans that all lanes together may always keep in memory
_MAX_LANES = 32


@dataclass(frozen=True)
class RowSlice:
    """Rows of one span: all of them, or positions `low` to `high` of its shuffled order.

    Attributes
    ----------
    start, stop : the span, as rows of the source
    low, high : positions within the span, after the shuffle
    shuffle : (seed, epoch) of the shuffle, or None for the order of the source
    """

    start: int
    stop: int
    low: int
    high: int
    shuffle: tuple[int, int] | None = None

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.high - self.low


Leaf = tuple[RowSlice, ...]


def whole_span(span: tuple[int, int]) -> RowSlice:
    """Return all rows of a span, in their order."""
    start, stop = span
    return RowSlice(start, stop, 0, stop - start)


def lane_count(n_spans: int, span_bytes: int, batch_size: int) -> int:
    """Return the number of lanes: at most 32, and at most one a row of a batch.

    One span of each lane stays in memory. Together they take at most 64 MiB or a 32nd of the
    data, whichever is more: larger data are read by a larger cluster.
    """
    lane_bytes = max(n_spans * span_bytes // 32, _LANE_BYTES)
    return max(1, min(n_spans, _MAX_LANES, lane_bytes // max(span_bytes, 1), batch_size))


def auto_batch_size(n_rows: int) -> int:
    """Return the default batch size: a 128th of the rows, from 64 to 65,536.

    Examples
    --------
    >>> auto_batch_size(1_797), auto_batch_size(1_200_000)
    (64, 9375)
    """
    return min(max(n_rows // 128, 64), 65_536)


def permutation(row_slice: RowSlice) -> Array:
    """Return the shuffled order of the rows of a slice's span."""
    rows = row_slice.stop - row_slice.start
    if row_slice.shuffle is None:
        return np.arange(rows)
    seed, epoch = row_slice.shuffle
    # The 1 keeps this stream of random numbers apart from that of the order of the spans (0).
    return np.random.default_rng((seed, epoch, 1, row_slice.start)).permutation(rows)


def dealt(total: int, sizes: Array) -> list[int]:
    """Return how many of the first `total` rows come from each lane.

    Halves of the lanes share in proportion to their rows, rounded down on the left, and so
    on within each half. The counts add up to `total`, each grows with it, and none
    exceeds its size.
    """
    if len(sizes) == 1:
        return [total]
    middle = (len(sizes) + 1) // 2
    left = total * int(sizes[:middle].sum()) // int(sizes.sum())
    return dealt(left, sizes[:middle]) + dealt(total - left, sizes[middle:])


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch.

    Attributes
    ----------
    spans : row ranges of the source
    n_lanes : how many streams the spans are dealt to
    batch_size : rows of a batch
    seed, number : what the shuffle depends on
    shuffle : if False, spans and rows are taken in the order of the source
    """

    spans: tuple[tuple[int, int], ...]
    n_lanes: int
    batch_size: int
    seed: int
    number: int = 0
    shuffle: bool = True

    def next(self) -> Epoch:
        """Return the epoch after this one."""
        return self.at(self.number + 1)

    def at(self, number: int) -> Epoch:
        """Return the epoch of a number, with the same rows."""
        return replace(self, number=number)

    @property
    def n_rows(self) -> int:
        """Rows of the epoch."""
        return int(self._sizes.sum())

    @property
    def n_steps(self) -> int:
        """Batches of the epoch."""
        return -(-self.n_rows // self.batch_size)

    @cached_property
    def lanes(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the spans of each lane, in the order of use."""
        order = np.arange(len(self.spans))
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.number, 0)).permutation(len(order))
        return tuple(tuple(order[lane :: self.n_lanes].tolist()) for lane in range(self.n_lanes))

    def batch(self, step: int) -> list[Leaf]:
        """Return the rows that each lane gives to a step, from 0 to n_steps - 1."""
        first = min(step * self.batch_size, self.n_rows)
        last = min(first + self.batch_size, self.n_rows)
        low, high = dealt(first, self._sizes), dealt(last, self._sizes)
        return [self._slices(lane, low[lane], high[lane]) for lane in range(self.n_lanes)]

    def first_spans(self) -> list[Leaf]:
        """Return the first span of each lane: the rows that the first batches decode."""
        return [self._slices(lane, 0, int(ends[0])) for lane, ends in enumerate(self._ends)]

    @cached_property
    def _sizes(self) -> Array:
        return np.array([ends[-1] for ends in self._ends])

    @cached_property
    def _ends(self) -> list[Array]:
        """Position in its lane at which each span of the lane ends."""
        lengths = np.array([stop - start for start, stop in self.spans])
        return [np.cumsum(lengths[list(lane)]) for lane in self.lanes]

    def _slices(self, lane: int, low: int, high: int) -> Leaf:
        """Return positions low to high of a lane's stream."""
        ends, row_slices = self._ends[lane], []
        first = int(np.searchsorted(ends, low, side="right"))
        for position in range(first, len(ends)):
            start, stop = self.spans[self.lanes[lane][position]]
            begins = int(ends[position]) - (stop - start)
            if begins >= high:
                break
            within = max(low - begins, 0), min(high - begins, stop - start)
            shuffle = (self.seed, self.number) if self.shuffle else None
            if low < high:
                row_slices.append(RowSlice(start, stop, *within, shuffle))
        return tuple(row_slices)
