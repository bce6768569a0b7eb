"""Large sums become few on the workers, before they come to the client."""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st

from dsoftmax import DataError, MemoryBoundError, open_data
from dsoftmax.data.source import Source
from dsoftmax.events import RowsDone
from dsoftmax.objective.first_read import moments_of
from dsoftmax.objective.importance_sample import StratifiedSampler, rows_of
from dsoftmax.objective.reduction import combine
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.connect import local_workers
from dsoftmax.runtime.cost import Cost, PartialSum, TaskResult
from dsoftmax.runtime.local_cluster import local_cluster
from dsoftmax.runtime.reduce import Pass, full_pass
from dsoftmax.runtime.select import executor_for
from dsoftmax.runtime.spans import Tree, cut_groups, cut_spans, cut_tasks
from dsoftmax.runtime.task_window import NOT_YET, SubmittedTasks
from dsoftmax.runtime.threads import ThreadExecutor
from dsoftmax.runtime.transfer import MergePlan, PendingMerges, TaskCall
from tests.callbacks import Once, kill_a_worker
from tests.faulty import Deadly, Faulty
from tests.fits import bits, fitted, model_of

SECONDS = 60  # a wait that is never over in a test that passes
Store = Callable[..., str]
Arrays = tuple[np.ndarray, np.ndarray]
Reduced = tuple[bytes, Cost, list[tuple[TaskResult, PartialSum]]]


@given(st.integers(1, 3000), st.integers(2, 300), st.sampled_from([2, 4, 8]))
def test_groups_are_consecutive_tasks_of_one_subtree(
    n_leaves: int, slots: int, fan_in: int
) -> None:
    runs = cut_tasks(n_leaves, 1 << 24, slots)
    groups = cut_groups(runs, fan_in)
    assert [task for group in groups for task in range(*group)] == list(range(len(runs)))
    for first, last in groups:
        assert last - first <= fan_in
        leaves = fan_in << (runs[first][1] - runs[first][0] - 1).bit_length()
        assert runs[first][0] // leaves == (runs[last - 1][1] - 1) // leaves


def test_the_sums_of_equal_tasks_become_one() -> None:
    runs = [(first, first + 4) for first in range(0, 256, 4)]
    for first, last in cut_groups(runs, 8):
        tree = Tree(256, int.__add__)
        for leaf in range(runs[first][0], runs[last - 1][1]):
            tree.add(0, leaf, 1)
        assert list(tree.nodes.values()) == [32]


@pytest.fixture
def merge_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge the sums of two tasks, however small they and the cluster are."""
    monkeypatch.setattr("dsoftmax.runtime.reduce.FAN_IN", 2)
    monkeypatch.setattr("dsoftmax.runtime.cluster.LARGE", 0)


@pytest.fixture(autouse=True)
def many_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a task of every chunk."""
    monkeypatch.setattr("dsoftmax.runtime.spans._SPAN_BYTES", 1)
    monkeypatch.setattr(
        "dsoftmax.runtime.reduce.cut_tasks", lambda n, *_, **__: [(i, i + 1) for i in range(n)]
    )


@pytest.fixture
def source(path: str) -> Source:
    return open_data(f"{path}/X", f"{path}/y").with_classes(np.arange(10))


def reduced(executor: Executor, source: Source, begun: PartialSum | None = None) -> Reduced:
    """Return the total of a pass, what it cost, and what was told of it meanwhile."""
    leaves = full_pass(cut_spans(source.chunks, source.row_bytes))
    seen: list[tuple[TaskResult, PartialSum]] = []
    total, cost = Pass(executor, source, leaves).reduce(
        moments_of(10, source.dtype),
        resume_from=begun,
        on_task_done=lambda *told: seen.append(told),
    )
    return total.class_offset.tobytes(), cost, seen


@pytest.mark.usefixtures("merge_plan", "cluster")
def test_merged_sums_have_the_bits_of_this_process_and_count_every_row(source: Source) -> None:
    with ThreadExecutor() as here:
        expected, *_ = reduced(here, source)
    with executor_for(source) as executor:
        rounds = [reduced(executor, source) for _ in range(2)]
    for bits_, cost, seen in rounds:
        assert bits_ == expected
        assert (
            cost.rows == sum(task_result.cost.rows for task_result, _ in seen) == source.n_samples
        )
        assert set().union(*(task_result.numerics for task_result, _ in seen)) == set(
            executor._workers
        )
    first, second = (len(seen) for *_, seen in rounds)
    assert second == 10 < first < 19, "of 19 tasks; that sums are large is known from the first on"


@pytest.mark.usefixtures("merge_plan", "cluster")
def test_rows_which_become_no_fewer_are_not_merged(source: Source) -> None:
    leaves = full_pass(cut_spans(source.chunks, source.row_bytes))
    rows = rows_of(StratifiedSampler(np.full(10, 0.5), 0))
    both = combine(moments_of(10, source.dtype), rows)
    with executor_for(source) as executor:
        seen: list[TaskResult] = []
        for reduction in (rows, both, both):
            Pass(executor, source, leaves).reduce(
                reduction, on_task_done=lambda task_result, _: seen.append(task_result)
            )
    assert len(seen) == 3 * 19


