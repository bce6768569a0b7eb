"""Whether a value is of the type that a field of a class is declared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

_NUMBERS: dict[Any, tuple[type, ...]] = {
    bool: (bool, np.bool_),
    int: (int, np.integer),
    float: (float, int, np.floating, np.integer),
    complex: (),
}


@lru_cache(maxsize=256)
def declared_types(kind: type) -> Mapping[str, Any]:
    """Return the declared types of the fields of a dataclass or NamedTuple, by name."""
    return get_type_hints(kind)


def is_of_type(value: Any, declared: Any) -> bool:
    """Return whether a value is of a declared type, all the way down; an int is a float, too.

    What is no class, such as a TypeVar, allows anything.
    """
    origin, parts = get_origin(declared), get_args(declared)
    if origin in (Union, UnionType):
        return any(is_of_type(value, part) for part in parts)
    if origin is tuple:
        return _is_tuple_of(value, parts)
    if origin is dict:
        return isinstance(value, dict) and all(
            is_of_type(key, parts[0]) and is_of_type(item, parts[1]) for key, item in value.items()
        )
    kind = origin or declared
    if kind in _NUMBERS:
        # Python takes a bool for an int; and an int may be too large for a float.
        if isinstance(value, bool) or (kind is float and isinstance(value, int)):
            return kind is bool if isinstance(value, bool) else value.bit_length() < 64
        return isinstance(value, _NUMBERS[kind])
    return kind is Any or not isinstance(kind, type) or isinstance(value, kind)


def _is_tuple_of(value: Any, parts: Sequence[Any]) -> bool:
    if type(value) is not tuple:
        return False
    if len(parts) == 2 and parts[1] is Ellipsis:
        return all(is_of_type(item, parts[0]) for item in value)
    return len(value) == len(parts) and all(map(is_of_type, value, parts))
