"""Which worker each task is best sent to: where what it reads may be remembered."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from dsoftmax.runtime.executors import Home


def assigned(
    homes: Sequence[Home], workers: Mapping[str, int], before: Mapping[Hashable, str]
) -> dict[Hashable, str]:
    """Return a worker for each home, so that all have about the same number of rows a thread.

    A home stays with its worker, unless that has gone or others have come: then it gives up what
    is more than its share. The others go to whoever has least, the largest first.

    Parameters
    ----------
    homes : sequence of Home
    workers : how many threads each has
    before : what was returned the last time

    Examples
    --------
    >>> first = assigned([Home(0, 8), Home(8, 4), Home(12, 4)], {"a": 1, "b": 1}, {})
    >>> first
    {0: 'a', 8: 'b', 12: 'b'}
    >>> assigned([Home(0, 8), Home(8, 4), Home(12, 4)], {"b": 1, "c": 1}, first)
    {8: 'b', 12: 'b', 0: 'c'}
    """
    share = sum(home.rows for home in homes) / sum(workers.values())
    found: dict[Hashable, str] = {}
    rows: Counter[str] = Counter()
    largest_first = sorted(homes, key=lambda home: -home.rows)
    for home in largest_first:
        worker = before.get(home.name, "")
        if rows[worker] < share * workers.get(worker, 0):
            found[home.name] = worker
            rows[worker] += home.rows
    least = [(rows[worker] / threads, worker) for worker, threads in workers.items()]
    heapq.heapify(least)
    for home in largest_first:
        if home.name not in found:
            filled, worker = least[0]
            found[home.name] = worker
            heapq.heapreplace(least, (filled + home.rows / workers[worker], worker))
    return found
