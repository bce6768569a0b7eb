"""What Prometheus is told, by the scheduler and by the dashboard that asks for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bokeh.client import pull_session
from distributed import Client

from dsoftmax.diagnostics import prometheus
from dsoftmax.diagnostics.dashboard import RunsPlugin
from dsoftmax.diagnostics.prometheus import RunsCollector
from dsoftmax.diagnostics.runs import Runs
from dsoftmax.diagnostics.scheduler_report import public
from tests.diagnostics.pages import board, fetched, fitted
from tests.diagnostics.sample_events import ALL, ENDED_EVENT, JUDGED, PASS, STARTED

GRAFANA = Path(__file__).parents[2] / "cluster" / "grafana.json"


def samples(runs: Runs) -> dict[tuple[str, ...], float]:
    pytest.importorskip("prometheus_client")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in RunsCollector(runs).collect()
        for sample in family.samples
    }


def told(*keys: str) -> Runs:
    runs = Runs()
    for key in keys:
        runs.receive(key, "me", [public(event) for event in ALL], now=100.0)
    return runs


def test_every_figure_is_there_and_labelled_by_its_run() -> None:
    found = samples(told("aaaaaaaabbbb", "ccccccccdddd"))
    for run in ("aaaaaaaa", "cccccccc"):
        labels = (run, "lbfgs")
        assert found["dsoftmax_loss", *labels] == 0.7
        assert found["dsoftmax_validation_loss", *labels] == 0.75
        assert found["dsoftmax_validation_accuracy", *labels] == 0.7
        assert found["dsoftmax_passes", *labels] == 1.0
        assert found["dsoftmax_step", *labels] == 1
        assert found["dsoftmax_rows_total", *labels] == 2000  # an earlier pass, and its own
        assert found["dsoftmax_retries_total", *labels] == 6
        assert found["dsoftmax_skipped_chunks", *labels] == 1
        assert found["dsoftmax_checkpoint_age_seconds", *labels] > 0
        assert found["dsoftmax_running", *labels] == 0
        assert found["dsoftmax_models_running", *labels] == 5
        assert found["dsoftmax_best_alpha", *labels] == 10.0
        assert found["dsoftmax_best_held_out_loss", *labels] == 0.75
        for activity, seconds in {"read": 2, "decode": 4, "kernel": 10, "waiting": 4}.items():
            assert found["dsoftmax_worker_seconds_total", *labels, activity] == seconds


def test_what_is_not_known_yet_is_left_out() -> None:
    runs = Runs()
    runs.receive("a", "me", [public(STARTED)], now=1.0)
    assert ("dsoftmax_loss", "a", "lbfgs") not in samples(runs)
    assert ("dsoftmax_checkpoint_age_seconds", "a", "lbfgs") not in samples(runs)
    assert ("dsoftmax_models_running", "a", "lbfgs") not in samples(runs)
    runs.receive("a", "me", [public(PASS), public(ENDED_EVENT)], now=2.0)
    assert ("dsoftmax_loss", "a", "lbfgs") in samples(runs)


def test_without_the_extra_nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "find_spec", lambda name: None)
    monkeypatch.setattr(prometheus, "_collector", None)
    prometheus.register(Runs())
    assert prometheus._collector is None


@pytest.mark.slow
@pytest.mark.usefixtures("small_spans")
def test_the_scheduler_tells_of_a_real_fit(
    cluster: Client, digits: tuple[np.ndarray, np.ndarray], store: Any
) -> None:
    pytest.importorskip("prometheus_client")
    model = fitted(store(600, X=digits[0], y=digits[1]))
    fitted(store(600, "other.zarr", X=digits[0], y=digits[1]))
    losses = re.findall(r'dsoftmax_loss\{run="\w{8}",solver="newton"\} (\S+)', metrics(cluster))
    history = [record["loss"] for record in model.history_ if record["kind"] == "pass"]
    assert [float(loss) for loss in losses[-2:]] == [history[-1]] * 2
    rows = re.findall(r'dsoftmax_rows_total\{run="\w{8}",solver="newton"\} (\S+)', metrics(cluster))
    assert float(rows[-1]) == 1797 * len(history)


WRONG = [
    "",
    3,
    {},
    {"run": 1},
    {"run": "a", "client": 1, "messages": 3},
    {"run": "b", "client": "me", "messages": "started"},
]
# Each is well-formed but for what is said here.
SPOILED: list[tuple[Any, dict[str, Any]]] = [
    (STARTED, {"max_iter": "many"}),
    (STARTED, {"solver": 3}),
    (STARTED, {"n_samples": None}),
    (PASS, {"loss": "low"}),
    (PASS, {"loss": 10**400}),
    (PASS, {"pass": float("inf")}),
    (PASS, {"rows": None}),
    (PASS, {"validation_accuracy": "good"}),
    (PASS, {"read_seconds": [1]}),
    (JUDGED, {"best": 9}),
    (JUDGED, {"alphas": [1.0]}),
    (JUDGED, {"running": [None, None]}),
    (ENDED_EVENT, {"reason": "half a pair \ud800"}),
    (PASS, {"event": None}),
]


@pytest.mark.parametrize(("event", "change"), SPOILED)
def test_a_message_of_a_wrong_type_is_left_out_and_all_else_is_told(
    event: Any, change: dict[str, Any]
) -> None:
    runs = told("aaaaaaaabbbb")
    before = samples(runs)
    with pytest.raises(ValueError, match=r"\w+"):
        runs.receive("aaaaaaaabbbb", "me", [public(event) | change], now=101.0)
    with pytest.raises(ValueError, match=r"\w+"):
        runs.receive("new", "me", [public(event) | change], now=101.0)
    after = samples(runs)
    assert after.keys() == before.keys()
    age = "dsoftmax_checkpoint_age_seconds"
    assert {k: v for k, v in after.items() if k[0] != age} == {
        k: v for k, v in before.items() if k[0] != age
    }


def test_what_is_right_in_a_batch_is_taken_beside_what_is_wrong() -> None:
    runs = Runs()
    with pytest.raises(ValueError, match="max_iter of started"):
        runs.receive(
            "a", "me", [public(STARTED), public(STARTED) | {"max_iter": "x"}, public(PASS)], now=1.0
        )
    assert samples(runs)["dsoftmax_loss", "a", "lbfgs"] == 0.7


def test_a_real_scheduler_answers_prometheus_and_browsers_after_any_message(
    cluster: Client,
) -> None:
    pytest.importorskip("prometheus_client")
    cluster.register_plugin(RunsPlugin(), name="dsoftmax")
    batches: list[Any] = [[public(event) for event in ALL]]
    batches += [[public(event) | change] for event, change in SPOILED]
    messages = [{"run": "goodgood", "client": "me", "messages": batch} for batch in batches]

    def receive(messages: list[Any], dask_scheduler: Any) -> None:
        for message in messages:
            dask_scheduler.log_event("dsoftmax", message)

    cluster.run_on_scheduler(receive, messages + WRONG)
    assert 'dsoftmax_loss{run="goodgood",solver="lbfgs"} 0.7' in metrics(cluster)
    session = pull_session(url=f"{board(cluster)}/dsoftmax")
    status = session.document.get_model_by_name("status").text
    session.close()
    assert "has failed" not in status


def metrics(client: Client) -> str:
    return fetched(f"{board(client)}/metrics")


def test_every_metric_of_the_grafana_dashboard_exists() -> None:
    board = json.loads(GRAFANA.read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    named = set(re.findall(r"dsoftmax_\w+", " ".join(asked)))
    told_of = {name for name, *_ in samples(told("a"))}
    # A run that has ended has no time left to tell.
    assert named <= told_of | {"dsoftmax_seconds_left"}
    assert len(named) >= 10
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
