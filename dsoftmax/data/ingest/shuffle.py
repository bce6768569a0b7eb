"""Rows in a uniformly random order, in bounded memory: dealt to buckets on disk, then sorted."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from dsoftmax.data.ingest.row_stream import ArraySpec, Block, RowStream, block_rows
from dsoftmax.errors import DataError
from dsoftmax.typing import Array

_BUCKET_BYTES = 32 * 2**20
_KEYS_AT_ONCE = 1 << 20
_MOST_STRINGS = 1 << 20


def shuffled(rows: RowStream, seed: int, folder: Path) -> RowStream:
    """Return rows in a uniformly random order, a function of the seed and their number alone.

    The i-th row gets the i-th number of a Philox generator as its key of 64 bits, and rows are
    put in the order of their keys. Keys are independent and uniform, so that every order is
    equally likely, but for equal keys, which keep the order of the source (for a thousand million
    rows, there is one pair with a probability of 3%). The leading bits of a key are its bucket:
    given how many rows each bucket gets, which is multinomial, which rows these are and their
    order within it are uniform too, whatever the number of buckets (Rao 1961, Sandelius 1962).
    Hence the order depends neither on that number nor on how the source is cut into blocks.

    Parameters
    ----------
    rows : Rows
    seed : int
        Not negative.
    folder : Path
        Where to keep all rows decoded, with 8 bytes more a row, in a file that has no name: it is
        gone with this process, however that ends. (Labels that are strings take 8 bytes.)

    Returns
    -------
    Rows
        Reading them first reads all of `rows`, then holds one bucket of about 32 MiB at a time.

    Raises
    ------
    DataError
        If the seed is negative or the disk has not enough free space.

    References
    ----------
    Rao, C. R. (1961). Generation of random permutations of given number of elements using random
    sampling numbers. Sankhya A 23, 305-307.

    Sandelius, M. (1962). A simple randomization procedure. Journal of the Royal Statistical
    Society B 24, 472-481.
    """
    if seed < 0:
        raise DataError(f"got shuffle={seed}; expected a seed of 0 or more")
    _require_disk(folder, rows.count * _record(rows).itemsize)
    return replace(rows, blocks=partial(_read_shuffled, rows, seed, folder))


def _require_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"shuffling needs {needed / 1e9:.1f} GB of disk in {folder} while it lasts, and "
            f"{free / 1e9:.1f} GB are free: make room, or write to a larger disk (for a URL, set "
            "TMPDIR to a folder on one)"
        )


def _read_shuffled(rows: RowStream, seed: int, folder: Path) -> Iterator[Block]:
    record, strings = _record(rows), _Strings(rows.specs)
    with tempfile.TemporaryFile(dir=folder) as file:
        buckets = _Buckets(file, record, rows.count, seed)
        keys = np.random.Philox(seed)
        for block in rows:
            records = np.empty(len(block["X"]), record)
            records["key"] = keys.random_raw(len(records))
            for name, values in strings.encoded(block).items():
                records[name] = values
            buckets.deal(records)
        for records in buckets:
            yield strings.decoded({name: records[name] for name in rows.specs})


def _record(rows: RowStream) -> np.dtype[Any]:
    """Return the dtype of a row on disk, where strings are numbers."""
    fields: list[tuple[str, Any, tuple[int, ...]]] = [("key", np.uint64, ())]
    for name, (shape, dtype) in rows.specs.items():
        fields.append((name, np.int64 if dtype.kind in "UT" else dtype, shape[1:]))
    return np.dtype(fields)


class _Buckets:
    """Regions of one file, each just as large as the records that will be dealt to it."""

    def __init__(self, file: IO[bytes], record: np.dtype[Any], count: int, seed: int) -> None:
        self._file, self._record = file, record
        bits = max(1, (count * record.itemsize // _BUCKET_BYTES).bit_length())
        self._shift = np.uint64(64 - bits)
        self._sizes = np.zeros(1 << bits, np.int64)
        # The keys are drawn twice, here to size the buckets and later to fill them: a counter-based
        # generator gives the same ones again, and nothing has to be stored.
        keys = np.random.Philox(seed)
        for start in range(0, count, _KEYS_AT_ONCE):
            self._sizes += self._count(keys.random_raw(min(_KEYS_AT_ONCE, count - start)))
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._ends = self._starts.copy()  # of what has been dealt

    def _count(self, keys: Array) -> Array:
        return np.bincount((keys >> self._shift).astype(np.int64), minlength=len(self._sizes))

    def deal(self, records: Array) -> None:
        """Append each record to its bucket."""
        counts = self._count(records["key"])
        dealt = records[np.argsort(records["key"], kind="stable")]
        first = np.cumsum(counts) - counts
        for bucket in np.flatnonzero(counts):
            part = dealt[first[bucket] : first[bucket] + counts[bucket]]
            self._file.seek(self._ends[bucket] * self._record.itemsize)
            self._file.write(part.view(np.uint8).data)
        self._ends += counts

    def __iter__(self) -> Iterator[Array]:
        """Yield all records in the order of their keys, a block at a time."""
        rows = block_rows(self._record.itemsize)
        for start, size in zip(self._starts.tolist(), self._sizes.tolist(), strict=True):
            self._file.seek(start * self._record.itemsize)
            records = np.frombuffer(self._file.read(size * self._record.itemsize), self._record)
            order = np.argsort(records["key"], kind="stable")
            for low in range(0, size, rows):
                yield records[order[low : low + rows]]


class _Strings:
    """Numbers for strings, which have no fixed size on disk, in the order of their appearance."""

    def __init__(self, specs: Mapping[str, ArraySpec]) -> None:
        self._dtypes = {name: f.dtype for name, f in specs.items() if f.dtype.kind in "UT"}
        self._numbers: dict[str, int] = {}

    def encoded(self, block: Block) -> Block:
        """Return a block with numbers for strings.

        Raises
        ------
        DataError
            If there are more different strings than labels can have.
        """
        return block | {name: self._encode(name, block[name]) for name in self._dtypes}

    def decoded(self, block: Block) -> Block:
        """Return a block with strings for numbers."""
        known = list(self._numbers)
        texts = {name: np.array(known, dtype)[block[name]] for name, dtype in self._dtypes.items()}
        return block | texts

    def _encode(self, name: str, values: Array) -> Array:
        distinct, where = np.unique(values, return_inverse=True)
        numbers = [self._numbers.setdefault(s, len(self._numbers)) for s in distinct.tolist()]
        if len(self._numbers) > _MOST_STRINGS:
            raise DataError(
                f"{name} has more than {_MOST_STRINGS} different strings; expected labels, of "
                "which there are few: choose another column, or shuffle the rows beforehand"
            )
        return np.array(numbers)[where]
