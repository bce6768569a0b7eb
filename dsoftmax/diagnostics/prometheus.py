"""Metrics of runs at the scheduler's /metrics, if the extra `prometheus` is installed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

from dsoftmax.diagnostics.runs import RUNNING, Run, Runs

_log = logging.getLogger(__name__)
_Value = Callable[[Run], float | None]


def _last(name: str) -> _Value:
    return lambda run: None if run.last is None else run.last[name]


def _validation(name: str) -> _Value:
    return lambda run: None if run.validation is None else run.validation[f"validation_{name}"]


def _best(name: str) -> _Value:
    def value(run: Run) -> float | None:
        return None if run.candidates is None else run.candidates[name][run.candidates["best"]]

    return value


def _models_running(run: Run) -> float | None:
    return None if run.candidates is None else float(sum(run.candidates["running"]))


def _checkpoint_age(run: Run) -> float | None:
    return None if run.checkpoint_at is None else time.time() - run.checkpoint_at


_GAUGES: dict[str, tuple[str, _Value]] = {
    "loss": ("Penalised objective at the last step or pass", _last("loss")),
    "gradient_norm": ("Largest entry of the gradient there", _last("gradient_norm")),
    "accuracy": ("Share of the weight that is predicted right there", _last("accuracy")),
    "validation_loss": ("Mean loss of the validation rows, last pass", _validation("loss")),
    "validation_accuracy": ("Share of them that is predicted right", _validation("accuracy")),
    "models_running": ("Models of a search that go on", _models_running),
    "best_alpha": ("Strength of the penalty that is the best so far", _best("alphas")),
    "best_held_out_loss": ("Its mean loss on rows that are held out", _best("losses")),
    "passes": ("Passes over the data so far", lambda run: run.passes),
    "passes_most": ("Budget in passes", lambda run: run.facts.get("max_iter")),
    "step": ("Evaluations or updates so far", _last("step")),
    "seconds_left": ("At most how long the run still takes", lambda run: run.seconds_left),
    "skipped_chunks": ("Chunks that are left out", lambda run: run.skipped),
    "checkpoint_age_seconds": ("Since the last checkpoint", _checkpoint_age),
    "running": ("Whether the run is under way", lambda run: float(run.state == RUNNING)),
}
_COUNTERS: dict[str, tuple[str, _Value]] = {
    "rows": ("Rows reduced", lambda run: run.totals.rows),
    "bytes": ("Bytes decoded", lambda run: run.totals.bytes),
    "retries": ("Reads that were tried again", lambda run: run.totals.retries),
}


class RunsCollector:
    """Collects the metrics of runs when Prometheus asks for them.

    Parameters
    ----------
    runs : Runs
    """

    def __init__(self, runs: Runs) -> None:
        self.runs = runs

    def collect(self) -> Iterator[Any]:
        """Yield the families of metrics, each labelled by run and solver."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, (text, value) in _GAUGES.items():
            yield self._with_runs(
                GaugeMetricFamily(f"dsoftmax_{name}", text, labels=_LABELS), value
            )
        for name, (text, value) in _COUNTERS.items():
            yield self._with_runs(
                CounterMetricFamily(f"dsoftmax_{name}", text, labels=_LABELS), value
            )
        seconds = CounterMetricFamily(
            "dsoftmax_worker_seconds", "Time of the workers", labels=[*_LABELS, "activity"]
        )
        for run in self.runs:
            for activity, spent in vars(run.totals.time).items():
                seconds.add_metric([*_labels(run), activity], spent)
        yield seconds

    def _with_runs(self, family: Any, value: _Value) -> Any:
        for run in self.runs:
            try:
                number = value(run)
            except Exception:  # one number less, not none at all
                _log.debug("dsoftmax: no %s of %s", family.name, run.key, exc_info=True)
                continue
            if number is not None:
                family.add_metric(_labels(run), number)
        return family


_LABELS = ["run", "solver"]  # few, since Prometheus stores a time series for each combination


def _labels(run: Run) -> list[str]:
    return [run.key[:8], str(run.facts.get("solver", ""))]


_collector: RunsCollector | None = None


def register(runs: Runs) -> None:
    """Show the runs at /metrics of this process, in place of those of an earlier scheduler."""
    # The registry is global and refuses a second collector of the same metrics, but a process can
    # have several schedulers, one after the other.
    global _collector
    if find_spec("prometheus_client") is None:
        return
    if _collector is None:
        from prometheus_client import REGISTRY

        _collector = RunsCollector(runs)
        REGISTRY.register(_collector)
    _collector.runs = runs
