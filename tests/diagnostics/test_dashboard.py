"""The plugin and the page on real schedulers, read as a browser's session."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bokeh.client import pull_session
from distributed import Client, LocalCluster
from distributed.security import Security
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import DataError, SoftmaxRegression
from dsoftmax.events import PassEnded
from tests.callbacks import Once
from tests.diagnostics.pages import board, fetched, fitted

OLDER = "import sys; sys.modules['dsoftmax.diagnostics'] = None"

Store = Callable[..., str]
Arrays = tuple[np.ndarray, np.ndarray]

pytestmark = pytest.mark.usefixtures("small_spans")


@pytest.fixture
def path(digits: Arrays, store: Store) -> str:
    return store(600, X=digits[0], y=digits[1])


def columns(client: Client, name: str) -> dict[str, Any]:
    """Return what a browser that opens the page now is given to draw."""
    session = pull_session(url=f"{board(client)}/dsoftmax")
    try:
        return dict(session.document.get_model_by_name(f"{name}-data").data)
    finally:
        session.close()


def text(client: Client, name: str) -> str:
    session = pull_session(url=f"{board(client)}/dsoftmax")
    try:
        return str(session.document.get_model_by_name(name).text)
    finally:
        session.close()


def passes_of(model: SoftmaxRegression, key: str) -> list[float]:
    return [record[key] for record in model.history_ if record["kind"] == "pass"]


@pytest.mark.parametrize("solver", ["lbfgs", pytest.param("sgd", marks=pytest.mark.slow)])
def test_who_opens_the_page_late_sees_every_pass_of_the_history(
    cluster: Client, path: str, solver: str
) -> None:
    model = SoftmaxRegression(solver=solver, tol=0, max_iter=6, random_state=0)
    with pytest.warns(ConvergenceWarning, match="budget"):
        model.fit(f"{path}/X", f"{path}/y")
    shown = columns(cluster, "passes")
    for key in ("pass", "loss", "gradient_norm", "accuracy"):
        assert list(shown[key]) == passes_of(model, key)
    assert model.stop_reason_[:9] in text(cluster, "status")


@pytest.mark.slow
def test_the_page_is_in_the_navigation_of_every_page(cluster: Client, path: str) -> None:
    fitted(path)
    fitted(path)
    for page in ("status", "dsoftmax"):
        assert fetched(f"{board(cluster)}/{page}").count('<a href="dsoftmax">') == 1


@pytest.mark.slow
def test_runs_are_told_apart_by_the_names_of_their_tasks(cluster: Client, path: str) -> None:
    fitted(path)
    fitted(path)
    session = pull_session(url=f"{board(cluster)}/dsoftmax")
    choices = session.document.get_model_by_name("choice").options
    session.close()
    keys = [key for key, _ in choices[1:]]
    assert len(set(keys)) == len(keys) >= 2
    assert all(title.startswith(key[:8]) for key, title in choices[1:])


def test_tasks_are_called_by_what_they_do(cluster: Client, path: str) -> None:
    fitted(path)

    def names(dask_scheduler: Any) -> list[str]:
        return list(dask_scheduler.task_prefixes)

    assert {"count_labels", "moments", "partial_gradient"} <= set(cluster.run_on_scheduler(names))


@pytest.mark.slow
def test_a_fit_that_fails_is_shown_as_failed(cluster: Client, digits: Arrays, store: Store) -> None:
    X = digits[0].astype("f4")
    X[1500, 3] = np.nan
    path = store(200, X=X, y=digits[1])
    with pytest.raises(DataError):
        fitted(path)
    assert "failed" in text(cluster, "status")
    assert "DataError" in text(cluster, "status")
    assert path not in text(cluster, "status")


@pytest.mark.slow
def test_a_page_that_fails_harms_neither_the_fit_nor_the_scheduler(
    cluster: Client, path: str
) -> None:
    def break_page(broken: bool) -> None:
        from dsoftmax.diagnostics.page import Page

        def fail(self: Any) -> None:
            raise RuntimeError("no such pixel")

        kept = Page.__dict__.get("_kept", Page.refresh)
        Page._kept, Page.refresh = kept, fail if broken else kept

    expected = fitted(path).coef_
    cluster.run_on_scheduler(break_page, True)
    try:
        session = pull_session(url=f"{board(cluster)}/dsoftmax")
        assert np.array_equal(fitted(path).coef_, expected)
        assert "This page has failed (RuntimeError)" in text(cluster, "status")
        assert "dsoftmax" in fetched(f"{board(cluster)}/status")
        session.close()
    finally:
        cluster.run_on_scheduler(break_page, False)
    assert "This page has failed" not in text(cluster, "status")


@pytest.mark.slow
def test_a_message_that_is_none_harms_nobody(cluster: Client, path: str) -> None:
    model = fitted(path)
    for message in ("", {}, {"run": 1}, {"run": "a", "client": 1, "messages": 3}):
        cluster.log_event("dsoftmax", message)
    assert len(columns(cluster, "passes")["pass"]) == model.n_iter_


@pytest.mark.slow
def test_a_plugin_that_is_removed_does_not_stop_the_fit_and_comes_back_with_the_next(
    path: str, cluster: Client
) -> None:
    unplug = Once(PassEnded, lambda: cluster.unregister_scheduler_plugin("dsoftmax"))
    expected = fitted(path).coef_
    assert np.array_equal(fitted(path, callbacks=[unplug]).coef_, expected)
    model = fitted(path)
    assert list(columns(cluster, "passes")["loss"]) == passes_of(model, "loss")


@contextmanager
def scheduler_of(folder: Path, code: str, *options: str) -> Iterator[Client]:
    """Yield the client of a scheduler and a worker in processes of their own."""
    file = folder / "scheduler.json"
    start = f"{code}\nfrom distributed.cli.dask_scheduler import main\nmain()"
    common = ["--host", "127.0.0.1", "--port", "0"]
    board = ["--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(file)]
    command = [sys.executable, "-c", start, *common, *board, *options]
    worker = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        "--scheduler-file",
        str(file),
        "--nthreads",
        "1",
        "--no-nanny",
        "--no-dashboard",
        "--host",
        "127.0.0.1",
        "--local-directory",
        str(folder),
    ]
    with subprocess.Popen(command) as scheduler, subprocess.Popen(worker) as helper:
        try:
            with Client(scheduler_file=str(file), timeout=60) as client:
                client.wait_for_workers(1, timeout=60)
                yield client
        finally:
            helper.kill()
            scheduler.kill()


@pytest.mark.slow
def test_a_scheduler_that_knows_no_runs_is_warned_of_once_and_used(
    tmp_path: Path, digits: Arrays, store: Store
) -> None:
    path = store(600, X=digits[0], y=digits[1])
    with scheduler_of(tmp_path, OLDER) as client:
        with pytest.warns(UserWarning, match=r"install dsoftmax there.*goes on") as caught:
            model = fitted(path)
        assert len(caught) == 1
        again = fitted(path)  # any warning would be an error here
        assert client.status == "running"
    assert np.array_equal(model.coef_, again.coef_)


@pytest.mark.slow
def test_the_page_can_be_there_from_the_start(tmp_path: Path, digits: Arrays, store: Store) -> None:
    path = store(600, X=digits[0], y=digits[1])
    preload = ("--preload", "dsoftmax.diagnostics.dashboard")
    with scheduler_of(tmp_path, "", *preload) as client:
        assert '<a href="dsoftmax">' in fetched(f"{board(client)}/status")
        assert "No run yet" in text(client, "status")
        model = fitted(path)
        assert list(columns(client, "passes")["loss"]) == passes_of(model, "loss")


@pytest.mark.slow
def test_a_scheduler_behind_tls_shows_its_runs_too(digits: Arrays, store: Store) -> None:
    path = store(600, X=digits[0], y=digits[1])
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            security=Security.temporary(),
            dashboard_address="127.0.0.1:0",
        ) as local,
        Client(local) as client,
    ):
        assert client.scheduler.address.startswith("tls://")
        model = fitted(path)
        assert list(columns(client, "passes")["loss"]) == passes_of(model, "loss")


@pytest.mark.slow
def test_a_scheduler_without_a_dashboard_takes_the_events(digits: Arrays, store: Store) -> None:
    path = store(600, X=digits[0], y=digits[1])

    def heard(dask_scheduler: Any) -> str:
        return json.dumps([run.state for run in dask_scheduler.plugins["dsoftmax"].runs])

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as local,
        Client(local) as client,
    ):
        local.scheduler.http_application.applications.clear()
        fitted(path)
        assert json.loads(client.run_on_scheduler(heard)) == ["ended"]
