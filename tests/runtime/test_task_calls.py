"""What all tasks of a pass need is sent to workers once, if it is large."""

from __future__ import annotations

import os
import signal
from functools import partial

import numpy as np
import pytest
from distributed import Client

from dsoftmax.objective.importance_sample import LeverageSampler, LeverageScore
from dsoftmax.objective.objective import partial_gradient, partial_gradient_and_rows
from dsoftmax.objective.reduction import Chunk, Reduction, combine
from dsoftmax.runtime.base import Affinity
from dsoftmax.runtime.cluster import ClusterExecutor
from dsoftmax.runtime.local_cluster import local_cluster
from dsoftmax.runtime.transfer import array_bytes, shipped

LARGE = np.arange(1 << 18, dtype="f8")  # 2 MiB


def total(start: int, values: np.ndarray) -> float:
    return float(values[start:].sum())


def test_the_arrays_of_a_pass_are_found_wherever_they_are_bound() -> None:
    points = np.zeros((1, 5, 2), "f4")
    leverage = LeverageScore(np.zeros((2, 5, 2), "f4"), np.zeros((1, 5, 8), "f4"), None)
    rule = LeverageSampler(leverage, 1.0, 0)
    own = leverage.ends.nbytes + leverage.sketch.nbytes + leverage.shares.nbytes
    both = partial(partial_gradient_and_rows, points=points, shift=None, rule=rule)
    alone = Reduction("gradient", partial(partial_gradient, points=points, shift=None), max)
    assert array_bytes(Reduction("rows", both, max)) == points.nbytes + own
    assert array_bytes(combine(alone, Reduction("rows", rule, max))) == points.nbytes + own
    assert array_bytes(Reduction("nothing", Chunk, max)) == 0


@pytest.mark.parametrize(("size", "goes_once"), [(8, False), (LARGE.size, True)])
def test_what_is_large_goes_to_a_worker_once(cluster: Client, size: int, goes_once: bool) -> None:
    found = shipped(cluster, partial(total, values=LARGE[:size]), "shared-test")
    assert hasattr(found, "key") == goes_once


def test_tasks_take_what_they_share_as_their_last_argument(cluster: Client) -> None:
    affinities, tasks = (
        [Affinity(number, 10) for number in range(9)],
        [(number,) for number in range(9)],
    )
    found = ClusterExecutor(cluster).run(
        "total", total, tasks, shared=(LARGE,), affinities=affinities
    )
    assert sorted(found) == sorted(total(number, LARGE) for number in range(9))


@pytest.mark.slow
def test_what_was_sent_survives_the_workers_that_had_it() -> None:
    with local_cluster(1) as workers, Client(workers, set_as_default=False) as client:
        executor = ClusterExecutor(client)
        results = executor.run("total", total, [(n,) for n in range(40)], shared=(LARGE,))
        found = [next(results)]
        for process in client.run(os.getpid).values():
            os.kill(process, signal.SIGKILL)
        assert sorted([*found, *results]) == sorted(total(n, LARGE) for n in range(40))
