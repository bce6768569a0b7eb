"""Tasks wait here until their workers have room, and nobody is idle while they do."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import dask
import pytest
from distributed import Client, Event, LocalCluster

from dsoftmax.runtime.base import Affinity, TaskKilledError
from dsoftmax.runtime.cluster import ClusterExecutor
from dsoftmax.runtime.local_cluster import local_cluster
from dsoftmax.runtime.task_window import Backlog, SubmittedTasks, _fetched, _held_by
from dsoftmax.runtime.transfer import TaskCall

SECONDS = 60  # a wait that is never over in a test that passes


def calls(workers: str) -> list[TaskCall]:
    return [TaskCall(position, (), worker) for position, worker in enumerate(workers)]


def test_each_worker_gets_its_own_calls_in_their_order() -> None:
    backlog = Backlog(calls("abba"))
    assert [call.position for call in backlog.next_for("a", 1)] == [0]
    assert [call.position for call in backlog.next_for("b", 5)] == [1, 2]
    assert [call.position for call in backlog.next_for("a", 5)] == [3]
    assert backlog.next_for("a", 1) == backlog.next_for("c", 1) == backlog.next_for("b", -1) == []


def test_the_calls_that_wait_are_counted() -> None:
    backlog = Backlog(calls("abba"))
    assert [backlog.n_waiting(name) for name in "abc"] == [2, 2, 0]
    backlog.next_for("a", 5)
    assert [backlog.n_waiting(name) for name in "abc"] == [0, 2, 0]


def test_the_idle_take_the_last_call_of_whoever_has_most_left() -> None:
    backlog = Backlog(calls("abbbba"))
    taken = [backlog.steal_for("c") for _ in range(6)]
    assert [call.position for call in taken[:2] if call] == [4, 3]
    assert {call.position for call in taken[2:] if call} == {0, 1, 2, 5}
    assert {call.worker for call in taken if call} == {"c"}
    assert backlog.steal_for("c") is None


def hold_up(begun: str, ended: str) -> None:
    Event(begun).set()
    Event(ended).wait(SECONDS)


@pytest.mark.parametrize(("n_tasks", "held"), [(12, 2), (80, 8)])
def test_what_a_worker_that_is_held_up_has_left_is_done_by_others(
    cluster: Client, n_tasks: int, held: int
) -> None:
    begun, ended = Event(client=cluster), Event(client=cluster)
    executor = ClusterExecutor(cluster)
    slow = min(executor._workers)
    busy = cluster.submit(hold_up, begun.name, ended.name, workers=slow)
    try:
        assert begun.wait(SECONDS)
        affinities = [Affinity(number, 10) for number in range(n_tasks)]
        tasks = [(number, 2) for number in range(n_tasks)]
        results = executor.run("power", pow, tasks, affinities=affinities)
        found = list(islice(results, n_tasks - held))
        assert not busy.done()
        ended.set()
        assert sorted([*found, *results]) == [number**2 for number in range(n_tasks)]
    finally:
        ended.set()
    busy.result(timeout=SECONDS)


def test_a_round_is_one_message_that_names_a_worker_for_each_task(
    cluster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[list[str]] = []
    send = cluster.map

    def noted(*args: Any, key: list[str], **keywords: Any) -> Any:
        named = dask.get_annotations()["workers"]
        messages.append([name for one in key for name in named(one)])
        return send(*args, key=key, **keywords)

    monkeypatch.setattr(cluster, "map", noted)
    executor = ClusterExecutor(cluster)
    affinities, tasks = [Affinity(0, 1), Affinity(1, 1)], [(2, 2), (3, 2)]
    assert sorted(executor.run("power", pow, tasks, affinities=affinities)) == [4, 9]
    assert [sorted(names) for names in messages] == [sorted(executor._workers)]


@pytest.fixture
def direct(cluster: Client) -> Iterator[Client]:
    """A client that may ask workers, and is connected to all of them."""
    with Client(
        cluster.scheduler.address,
        security=cluster.security,
        set_as_default=False,
        direct_to_workers=True,
    ) as client:
        for worker in client.scheduler_info()["workers"]:
            client.submit(pow, 1, 1, workers=worker, pure=False).result(timeout=SECONDS)
            assert client.rpc.available[worker]
        yield client


def ended(client: Client, worker: str) -> Any:
    future = client.submit(pow, 3, 2, workers=worker, pure=False)
    future.exception(timeout=SECONDS)
    return future


def test_a_client_that_may_asks_the_worker_and_not_the_scheduler(
    direct: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = direct.scheduler_info()["workers"]
    future = ended(direct, one)
    monkeypatch.setattr(type(future), "result", None)
    assert _fetched(direct, future, one, SECONDS) == 9


def test_a_result_that_another_worker_has_is_found(direct: Client) -> None:
    one, other = direct.scheduler_info()["workers"]
    assert _fetched(direct, ended(direct, one), other, SECONDS) == 9


def test_a_worker_that_is_gone_is_not_waited_for(direct: Client) -> None:
    one, _ = direct.scheduler_info()["workers"]
    gone = "tls://127.0.0.1:1"  # nobody is ever there, and Dask tries for half a minute
    assert _held_by(direct, gone, ended(direct, one), SECONDS) == []


def test_the_error_of_a_task_is_raised(direct: Client) -> None:
    one, _ = direct.scheduler_info()["workers"]
    future = direct.submit(pow, 0, -1, workers=one, pure=False)
    future.exception(timeout=SECONDS)
    with pytest.raises(ZeroDivisionError):
        _fetched(direct, future, one, SECONDS)


@pytest.mark.parametrize("direct", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_result_that_dies_with_the_only_worker_is_computed_once_more(direct: bool) -> None:
    with (
        local_cluster(1) as workers,
        Client(workers, set_as_default=False, direct_to_workers=direct) as client,
    ):
        ((address, process),) = client.run(os.getpid).items()
        assert client.submit(pow, 1, 1).result(timeout=SECONDS) == 1  # connected to it, if direct
        window = SubmittedTasks(client, pow, "power")
        window.submit([TaskCall(0, (3, 2), address)])
        (future,) = window._calls
        future.exception(timeout=SECONDS)  # it has ended
        os.kill(process, signal.SIGKILL)
        while address in client.scheduler_info()["workers"]:
            time.sleep(0.05)
        assert result_of(window) == 9


def result_of(window: SubmittedTasks) -> Any:
    for _ in range(SECONDS):
        with suppress(queue.Empty):
            return window.next_result(1)
    raise TimeoutError


class SlowToPickle:
    def __reduce__(self) -> tuple[type, tuple[()]]:
        time.sleep(3)
        return int, ()


def slow_to_fetch_or_deadly(position: int) -> Any:
    if position == 0:
        return SlowToPickle()
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
    return None


@pytest.mark.slow
def test_a_task_that_was_given_up_is_told_though_no_worker_is_left() -> None:
    settings = {"distributed.scheduler.allowed-failures": 0, "dsoftmax.worker-timeout": "1 hour"}
    with (
        dask.config.set(settings),
        LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "distributed.cli.dask_worker",
                client.scheduler.address,
                "--nthreads",
                "2",
                "--no-nanny",
                "--no-dashboard",
            ],
            stderr=subprocess.DEVNULL,
        ),
    ):
        client.wait_for_workers(1, timeout=SECONDS)
        with ClusterExecutor(client) as executor, pytest.raises(TaskKilledError) as told:
            list(executor.run("task", slow_to_fetch_or_deadly, [(0,), (1,)]))
        assert told.value.positions == [1]


def deadly(position: int) -> None:
    time.sleep(0.5)
    if position in (3, 4):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(("threads", "killers"), [(1, [[3]]), (2, [[2, 3], [3, 4], [4, 5]])])
def test_only_what_a_worker_ran_when_it_died_is_said_to_have_killed_it(
    threads: int, killers: list[list[int]]
) -> None:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=1, threads_per_worker=threads, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        with ClusterExecutor(client) as executor, pytest.raises(TaskKilledError) as told:
            list(executor.run("task", deadly, [(position,) for position in range(12)]))
        assert told.value.positions in killers
