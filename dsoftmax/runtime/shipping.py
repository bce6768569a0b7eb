"""What all tasks of a pass need: sent with each of them, or once if it is large."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import dask
import numpy as np

LARGE = 1 << 20


def array_bytes(value: Any) -> int:
    """Return the bytes of the arrays that a value, or what is bound to a function, takes along.

    Examples
    --------
    >>> array_bytes(partial(sum, start=np.zeros(3)))
    24
    """
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, partial):
        value = (value.func, *value.args, *value.keywords.values())
    elif is_dataclass(value) and not isinstance(value, type):
        value = tuple(getattr(value, field.name) for field in fields(value))
    elif isinstance(value, dict):
        value = tuple(value.values())
    return sum(map(array_bytes, value)) if isinstance(value, tuple | list) else 0


def shipped(client: Any, value: Any, key: str) -> Any:
    """Return a value as tasks are to take it: itself, or a future if its arrays are large.

    Workers have a future's value from each other, once each; if all that have it die, the scheduler
    makes it anew, which it could not do of data that were scattered.
    """
    if array_bytes(value) < LARGE:
        return value
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
        return client.submit(_itself, value, key=key, pure=False)


def _itself(value: Any) -> Any:
    return value