@pytest.mark.usefixtures("merge_plan", "cluster")
def test_a_pass_goes_on_from_any_part_of_it(source: Source) -> None:
    with executor_for(source) as executor:
        expected, _, seen = reduced(executor, source)
        for _, begun in seen:
            got, cost, _ = reduced(executor, source, begun)
            assert got == expected
            assert cost.rows == source.n_samples


@pytest.mark.usefixtures("cluster")
def test_small_sums_are_not_merged(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsoftmax.runtime.reduce.FAN_IN", 2)
    with executor_for(source) as executor:
        assert [len(reduced(executor, source)[2]) for _ in range(2)] == [19, 19]


@pytest.mark.usefixtures("merge_plan")
@pytest.mark.parametrize(
    "solver", ["lbfgs", *(pytest.param(n, marks=pytest.mark.slow) for n in ("newton", "sgd"))]
)
def test_a_fit_whose_sums_are_merged_has_the_bits_of_one_in_this_process(
    path: str, solver: str, request: pytest.FixtureRequest
) -> None:
    expected = fitted(path, solver)
    request.getfixturevalue("cluster")
    assert bits(fitted(path, solver)) == bits(expected)


@pytest.mark.usefixtures("merge_plan", "cluster")
def test_chunks_that_tasks_of_a_group_cannot_read_are_all_left_out(
    path: str, tmp_path: Path
) -> None:
    script = {row: ["bad"] for row in (97, 194, 970)}
    policy = {"on_bad_chunk": "skip", "max_bad_chunks": 5}
    source = open_data(f"{path}/X", f"{path}/y", **policy)  # type: ignore[arg-type]
    source = replace(source, X=Faulty(source.X, script, tmp_path))
    with pytest.warns(match="chunks"):
        model = model_of("lbfgs", tol=0.5).fit(source)
    assert [fault["start"] for fault in model.quarantined_] == [97, 194, 970]


@pytest.mark.usefixtures("merge_plan", "cluster")
def test_a_value_that_a_task_of_a_group_refuses_is_named(digits: Arrays, store: Store) -> None:
    X, y = digits[0].astype("f4"), digits[1]
    X[1000, 7] = np.nan
    path = store(rows=97, X=X, y=y)
    with pytest.raises(DataError, match="row 1000, column 7"):
        fitted(path, "lbfgs")


@pytest.mark.slow
@pytest.mark.usefixtures("merge_plan")
def test_a_worker_that_dies_with_what_was_to_be_merged_changes_no_bit(path: str) -> None:
    expected = fitted(path, "lbfgs")
    with local_workers(2) as client:
        kill = Once(RowsDone, lambda: kill_a_worker(client))
        model = fitted(path, "lbfgs", callbacks=[kill])
    assert kill.done
    assert bits(model) == bits(expected)


@pytest.mark.slow
@pytest.mark.usefixtures("merge_plan")
def test_a_task_of_a_group_that_kills_its_workers_is_the_one_whose_rows_are_named(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "1")

    source = open_data(f"{path}/X", f"{path}/y")
    source = replace(source, X=Deadly(source.X, {}, tmp_path, row=500))
    with local_workers(2), pytest.raises(MemoryBoundError, match=r"rows 485 to 581 of .*X have"):
        model_of("lbfgs").fit(source)


def ended(window: SubmittedTasks) -> None:
    """Wait until all that was sent has ended."""
    for future in window._calls:
        future.exception(timeout=SECONDS)


@pytest.mark.parametrize("kept", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 3))])
def test_what_dies_with_the_only_worker_before_it_is_fetched_is_computed_once_more(
    kept: int,
) -> None:
    with local_cluster(1) as workers, Client(workers, set_as_default=False) as client:
        ((address, process),) = client.run(os.getpid).items()
        window = SubmittedTasks(client, pow, "power", MergePlan(sum, [(0, 4)]))
        window.merges = True
        window.submit([TaskCall(number, (number, 2), address) for number in range(4)])
        ended(window)
        assert [window.next_result(SECONDS) for _ in range(kept)] == [NOT_YET] * kept
        ended(window)
        os.kill(process, signal.SIGKILL)
        while address in client.scheduler_info()["workers"]:
            time.sleep(0.05)
        found, deadline = NOT_YET, time.monotonic() + SECONDS
        while found is NOT_YET and time.monotonic() < deadline:
            window.unpin_from_all_but(client.scheduler_info()["workers"])  # as the executor does
            with suppress(queue.Empty):
                found = window.next_result(1)
        assert found == 0 + 1 + 4 + 9
        assert len(window) == 0


def test_results_that_were_fetched_before_are_not_waited_for() -> None:
    groups = PendingMerges(MergePlan(sum, [(0, 3), (3, 4)]))
    first, second, third, alone = (TaskCall(number, (), None) for number in range(4))
    groups.leave_out(first)
    assert groups.keep(third, "third") is None
    whole = groups.keep(second, "second")
    assert whole == TaskCall(0, (["second", "third"],), None, (second, third))
    assert not groups.has(alone)
