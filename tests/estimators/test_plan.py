"""What a plan says is what a fit then does."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import pytest
from distributed import Client
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import (
    DataError,
    MemoryBoundError,
    SoftmaxRegression,
    SoftmaxRegressionCV,
    open_data,
    plan_fit,
)
from dsoftmax.estimators.plan import plan_at
from dsoftmax.events import Callback, CandidatesJudged
from dsoftmax.runtime import local_cluster as local
from dsoftmax.runtime.select import location_of_workers
from tests.benchmarks.memory_shapes import SHAPES, measured
from tests.callbacks import StopAfter

Store = Callable[..., str]


def fitted(model: SoftmaxRegression, path: str) -> SoftmaxRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(f"{path}/X", f"{path}/y")


def gradient_tasks(client: Client, monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Count, from now on, the gradient tasks that are submitted, by the evaluation."""
    counts: Counter[int] = Counter()
    send = client.map

    def counted(*args: Any, **keywords: Any) -> Any:
        for key in keywords["key"]:
            name, _, turn, _ = key.rsplit("-", 3)
            if name == "partial_gradient":
                counts[int(turn)] += 1
        return send(*args, **keywords)

    monkeypatch.setattr(client, "map", counted)
    return counts


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize("rows", [pytest.param(1, marks=pytest.mark.slow), 97, 1797])
@pytest.mark.parametrize("solver", ["lbfgs", "adam", "newton"])
def test_bytes_and_tasks_a_pass_are_those_of_the_fit(
    cluster: Client,
    digits: Any,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    solver: str,
) -> None:
    X, y = digits
    if rows == 1:
        X, y = X[:40], y[:40]
    path = store(rows=rows, X=X.astype("f4"), y=y + 1)
    model = SoftmaxRegression(solver=solver, max_iter=3, tol=0, random_state=0)
    plan = plan_fit(f"{path}/X", f"{path}/y", model)
    counts = gradient_tasks(cluster, monkeypatch)
    history = fitted(model, path).history_
    first = next(record for record in history if record["kind"] == "pass")
    assert first["bytes"] == plan.pass_bytes == X.size * 4
    evaluations = [counts[turn] for turn in sorted(counts)][: plan.steps_a_pass]
    assert sum(evaluations) == plan.tasks_a_pass
    assert plan.slots == plan.workers == 2
    assert max(record["pass"] for record in history) <= plan.passes == 3


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize(
    "name",
    [
        "small chunks",
        "uint8, not compressed",
        "chunks along features",
        "2 threads",
        "sgd, little room",
        "search",
        "predict_to",
        "in process",
    ],
)
def test_a_process_stays_below_the_planned_peak_and_not_far(name: str) -> None:
    idle, peak, planned = measured(SHAPES[name])
    assert idle < peak
    assert 0.5 * planned < peak < planned


def unreadable(path: str) -> None:
    for chunk in Path(path, "X").glob("c/**/*"):
        if chunk.is_file():
            chunk.write_bytes(b"not to be read")


@pytest.mark.parametrize("does", ["plan_fit", "fit", "search", "evaluate", "predict_to"])
def test_what_does_not_fit_is_refused_before_x_is_read_and_says_what_suffices(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, does: str
) -> None:
    path = store(rows=500, X=np.ones((950, 30)), y=np.arange(950) % 3)
    X, y = f"{path}/X", f"{path}/y"
    model = SoftmaxRegression(solver="lbfgs").fit(np.eye(3, 30), np.arange(3))
    unreadable(path)
    calls: dict[str, Callable[[], Any]] = {
        "plan_fit": lambda: plan_fit(X, y, model),
        "fit": lambda: model.fit(X, y),
        "search": lambda: SoftmaxRegressionCV(5, cv=3).fit(X, y),
        "evaluate": lambda: model.evaluate(X, y),
        "predict_to": lambda: model.predict_to(X, tmp_path / "p"),
    }
    memory = psutil.Process().memory_info().rss + (1 << 20)
    monkeypatch.setattr("dsoftmax.runtime.threads.own_limit", lambda: memory)
    with pytest.raises(MemoryBoundError, match=r"this process needs .* and has .*; run it"):
        calls[does]()
    assert not (tmp_path / "p").exists()


