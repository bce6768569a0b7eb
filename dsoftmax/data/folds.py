"""Folds of a cross-validation: the rows that a model does not learn from, and is scored on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np

from dsoftmax.errors import DataError
from dsoftmax.objective.reduction import NEVER, Chunk, Reduction
from dsoftmax.typing import Array


class Folds(Protocol):
    """Says which fold a row is in, from 0 to n_folds - 1, or NEVER."""

    @property
    def n_folds(self) -> int:
        """How many there are."""

    def of(self, chunk: Chunk, given: Array | None) -> Array:
        """Return the folds of a chunk's rows, for what the user gave of them, if anything."""
        ...

    def part(self, start: int, stop: int) -> Folds:
        """Return what a task needs that reads rows start to stop."""
        ...


@dataclass(frozen=True)
class StratifiedFolds:
    """Random folds in which every class has the same share, within one row.

    Of every `n_folds` rows of a class that follow each other, one goes to each fold, by a
    permutation of their own (permuted blocks: Zelen, The randomization and stratification of
    patients to clinical trials, 1974). So the folds of a class differ by a row at most, and the
    fold of a row is a function of the seed, its class, and the rows of its class before it.

    Attributes
    ----------
    n_folds, seed : int
    starts : (n_parts,), first rows of the parts that are read, each as a whole
    before : (n_parts, n_classes), how many rows of each class come before them
    """

    n_folds: int
    seed: int
    starts: Array
    before: Array

    def of(self, chunk: Chunk, given: Array | None = None) -> Array:
        """Return the folds of the rows of a part; NEVER for those that are left out."""
        (index,) = np.flatnonzero(self.starts == chunk.start)
        used = np.arange(len(chunk.codes))[chunk.used]
        codes = chunk.codes[used]
        rank = self.before[index][codes] + _occurrence(codes)
        folds = np.full(len(chunk.codes), NEVER, np.int32)
        folds[used] = self._dealt(codes, rank)
        return folds

    def _dealt(self, codes: Array, rank: Array) -> Array:
        """Return the fold of the rank-th row of a class: the order of its number in its block."""
        n_classes = self.before.shape[1]
        seeds = split_mix(self.seed, np.arange(1, n_classes + 1, dtype=np.uint64))[codes]
        index = (rank + 1).astype(np.uint64)
        first = index - (rank % self.n_folds).astype(np.uint64)
        number, folds = split_mix(seeds, index), np.zeros(len(codes), np.int32)
        for other in range(self.n_folds):
            folds += split_mix(seeds, first + np.uint64(other)) < number
        return folds

    def part(self, start: int, stop: int) -> StratifiedFolds:
        """Return what is needed of it for some rows."""
        within = (self.starts >= start) & (self.starts < max(stop, start + 1))
        return replace(self, starts=self.starts[within], before=self.before[within])


@dataclass(frozen=True)
class UserFolds:
    """Folds that the user has named.

    Attributes
    ----------
    names : (n_folds,), sorted; a negative number is no fold
    """

    names: Array

    @property
    def n_folds(self) -> int:
        """How many there are."""
        return len(self.names)

    def of(self, chunk: Chunk, given: Array | None) -> Array:
        """Return the folds by number; NEVER for rows that are left out, or in no fold."""
        assert given is not None, "the source brings them along"
        index = np.minimum(np.searchsorted(self.names, given), self.n_folds - 1)
        named = self.names[index] == given
        if chunk.left_out is not None:
            named &= chunk.left_out == 0
        return np.where(named, index, NEVER).astype(np.int32)

    def part(self, start: int, stop: int) -> UserFolds:
        """Return itself."""
        return self


def _occurrence(codes: Array) -> Array:
    """Return how often the code of each row has occurred before it.

    Examples
    --------
    >>> _occurrence(np.array([3, 1, 3, 3]))
    array([0, 0, 1, 2])
    """
    order = np.argsort(codes, kind="stable")
    _, first, counts = np.unique(codes[order], return_index=True, return_counts=True)
    result = np.empty(len(codes), np.int64)
    result[order] = np.arange(len(codes)) - np.repeat(first, counts)
    return result


def _count_by_part(chunk: Chunk, n_classes: int) -> Array:
    counts = np.bincount(chunk.codes[chunk.used], minlength=n_classes)
    return np.concatenate([[chunk.start], counts])[None]


def _concatenated(left: Array, right: Array) -> Array:
    return np.concatenate([left, right])


def parts_of(n_classes: int) -> Reduction[Array]:
    """Return the reduction that lists, for each part that is read, its start and class counts."""
    return Reduction("count_labels", partial(_count_by_part, n_classes=n_classes), _concatenated)


def stratified(n_folds: int, seed: int, parts: Array) -> StratifiedFolds:
    """Return the folds of rows that are read in some parts.

    Raises
    ------
    DataError
        If no class has two rows to tell apart.
    """
    counts = parts[:, 1:]
    if counts.sum(axis=0).max() < n_folds:
        raise DataError(
            f"cv is {n_folds} folds, and no class has more than {counts.sum(axis=0).max()} rows; "
            "set it to at most that many"
        )
    before = np.cumsum(counts, axis=0) - counts
    return StratifiedFolds(n_folds, seed, parts[:, 0], before)


_GOLDEN = 0x9E3779B97F4A7C15


def split_mix(seed: int | Array, index: Array) -> Array:
    """Return the numbers of some indices, all of 64 bits, of generators that seeds start.

    They are SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators,
    2014), of which any number can be had without those before it.

    Parameters
    ----------
    seed : int, or array of uint64, one for each index
    index : array of uint64, from 1 on
    """
    seeds = np.array([seed % 2**64], np.uint64) if isinstance(seed, int) else seed
    return _mixed(_mixed(seeds) + index * np.uint64(_GOLDEN))


@dataclass(frozen=True)
class HoldOut:
    """Rows chosen by their index and a seed alone, so that any part of the data knows its own.

    A row is held out if a random number of its own is below `fraction`: the row-th number of
    `split_mix`.

    Attributes
    ----------
    fraction : of the rows, on average; between 0 and 1
    seed : int
    spared : labels of which no row is held out
    """

    fraction: float
    seed: int
    spared: Array = field(default_factory=lambda: np.empty(0))

    def rows(self, start: int, stop: int) -> Array:
        """Return which of the rows from start to stop may be held out, as booleans."""
        numbers = split_mix(self.seed, np.arange(start + 1, stop + 1, dtype=np.uint64))
        chosen: Array = (numbers >> np.uint64(11)) * 2.0**-53 < self.fraction
        return chosen

    def of(self, labels: Array, start: int) -> Array:
        """Return which of the rows from start on, with these labels, are held out."""
        chosen = self.rows(start, start + len(labels))
        return chosen & ~np.isin(labels, self.spared) if len(self.spared) else chosen


def _mixed(z: Array) -> Array:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = z ^ (z >> np.uint64(31))
    return mixed
