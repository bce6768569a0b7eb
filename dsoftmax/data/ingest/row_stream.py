"""The stream of rows and labels that every kind of source gives to `ingest`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from dsoftmax.errors import DataError, quoted, shortened
from dsoftmax.typing import Array

Block = dict[str, Array]  # the same rows of X and, where there are labels, of y
Names = str | Sequence[str] | None
_BLOCK_BYTES = 4 * 2**20
_MOST_ROW_BYTES = 2**30
_SHAPES = {"X": "(n_samples, n_features)", "y": "(n_samples,)"}
_NDIM = {"X": 2, "y": 1}
_VALUES = {"X": "real numbers", "y": "real numbers or strings"}
_DTYPE_KINDS = {"X": "biuf", "y": "biufUT"}
_USUAL_NAMES = (("X", "y"), ("X_train", "y_train"))


class Shaped(Protocol):
    """An array as far as its metadata go; `str` of it says where it is."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype as stored."""


class ArraySpec(NamedTuple):
    """Shape and dtype of an array that will be written.

    Attributes
    ----------
    shape : with the rows first
    dtype : in native byte order
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in memory."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


@dataclass(frozen=True)
class RowStream:
    """A source of rows, which can be read from the first to the last any number of times.

    Attributes
    ----------
    name : the source, for messages
    specs : of X and, where there are labels, of y
    blocks : starts a new read; the source chooses how many rows a block has
    feature_names : of the columns of X, where they have names
    attributes : by array, what says what its numbers stand for
    """

    name: str
    specs: Mapping[str, ArraySpec]
    blocks: Callable[[], Iterator[Block]]
    feature_names: tuple[str, ...] | None = None
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self.specs["X"].shape[0]

    def __iter__(self) -> Iterator[Block]:
        read = 0
        for block in self.blocks():
            read += len(block["X"])
            yield block
        if read != self.count:
            raise DataError(
                f"{self.name} had {self.count} rows when it was opened, and {read} when it was "
                "read: leave it alone while it is ingested"
            )


class Rechunker:
    """Cuts a stream of arrays into pieces of `rows` rows; only the last may be shorter."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._filled = 0
        self._pending: Array | None = None

    def push(self, array: Array) -> Iterator[Array]:
        """Take in an array, and yield the pieces that it completes."""
        while len(array):
            if self._pending is None:
                # A copy: a view would keep the entire array in memory.
                self._pending = np.empty((self._rows, *array.shape[1:]), array.dtype)
            rows = array[: self._rows - self._filled]
            self._pending[self._filled : self._filled + len(rows)] = rows
            self._filled += len(rows)
            array = array[len(rows) :]
            if self._filled == self._rows:
                yield from self.rest()

    def rest(self) -> Iterator[Array]:
        """Yield what is left of the stream, if anything is."""
        if self._pending is not None:
            rows, self._pending = self._pending[: self._filled], None
            self._filled = 0
            yield rows


def rechunked(arrays: Iterable[Array], rows: int) -> Iterator[Array]:
    """Yield the rows of a stream of arrays in pieces of `rows` rows."""
    rechunker = Rechunker(rows)
    for array in arrays:
        yield from rechunker.push(array)
    yield from rechunker.rest()


def zip_blocks(streams: Mapping[str, Iterator[Array]]) -> Iterator[Block]:
    """Yield as blocks what streams of equal pieces yield; all are read to their very end."""
    for pieces in zip(*streams.values(), strict=True):
        yield dict(zip(streams, pieces, strict=True))


def block_rows(row_bytes: int) -> int:
    """Return how many rows make a block of about 4 MiB."""
    return max(1, _BLOCK_BYTES // max(row_bytes, 1))


def find_pair(names: Sequence[str], x: Names, y: str | None) -> tuple[str, str] | None:
    """Return the names of X and y among those of the arrays that a source holds."""
    wanted = _USUAL_NAMES if x is None and y is None else ((x, y),)
    for features, labels in wanted:
        if isinstance(features, str) and features in names and labels in names:
            return features, str(labels)
    return None


def no_pair_error(source: object, contents: Iterable[str], x: Names, y: str | None) -> DataError:
    """Return the error of a source whose arrays are not those that were asked for."""
    held = shortened(", ".join(contents) or "no array")
    return DataError(
        f"{source} holds {held}; got x={quoted(x)}, y={quoted(y)}, expected two "
        "of these: name both x and y"
    )


def checked_specs(arrays: Mapping[str, Shaped]) -> dict[str, ArraySpec]:
    """Return the specs of X and y, after checking from the metadata that they can be ingested.

    Raises
    ------
    DataError
        If a shape or dtype does not fit.
    """
    for name, array in arrays.items():
        for problem in _problems(name, array):
            raise DataError(f"{name} ({array}) {problem}")
    if len({array.shape[0] for array in arrays.values()}) > 1:
        got = " and ".join(f"{name} ({array})" for name, array in arrays.items())
        raise DataError(f"got {got}; expected one label for each row: pair them up again")
    return {name: ArraySpec(array.shape, native(array.dtype)) for name, array in arrays.items()}


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a dtype in native byte order; strings of variable length have none."""
    return dtype if dtype.kind == "T" else dtype.newbyteorder("=")


def _problems(name: str, array: Shaped) -> Iterator[str]:
    dtype, shape = array.dtype, array.shape
    if dtype.kind not in _DTYPE_KINDS[name] or (dtype.kind == "f" and dtype.itemsize > 8):
        yield f"has a dtype that cannot be used; expected {_VALUES[name]}: convert it with astype"
    if len(shape) != _NDIM[name]:
        yield f"has {len(shape)} dimensions; expected {_SHAPES[name]}: reshape it to that"
    if math.prod(shape[1:]) * dtype.itemsize > _MOST_ROW_BYTES:
        yield f"has rows of more than {_MOST_ROW_BYTES:,} bytes, of which chunks cannot be made"
    if 0 in shape or dtype.itemsize == 0:
        yield "is empty; expected at least one row and one column"
