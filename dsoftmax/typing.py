"""Types that every room uses."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Self

import numpy.typing as npt

Array = npt.NDArray[Any]


class Additive:
    """A frozen dataclass whose `+` adds field by field: sums over rows, costs of reads.

    The left operand comes first in every field, since floating-point sums depend on their order.
    """

    def __add__(self, other: Self) -> Self:
        names = (field.name for field in fields(self))  # type: ignore[arg-type]
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in names))
