"""Folds: which rows each model of a cross-validation does not learn from, and is judged by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from dsoftmax.errors import DataError
from dsoftmax.holdout import split_mix
from dsoftmax.reduction import Array, Chunk, Reduction

NEVER = -1  # the fold of a row that every model learns from
ALL = -2  # what a model leaves out that learns from every row


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
class Stratified:
    """Folds dealt out to the rows of each class in turn, in an order that chance decides.

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

    def part(self, start: int, stop: int) -> Stratified:
        """Return what is needed of it for some rows."""
        own = (self.starts >= start) & (self.starts < max(stop, start + 1))
        return replace(self, starts=self.starts[own], before=self.before[own])


@dataclass(frozen=True)
class Given:
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
        found = np.minimum(np.searchsorted(self.names, given), self.n_folds - 1)
        known = self.names[found] == given
        if chunk.left_out is not None:
            known &= chunk.left_out == 0
        return np.where(known, found, NEVER).astype(np.int32)

    def part(self, start: int, stop: int) -> Given:
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


def _in_turn(left: Array, right: Array) -> Array:
    return np.concatenate([left, right])


def parts_of(n_classes: int) -> Reduction[Array]:
    """Return the reduction that lists the parts that are read: start, and rows of each class."""
    return Reduction("count_labels", partial(_count_by_part, n_classes=n_classes), _in_turn)


def stratified(n_folds: int, seed: int, parts: Array) -> Stratified:
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
    return Stratified(n_folds, seed, parts[:, 0], before)


def of_fold(chunk: Chunk, fold: int) -> Chunk:
    """Return the rows of a chunk that are in a fold; without folds, all are in NEVER."""
    if chunk.fold is None:
        return chunk if fold == NEVER else chunk.rows(0, 0)
    return _only(chunk, chunk.fold == fold)


def in_turn(chunk: Chunk, folds: Array) -> Iterator[Chunk]:
    """Yield the rows of a chunk that are in each of some folds, and last the rest."""
    assert chunk.fold is not None
    for fold in folds:
        yield of_fold(chunk, fold)
    yield _only(chunk, ~np.isin(chunk.fold, folds))


def _only(chunk: Chunk, own: Array) -> Chunk:
    rows = np.flatnonzero(own)
    number = rows if chunk.picked is None else chunk.picked[rows]
    return chunk.take(rows)._replace(picked=number)


def learned_and_judged(chunk: Chunk, left_out: Array) -> tuple[Array, Array]:
    """Return the weights by which the rows of a chunk teach, and judge, each model of a stack.

    Parameters
    ----------
    chunk : Chunk
        With folds.
    left_out : array of shape (n_models,)
        The fold that each does not learn from.

    Returns
    -------
    two arrays of shape (n_models, rows)
    """
    assert chunk.fold is not None
    assert chunk.held_out is not None
    own = chunk.fold == left_out[:, None]
    weight = np.ones(len(chunk.X)) if chunk.sample_weight is None else chunk.sample_weight
    return np.where(own, 0.0, weight), np.where(own, chunk.held_out, 0.0)
