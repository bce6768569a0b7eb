"""What travels between client and workers: calls, large arguments, and results to be merged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, NamedTuple

import dask
import numpy as np

from dsoftmax.runtime.spans import Span


class MergePlan(NamedTuple):
    """How workers make one result of several.

    Attributes
    ----------
    function : takes the results of consecutive tasks, a list
    groups : ranges of the tasks whose results become one
    """

    function: Callable[[Any], Any]
    groups: Sequence[Span]


class TaskCall(NamedTuple):
    """A task, its position, and the worker that it is meant for, or None.

    If it merges the results of others, these are the `parts`, and its task is their futures.
    """

    position: int
    task: tuple[Any, ...]
    worker: str | None
    parts: tuple[TaskCall, ...] = ()

    @property
    def workers(self) -> set[str]:
        """The workers that it, or a result that it needs, is meant for."""
        return {call.worker for call in (self, *self.parts) if call.worker is not None}


class PendingMerges:
    """Results that stay on their workers, by the group with which they wait to be merged."""

    def __init__(self, merge_plan: MergePlan | None) -> None:
        self._merge_plan = merge_plan
        groups = [] if merge_plan is None else [range(*group) for group in merge_plan.groups]
        # The positions that each group waits for. A task that is alone in its group is in none.
        self._awaited = {group: set(group) for group in groups if len(group) > 1}
        self._group_of = {position: group for group in self._awaited for position in group}
        self._results: defaultdict[range, dict[int, tuple[TaskCall, Any]]] = defaultdict(dict)

    @property
    def function(self) -> Callable[[Any], Any]:
        """What merges results."""
        assert self._merge_plan is not None, "without a plan nothing is kept"
        return self._merge_plan.function

    def has(self, call: TaskCall) -> bool:
        """Whether the result of a call is to be merged with others."""
        return call.position in self._group_of

    def leave_out(self, call: TaskCall) -> None:
        """Do not wait for a result that has been fetched by itself."""
        if not call.parts and self.has(call):
            self._awaited[self._group_of[call.position]].discard(call.position)

    def keep(self, call: TaskCall, future: Any) -> TaskCall | None:
        """Keep a result; return the call that merges its group, if it was the last one."""
        group = self._group_of[call.position]
        results = self._results[group]
        results[call.position] = call, future
        if len(results) < len(self._awaited[group]):
            return None
        parts, futures = zip(*(results[position] for position in sorted(results)), strict=True)
        results.clear()
        return TaskCall(group[0], (list(futures),), None, parts)


LARGE = 1 << 20  # bytes from which values are sent to a worker once, and results are merged


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
