"""What every kind of array that a source reads can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from dsoftmax.data.grid import Grid, Index
from dsoftmax.errors import DataError, DtypeError
from dsoftmax.typing import Array


class RowArray(Protocol):
    """An array whose first axis is rows.

    Attributes
    ----------
    name : what messages call it
    shape, dtype : as NumPy's
    boundaries : 0, ..., n_rows; the rows between two of them are decoded together
    cuts : the same for each axis of the samples, where there is more than one
    portable : whether another process can read it
    in_memory : whether reading it costs nothing
    may_wait : whether reading it may wait for storage, and can be done by any thread
    futures : blocks of it that a cluster holds, by key; a task has to depend on them
    identity : digest of what is known of it beyond shape, dtype and boundaries
    """

    @property
    def name(self) -> str:
        """Name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype as stored."""

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Row boundaries of the chunks."""

    @property
    def cuts(self) -> tuple[tuple[int, ...], ...]:
        """Boundaries of the chunks along the axes of the samples."""

    @property
    def portable(self) -> bool:
        """Whether it can travel."""

    @property
    def in_memory(self) -> bool:
        """Whether it is there already."""

    @property
    def may_wait(self) -> bool:
        """Whether to read ahead."""

    @property
    def futures(self) -> Mapping[Any, Any]:
        """Blocks on a cluster."""

    @property
    def identity(self) -> str:
        """Digest."""

    def read(self, start: int, stop: int) -> Array:
        """Return rows start to stop."""
        ...

    def culprit(self, start: int, stop: int) -> str | None:
        """Return the first chunk among these rows that cannot be read, if there are chunks."""
        ...

    def chunk_at(self, row: int, column: int = 0) -> str:
        """Return which chunk holds a value, for messages: nothing, if chunks have no names."""
        ...

    def absent(self) -> int:
        """Return how many chunks are not in the store, and are read as a fill value."""
        ...

    def require_visible(self) -> None:
        """Raise an error unless this process can open it."""

    def laid_out(self, grid: Grid) -> RowArray:
        """Return the array of rows, of an array whose leading axes are those of the grid."""
        ...

    def part(self, start: int, stop: int) -> RowArray:
        """Return what a task needs that reads no other rows than these, at their indices."""
        ...

    def with_blocks(self, blocks: Mapping[Any, Any]) -> RowArray:
        """Return the array that has the values of its `futures` at hand."""
        ...


class NoStoreMixin:
    """What holds for arrays whose chunks have no names in a store."""

    may_wait: ClassVar[bool] = False

    @staticmethod
    def culprit(*where: Any) -> str | None:
        """Return None."""
        return None

    @staticmethod
    def chunk_at(row: int, column: int = 0) -> str:
        """Return nothing."""
        return ""

    @staticmethod
    def absent() -> int:
        """Return 0."""
        return 0

    def require_visible(self) -> None:
        """Do nothing: it travels with the task."""


def preview(labels: Array, most: int = 10) -> str:
    """Return the first labels as text."""
    shown = ", ".join(repr(label.item()) for label in labels[:most])
    return shown + (", ..." if len(labels) > most else "")


class Boxed(Protocol):
    """An array of which any box can be read."""

    @property
    def name(self) -> str:
        """Name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape."""

    @property
    def may_wait(self) -> bool:
        """Whether reading it may wait for storage."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype as stored."""

    @property
    def portable(self) -> bool:
        """Whether it can travel."""

    @property
    def futures(self) -> Mapping[Any, Any]:
        """Blocks on a cluster."""

    @property
    def identity(self) -> str:
        """Digest."""

    def region(self, where: Index) -> Array:
        """Return a box of it."""
        ...

    def culprit(self, where: Index) -> str | None:
        """Return the first chunk in a box that cannot be read."""
        ...

    def chunk_of(self, index: tuple[int, ...]) -> str:
        """Return which chunk holds the value at an index, for messages."""
        ...

    def absent(self) -> int:
        """Return how many chunks are not in the store."""
        ...

    def require_visible(self) -> None:
        """Raise an error unless this process can open it."""


LABEL_KINDS = "biufSU"


def from_objects(role: str, array: Array) -> Array:
    """Return an object array as numbers (X, weights) or as labels of one type (y, cv)."""
    if role not in ("y", "cv"):
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError) as error:
            kind = DtypeError if isinstance(error, TypeError) else DataError
            raise kind(f"{role} holds objects that are not numbers: {error}") from error
    if all(isinstance(label, str) for label in array.flat):
        return array.astype(str)
    kinds = sorted({type(label).__name__ for label in array.flat})
    if len(kinds) > 1:
        raise DataError(f"{role} mixes labels of the types {', '.join(kinds)}; expected one type")
    labels = np.array(array.tolist())
    if labels.dtype.kind not in LABEL_KINDS:
        raise DataError(
            f"{role} holds objects of the type {kinds[0]}; expected integers, booleans or strings"
        )
    return labels
