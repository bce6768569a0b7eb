"""What is summed over the rows, as data: a chunk of rows and a `Reduction` of chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from dsoftmax.errors import DataError

Array = npt.NDArray[Any]
Sums = TypeVar("Sums")


class Chunk(NamedTuple):
    """Rows of a source, decoded.

    Attributes
    ----------
    X : ndarray of shape (rows, n_features), in its stored dtype
    y : ndarray of shape (rows,), integer codes of the classes (or labels as stored), or None
    sample_weight : ndarray of shape (rows,) or (rows, n_models), or None for weights of one
    start : index within the source of the first row read
    picked : ndarray of shape (rows,), which of the rows read these are, or None for all
    """

    X: Array
    y: Array | None
    sample_weight: Array | None
    start: int
    picked: Array | None = None

    @property
    def codes(self) -> Array:
        """The class codes, of a chunk that is known to carry them."""
        assert self.y is not None, "this source has no y"
        return self.y

    def take(self, picked: Array) -> Chunk:
        """Return the given rows, in the given order."""
        y, weight = self.y, self.sample_weight
        return Chunk(
            self.X[picked],
            None if y is None else y[picked],
            None if weight is None else weight[picked],
            self.start,
            picked,
        )

    def rows(self, low: int, high: int) -> Chunk:
        """Return the rows from low to high, as views."""
        if low == 0 and high == len(self.X):
            return self
        y, weight, picked = self.y, self.sample_weight, self.picked
        return Chunk(
            self.X[low:high],
            None if y is None else y[low:high],
            None if weight is None else weight[low:high],
            self.start if picked is not None else self.start + low,
            None if picked is None else picked[low:high],
        )

    def require_finite(self, dtype: np.dtype[np.floating]) -> None:
        """Raise DataError at the first value of X that `dtype` cannot hold as a finite number."""
        with np.errstate(over="ignore"):
            bad = np.argwhere(~np.isfinite(self.X.astype(dtype)))
        if len(bad) == 0:
            return
        row, column = (int(i) for i in bad[0])
        value = self.X[row, column]
        absolute = self.start + (row if self.picked is None else int(self.picked[row]))
        reason = f"too large for {dtype}; open the data with dtype='float64'"
        if not np.isfinite(value):
            reason = "not finite; clean the data or leave those rows out"
        raise DataError(
            f"X has the value {value} at row {absolute}, column {column}, which is {reason} "
            f"({len(bad)} such values among {len(self.X)} rows)"
        )


@dataclass(frozen=True)
class Reduction(Generic[Sums]):
    """A sum over chunks: `chunk` maps rows to sums, `combine` adds two of them.

    Sums travel, never means, so that any grouping of chunks gives the same total.
    `name` is what the Dask dashboard shows.
    """

    name: str
    chunk: Callable[[Chunk], Sums]
    combine: Callable[[Sums, Sums], Sums]
