"""Rows that a fit does not learn from, and is judged by."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dsoftmax.reduction import Array

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
        held: Array = (numbers >> np.uint64(11)) * 2.0**-53 < self.fraction
        return held

    def of(self, labels: Array, start: int) -> Array:
        """Return which of the rows from start on, with these labels, are held out."""
        held = self.rows(start, start + len(labels))
        return held & ~np.isin(labels, self.spared) if len(self.spared) else held


def _mixed(z: Array) -> Array:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = z ^ (z >> np.uint64(31))
    return mixed