def test_the_classes_count_once_the_labels_are_known(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store(rows=3000, X=np.ones((3000, 100), "f4"), y=np.arange(3000))
    unreadable(path)
    few = plan_fit(f"{path}/X", f"{path}/y", SoftmaxRegression(classes=range(3)))
    monkeypatch.setattr("dsoftmax.runtime.threads.own_limit", lambda: few.peak_memory + (9 << 20))
    with pytest.raises(MemoryBoundError, match="this process needs"):
        SoftmaxRegression(solver="lbfgs").fit(f"{path}/X", f"{path}/y")


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_what_a_refusal_asks_for_suffices(store: Store, solver: str, threads: int) -> None:
    X, y = np.ones((30_000, 300), "f4"), np.arange(30_000) % 5
    path, model = store(rows=15_000, X=X, y=y), SoftmaxRegression(solver=solver)
    source = open_data(f"{path}/X", f"{path}/y")
    site = location_of_workers(source, 2, 0, threads)
    with dask.config.set({"dsoftmax.cache": 0}):
        needs = plan_at(site, source, model).peak_memory
    site = site._replace(memory_limit=int(0.95 * needs))
    with pytest.raises(MemoryBoundError, match="smaller chunks") as refused:
        plan_at(site, source, model)
    said = str(refused.value)
    limit = int(re.findall(r"give each worker ([\d,]+) MiB", said)[0].replace(",", "")) << 20
    plan_at(site._replace(memory_limit=limit), source, model)
    with pytest.raises(MemoryBoundError):
        plan_at(site._replace(memory_limit=int(0.97 * limit)), source, model)
    rows = int(re.findall(r"of at most ([\d,]+) rows", said)[0].replace(",", ""))
    smaller = store(name="smaller.zarr", rows=rows, X=X, y=y)
    plan_at(site, open_data(f"{smaller}/X", f"{smaller}/y"), model)
    if threads > 1:
        fewer = int(re.findall(r"at most (\d) thread", said)[0])
        plan_at(site._replace(threads=fewer), source, model)


def test_a_plan_starts_no_cluster_and_reads_no_features(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store(rows=10, X=np.ones((95, 3)), y=np.arange(95) % 4)
    monkeypatch.setattr("dsoftmax.runtime.select._SMALL", 0)
    monkeypatch.setattr(local, "embedded_client", None)  # it would be called
    unreadable(path)
    plan = plan_fit(f"{path}/X", f"{path}/y")
    assert plan.where == "a local cluster"
    assert (plan.n_classes, plan.all_classes) == (4, True)
    monkeypatch.setattr("dsoftmax.estimators.plan._LABEL_BYTES", 8 * 20)
    some = plan_fit(f"{path}/X", f"{path}/y")
    assert some.all_classes is False
    assert "at least 4 classes" in str(some)
    known = plan_fit(f"{path}/X", f"{path}/y", SoftmaxRegression(classes=range(7)))
    assert (known.n_classes, known.all_classes) == (7, True)


def test_the_sample_of_newton_is_in_the_plan() -> None:
    X, y = np.ones((9000, 100), "f4"), np.arange(9000) % 3
    plan = plan_fit(X, y, SoftmaxRegression(solver="newton", sample_size=50))
    assert plan.sample_bytes == 50 * 400
    assert "19.53 kiB of rows in the client" in str(plan)


def test_a_plan_is_printed_and_is_json(store: Store) -> None:
    path = store(rows=10, X=np.ones((95, 3)), y=np.arange(95) % 4)
    plan = plan_fit(f"{path}/X", f"{path}/y", SoftmaxRegression(solver="sgd", batch_size=20))
    assert "95 rows x 3 features" in str(plan)
    assert "5 steps" in str(plan)
    assert json.loads(json.dumps(plan.to_dict()))["steps_a_pass"] == 5


@pytest.mark.parametrize("y", [["a"], ["a", "b"]])
def test_the_smallest_data_have_a_plan(y: list[str]) -> None:
    plan = plan_fit(np.ones((len(y), 1)), y)
    assert (plan.n_samples, plan.pass_bytes, plan.tasks_a_pass) == (len(y), 8 * len(y), 1)


def test_a_plan_that_cannot_work_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(rows=95, X=np.ones((95, 3)), y=np.arange(95) % 4)
    with pytest.raises(DataError, match="y is missing"):
        plan_fit(f"{path}/X")
    with pytest.raises(DataError, match="alpha is -1"):
        plan_fit(f"{path}/X", f"{path}/y", SoftmaxRegression(alpha=-1))
    monkeypatch.setattr("dsoftmax.runtime.select._SMALL", 0)
    monkeypatch.setattr(local, "MEMORY_LIMIT", 2000)
    said = "a worker of the local cluster needs"
    with pytest.raises(MemoryBoundError, match=said):
        plan_fit(f"{path}/X", f"{path}/y")


def test_advice_names_what_is_short(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(rows=95, X=np.ones((95, 3)), y=np.arange(95) % 4)
    monkeypatch.setattr("dsoftmax.runtime.select._SMALL", 0)
    monkeypatch.setattr("dsoftmax.runtime.select.CPU_COUNT", 2)
    monkeypatch.setattr(local, "MEMORY_LIMIT", 224 << 20)
    advice = " ".join(plan_fit(f"{path}/X", f"{path}/y").advice)
    assert "1 of 2 slots will have nothing to do" in advice
    assert "a worker may need 10" in advice
    assert "open_data(dtype='float32')" in advice
    with dask.config.set({"dsoftmax.cache": 8}):
        sgd = plan_fit(f"{path}/X", f"{path}/y", SoftmaxRegression(solver="sgd"))
    assert "remembers 8 B" in " ".join(sgd.advice)
    source = open_data(f"{path}/X", f"{path}/y", dtype="float32")
    monkeypatch.setattr(local, "MEMORY_LIMIT", 3 << 30)
    monkeypatch.setattr("dsoftmax.runtime.select.CPU_COUNT", 1)
    assert plan_fit(source).advice == ()


@pytest.mark.parametrize(
    ("classes", "solver", "prune", "n_alphas", "reads_a_round"),
    [
        (2, "lbfgs", False, 5, 4),
        (3, "lbfgs", False, 5, 4),
        (3, "newton", False, 5, 4),
        (3, "newton", True, 5, 5),  # of the full-data models: four points for each of them
        (3, "newton", True, 8, 8),
    ],
)
def test_a_step_of_every_model_of_a_search_takes_the_reads_of_its_plan(
    monkeypatch: pytest.MonkeyPatch,
    classes: int,
    solver: str,
    prune: bool,
    n_alphas: int,
    reads_a_round: int,
) -> None:
    X = np.random.default_rng(0).normal(size=(300, 5))
    y = np.arange(300) % classes
    columns = 1 if classes == 2 else classes
    monkeypatch.setattr(
        "dsoftmax.model_selection.memory._STACK_BYTES", 8 * 6 * columns * 4
    )  # four points

    def search(*callbacks: Callback, max_iter: int = 100) -> SoftmaxRegressionCV:
        return SoftmaxRegressionCV(
            alphas=n_alphas,
            cv=3,
            solver=solver,
            max_iter=max_iter,
            tol=1e-9,
            prune=prune,
            random_state=0,
            refit=False,
            callbacks=callbacks,
        )

    plan = plan_fit(X, y, search())
    assert plan.n_models == 3 * n_alphas
    assert plan.reads_a_round == reads_a_round
    assert f"models, at first {reads_a_round} passes for a step of each" in str(plan)
    assert any("too large for one read" in text for text in plan.advice)
    found = []
    for reads in (0, reads_a_round - 1, reads_a_round):
        # The event comes before the first read too, and the read it interrupts is lost.
        stop = StopAfter(1 + reads, KeyboardInterrupt, (CandidatesJudged,))
        with pytest.warns(ConvergenceWarning, match="interrupted"):
            found.append(search(stop).fit(X, y).objectives_)
    start, before, after = found
    assert (before == start).any()
    assert not (after == start).any()
    with pytest.warns(ConvergenceWarning, match="budget"):  # a round is for all, or for none
        assert (search(max_iter=4).fit(X, y).objectives_ == start).all()


def test_a_search_whose_models_do_not_fit_this_process_is_refused_before_x_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store(rows=50, X=np.ones((95, 30)), y=np.arange(95) % 4)
    unreadable(path)
    model = SoftmaxRegressionCV(alphas=30, cv=3)
    planned = plan_fit(f"{path}/X", f"{path}/y", model)
    whole = 120 * 8 * 31 * 4 * (2 * 20 + 12)  # with a full-data model for each penalty
    assert whole <= planned.states_bytes < whole + 90
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", planned.states_bytes // 90 * 89)
    monkeypatch.setattr("dsoftmax.runtime.threads.own_limit", lambda: 1 << 40)  # for its tasks
    said = "a search of 90 models, whose solvers remember .* at most 89 models"
    for call in (plan_fit, lambda X, y, model: model.fit(X, y)):
        with pytest.raises(MemoryBoundError, match=said):
            call(f"{path}/X", f"{path}/y", model)


def test_the_folds_of_a_plan_are_those_that_an_array_names() -> None:
    X, y = np.ones((60, 3)), np.arange(60) % 3
    for cv, folds in (
        (None, 1),
        (4, 4),
        (np.arange(60) % 7, 7),
        (np.arange(60) % 7 - 2, 5),
        (np.array(["a", "b", "c"])[np.arange(60) % 3], 3),
    ):
        model = SoftmaxRegressionCV(alphas=[1.0, 2.0], l1_ratios=[0.0, 1.0], cv=cv)
        assert plan_fit(X, y, model).n_models == 4 * folds
    with pytest.raises(DataError, match=r"expected one fold for each row"):
        plan_fit(X, y, SoftmaxRegressionCV(cv=np.arange(59)))
