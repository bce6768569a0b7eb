"""Scikit-learn's handwritten digits, enlarged to any size: what `dsoftmax demo` learns from.

A row is a randomly chosen original, shifted by up to a quarter of a pixel up or down and
left or right, plus noise. (A whole pixel is an eighth of the image: no linear model can tell
digits apart that move so far.) Each block is a function of the seed and its index alone, so
that blocks are built in parallel and the same seed gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from dsoftmax.errors import DataError
from dsoftmax.runtime.base import Executor
from dsoftmax.storage.zarr_nodes import create_array, new_group
from dsoftmax.typing import Array

BLOCK_ROWS = 1 << 16
_SIDE = 8
BLOCK_BYTES = BLOCK_ROWS * _SIDE**2
_SHIFTS = tuple(product((-0.25, 0.0, 0.25), repeat=2))
_GAIN = 15  # pixels of 0 to 16 become 0 to 240, and 255 with the noise: uint8 just holds them
_NOISE = 16
_TASK_BLOCKS = 4
_MARK = "dsoftmax-demo"


@dataclass(frozen=True)
class Digits:
    """Images and their labels.

    Attributes
    ----------
    X : uint8 array of shape (n_samples, 64), pixels from 0 to 16
    y : uint8 array of shape (n_samples,)
    """

    X: Array
    y: Array


def load_split(seed: int) -> tuple[Digits, Digits]:
    """Return four fifths of the original digits for training, and a fifth for testing.

    Parameters
    ----------
    seed : int
        Seed of the split, which is stratified by digit.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    X, y = load_digits(return_X_y=True)
    parts = train_test_split(
        X.astype(np.uint8), y.astype(np.uint8), test_size=0.2, stratify=y, random_state=seed
    )
    X_train, X_test, y_train, y_test = parts
    return Digits(X_train, y_train), Digits(X_test, y_test)


def scaled(X: Array) -> Array:
    """Return original pixels in the units of the enlarged data, plus the mean of the noise."""
    return (_GAIN * X + (_NOISE - 1) / 2).astype(np.float32)


def count_blocks(size: int) -> int:
    """Return how many blocks hold at least `size` decoded bytes.

    Examples
    --------
    >>> count_blocks(4 * 2**20), count_blocks(4 * 2**20 + 1)
    (1, 2)
    """
    return max(1, -(-size // BLOCK_BYTES))


def enlarge(
    originals: Digits,
    store: Path,
    n_blocks: int,
    seed: int,
    executor: Executor,
    *,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda blocks: None,
) -> None:
    """Write enlarged digits to the Zarr group `store`, as arrays X and y.

    Parameters
    ----------
    originals : Digits
    store : Path
        Appears once it is complete.
    n_blocks : int
        Chunks of X, each of 65,536 rows.
    seed : int
    executor : Executor
        Builds the blocks; their bytes do not depend on it.
    overwrite : bool
        Replace a Zarr store that is there.
    progress : callable
        Called with the number of blocks done since the last call.
    """
    with new_group(store, overwrite) as group:
        X = _create(group, "X", n_blocks, (_SIDE**2,))
        y = _create(group, "y", n_blocks, ())
        tasks = [(X, y, originals, seed, blocks) for blocks in _block_ranges(n_blocks)]
        for done in executor.run("enlarge", _write_blocks, tasks):
            progress(done)
        group.attrs[_MARK] = True


def stored_bytes(store: Path) -> int:
    """Return how many bytes a store has on disk."""
    return sum(file.stat().st_size for file in store.rglob("*") if file.is_file())


def mark(store: Path) -> None:
    """Mark a Zarr group as the demo's, so that the next demo may replace it."""
    zarr.open_group(store, mode="r+").attrs[_MARK] = True


def require_replaceable(store: Path) -> None:
    """Refuse to replace anything but a store of an earlier demo.

    Raises
    ------
    DataError
        If something else is there.
    """
    if os.path.lexists(store) and not _is_marked(store):
        raise DataError(f"{store} is not of an earlier demo: move it, or choose another folder")


def _is_marked(store: Path) -> bool:
    try:
        return _MARK in zarr.open_group(store, mode="r").attrs
    except (OSError, ValueError):  # no Zarr group
        return False


def _create(group: zarr.Group, name: str, n_blocks: int, row: tuple[int, ...]) -> zarr.Array[Any]:
    return create_array(group, name, (n_blocks * BLOCK_ROWS, *row), "uint8", (BLOCK_ROWS, *row))


def _block_ranges(n_blocks: int) -> Iterator[range]:
    for first in range(0, n_blocks, _TASK_BLOCKS):
        yield range(first, min(first + _TASK_BLOCKS, n_blocks))


def _write_blocks(
    X: zarr.Array[Any], y: zarr.Array[Any], originals: Digits, seed: int, blocks: range
) -> int:
    images = shifted(originals.X)
    for block in blocks:
        rows = slice(block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS)
        rng = np.random.default_rng((seed, block))
        shift = rng.integers(len(images), size=BLOCK_ROWS)
        chosen = rng.integers(len(originals.y), size=BLOCK_ROWS)
        noise = rng.integers(_NOISE, size=(BLOCK_ROWS, _SIDE**2), dtype=np.uint8)
        X[rows] = images[shift, chosen] + noise
        y[rows] = originals.y[chosen]
    return len(blocks)


def shifted(X: Array) -> Array:
    """Return the images in all shifts and in the units of the store, without noise.

    Parameters
    ----------
    X : array of shape (n_samples, 64)

    Returns
    -------
    uint8 array of shape (9, n_samples, 64)
        Zeros move in from outside.
    """
    images = _GAIN * X.reshape(-1, _SIDE, _SIDE).astype(np.float32)
    moved = [_moved(_moved(images, down, axis=1), right, axis=2) for down, right in _SHIFTS]
    return np.rint(moved).astype(np.uint8).reshape(len(_SHIFTS), *X.shape)


def _moved(images: Array, by: float, axis: int) -> Array:
    """Return the images moved by a fraction of a pixel, by linear interpolation."""
    width = [(0, 0)] * images.ndim
    width[axis] = (1, 1)
    padded = np.pad(images, width)
    neighbour = 0 if by > 0 else 2
    from_neighbour = padded.take(range(neighbour, neighbour + _SIDE), axis)
    return (1 - abs(by)) * images + abs(by) * from_neighbour
