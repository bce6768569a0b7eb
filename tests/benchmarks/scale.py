"""What scheduling costs: for 10,000 chunks, and with up to 64 workers that are simulated."""

from __future__ import annotations

import operator
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from distributed import Client

from dsoftmax.runtime.base import Affinity
from dsoftmax.runtime.cluster import ClusterExecutor
from dsoftmax.runtime.connect import local_workers
from dsoftmax.runtime.cost import Cost, TaskResult
from dsoftmax.runtime.reduce import FAN_IN
from dsoftmax.runtime.spans import Tree, cut_groups, cut_spans, cut_tasks
from dsoftmax.runtime.transfer import MergePlan
from dsoftmax.runtime.worker import merged
from tests.benchmarks.bare import PROCESSES
from tests.benchmarks.measure import ROUNDS, Result, timed
from tests.benchmarks.throughput import POINTS, gradient

CHUNKS, CHUNK_BYTES = 10_000, 1_000_000
SLEEP, TASKS_A_WORKER = 0.5, 8
WORKERS = (1, 4, 16, 64)
SLOTS = 16


@dataclass(frozen=True)
class Nothing:
    """What a task returns that computes nothing: sums of the size of a gradient."""

    sums: Any


def nothing(start: int, reduction: Any) -> Nothing:
    return Nothing(POINTS.astype("f8"))


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def scheduling(bytes_a_second: float) -> Result:
    """Measure the tasks of a pass that compute nothing, against a pass at a measured speed."""
    boundaries = tuple(range(CHUNKS + 1))
    spans = cut_spans(boundaries, CHUNK_BYTES)
    largest = max(stop - start for start, stop in spans) * CHUNK_BYTES
    runs = cut_tasks(len(spans), largest, PROCESSES)
    tasks = [(start, gradient()) for start, _ in runs]
    homes = [Affinity(start, stop - start) for start, stop in runs]
    with local_workers(PROCESSES) as client, ClusterExecutor(client) as executor:
        taken = [
            timed(lambda: list(executor.run("nothing", nothing, tasks, affinities=homes)))
            for _ in range(ROUNDS + 1)
        ][1:]
    whole = CHUNKS * CHUNK_BYTES / bytes_a_second
    ratios = sorted(seconds / whole for seconds in taken)
    note = f"{len(tasks)} tasks, {1000 * statistics.median(taken) / len(tasks):.1f} ms each"
    return Result(
        "scheduling / pass of 10,000 chunks of 1 MB",
        statistics.median(ratios),
        ratios[0],
        ratios[-1],
        0.02,
        at_most=True,
        note=note,
    )


def efficiency(workers: int) -> Result:
    """Measure tasks that sleep, on threads that are a worker each as far as Dask can tell."""
    processes = min(workers, 4)
    ratios = []
    with (
        Client(
            n_workers=processes,
            threads_per_worker=workers // processes,
            dashboard_address="127.0.0.1:0",
        ) as client,
        ClusterExecutor(client) as executor,
    ):
        calls = [(SLEEP,)] * (workers * TASKS_A_WORKER)
        homes = [Affinity(number, 1) for number in range(len(calls))]
        for _ in range(4):
            taken = timed(lambda: list(executor.run("sleep", sleep, calls, affinities=homes)))
            ratios.append(SLEEP * TASKS_A_WORKER / taken)
    del ratios[0]  # until workers have loaded their libraries
    ratios.sort()
    goal = 0.9 if workers == WORKERS[-1] else None
    name = f"efficiency, {workers} simulated workers"
    return Result(name, ratios[1], ratios[0], ratios[-1], goal, note=f"tasks of {SLEEP} s")


def large_sums(number: int) -> TaskResult:
    """Return, after a while, what a task has of 1,000 classes x 2,048 features: 16 MB."""
    time.sleep(4 * SLEEP)
    return TaskResult({(0, number): np.ones((1, 2049, 1000))}, Cost(), (), {})


def merge_plan() -> Result:
    """Measure what large sums cost the client, merged by workers against fetched one by one."""
    tasks = [(number,) for number in range(4 * SLOTS)]
    runs = [(number, number + 1) for number in range(len(tasks))]
    homes = [Affinity(number, 1) for number in range(len(tasks))]
    function = partial(merged, combine=operator.add, n_leaves=len(tasks))
    with (
        Client(n_workers=4, threads_per_worker=4, dashboard_address="127.0.0.1:0") as client,
        ClusterExecutor(client) as executor,
    ):

        def client_seconds(how: MergePlan | None) -> float:
            tree, before = Tree(len(tasks), operator.add), time.process_time()
            for outcome in executor.run(
                "sums", large_sums, tasks, affinities=homes, merge_plan=how
            ):
                for (level, index), sums in outcome.nodes.items():
                    tree.add(level, index, sums)
            assert (tree.total == len(tasks)).all()
            return time.process_time() - before

        ways = (MergePlan(function, cut_groups(runs, FAN_IN)), None)
        found = [[client_seconds(how) for how in ways] for _ in range(ROUNDS + 1)][1:]
    note = "client {:.1f} s for 1 GB of sums, one by one {:.1f} s".format(*found[ROUNDS // 2])
    ratios = sorted(together / each for together, each in found)
    middle = ratios[ROUNDS // 2]
    name = f"large sums, merged / not, {SLOTS} workers"
    return Result(name, middle, ratios[0], ratios[-1], note=note)


def measure(bytes_a_second: float) -> Iterator[Result]:
    yield scheduling(bytes_a_second)
    yield from map(efficiency, WORKERS)
    yield merge_plan()
