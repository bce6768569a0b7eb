"""Chunks that were decoded for more rows than were asked for, remembered for the next ones.

Labels often come in chunks of many times the rows of X.
"""

from __future__ import annotations

from collections.abc import Callable

from dsoftmax.cache import ByteCache
from dsoftmax.reduction import Array

Key = tuple[str, str, tuple[int, ...]]  # name and token of an array, number of the chunk

_BYTES = 1 << 26


def whole_chunk(key: Key, read: Callable[[], Array]) -> Array:
    """Return a chunk, read unless it is remembered."""
    found = _held.get(key)
    if found is None:
        found = read()
        _held.put(key, found, found.nbytes, _BYTES)
    return found


def forget_chunks(*, but_newest: bool = False) -> None:
    """Remember none of them, or of each array the last one that was used.

    Who reads an array in order needs no more than that one.
    """
    newest = {key[:2]: key for key in _held} if but_newest else {}
    stays = set(newest.values())
    _held.drop_if(lambda key: key not in stays)


_held: ByteCache[Key, Array] = ByteCache()
