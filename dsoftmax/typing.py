"""Types that every room uses."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from typing import Any, Self, TypeVar

import numpy.typing as npt

Array = npt.NDArray[Any]
Value = TypeVar("Value")


def cached_property(function: Callable[[Any], Value]) -> functools.cached_property[Value]:
    """Return what functools does, without a lock: one thread may compute what another does too.

    Until Python 3.12 there is one for all instances, which a forked child would wait for if a
    thread of its parent had it.
    """
    found = functools.cached_property(function)
    found.lock = nullcontext()  # type: ignore[attr-defined]
    return found


class Additive:
    """A frozen dataclass whose `+` adds field by field: sums over rows, costs of reads.

    The left operand comes first in every field, since floating-point sums depend on their order.
    """

    def __add__(self, other: Self) -> Self:
        names = (field.name for field in fields(self))  # type: ignore[arg-type]
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in names))
