from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from distributed import Client

from dsoftmax.diagnostics.scheduler_report import reporting
from dsoftmax.events import RowsDone
from tests.diagnostics.sample_events import ENDED_EVENT, PASS, STARTED, STEP


def heard(client: Client, key: str) -> dict[str, Any]:
    """Return what the scheduler knows of a run."""

    def look(dask_scheduler: Any) -> dict[str, Any]:
        run = dask_scheduler.plugins["dsoftmax"].runs.get(key)
        return {
            "steps": [r["step"] for r in run.records if r["event"] == "step"],
            "passes": [r["pass"] for r in run.records if r["event"] == "pass"],
            "state": run.state,
            "far": run.passes,
            "version": run.version,
        }

    return client.run_on_scheduler(look)


def test_every_step_arrives_in_order_before_the_end_is_told(cluster: Client) -> None:
    with reporting(cluster, "in-order") as (report,):
        report.on_event(STARTED)
        for step in range(1, 1001):
            report.on_event(replace(STEP, step=step))
        report.on_event(PASS)
        report.on_event(ENDED_EVENT)
    found = heard(cluster, "in-order")
    assert found["steps"] == list(range(1, 1001))
    assert (found["passes"], found["state"]) == ([1.0], "ended")


def test_of_how_far_a_pass_is_only_the_last_is_sent(cluster: Client) -> None:
    with reporting(cluster, "far") as (report,):
        report.on_event(STARTED)
        for rows in range(10_000):
            report.on_event(RowsDone(rows, 10_000))
        report.on_event(ENDED_EVENT)
    found = heard(cluster, "far")
    assert found["far"] == pytest.approx(0.9999)
    assert found["version"] < 1000


def test_an_error_is_told_by_its_kind_alone(cluster: Client) -> None:
    def fail() -> None:
        with reporting(cluster, "failed") as (report,):
            report.on_event(STARTED)
            raise KeyError("s3://user:password@bucket")

    with pytest.raises(KeyError):
        fail()
    assert heard(cluster, "failed")["state"] == "failed"


def test_a_client_that_is_closed_meanwhile_ends_the_report_alone(cluster: Client) -> None:
    address, security = cluster.scheduler.address, cluster.security
    with Client(address, security=security, set_as_default=False) as client:
        opened = reporting(client, "closed")
        (report,) = opened.__enter__()
        report.on_event(STARTED)
        client.close()
        for _ in range(3):
            report.on_event(PASS)
        report.on_event(ENDED_EVENT)
        opened.__exit__(None, None, None)
    assert cluster.status == "running"


def test_events_of_several_threads_are_all_sent(cluster: Client) -> None:
    with reporting(cluster, "threads") as (report,):
        report.on_event(STARTED)

        def tell(number: int) -> None:
            for step in range(number, 800, 4):
                report.on_event(replace(STEP, step=step))

        threads = [threading.Thread(target=tell, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report.on_event(ENDED_EVENT)
    assert sorted(heard(cluster, "threads")["steps"]) == list(range(800))


def test_in_this_process_nothing_is_reported() -> None:
    with reporting(None, "here") as reports:
        assert list(reports) == []
