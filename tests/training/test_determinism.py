"""The same bits wherever it runs."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import SoftmaxRegression
from dsoftmax.events import Event, PassEnded
from dsoftmax.runtime.connect import local_workers
from dsoftmax.solvers import SOLVERS

Arrays = tuple[np.ndarray, np.ndarray]

pytestmark = pytest.mark.usefixtures("small_spans")


def fitted(path: str, solver: str, callbacks: Any = ()) -> SoftmaxRegression:
    full_batch = solver == "fista"  # what "sgd" becomes when a batch holds all rows
    model = SoftmaxRegression(
        solver="sgd" if full_batch else solver,
        batch_size=10**6 if full_batch else 170,
        l1_ratio=0.5 if full_batch else 0.0,
        max_iter=5,
        random_state=0,
        tol=0,
        sample_size=300,
        callbacks=callbacks,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(f"{path}/X", f"{path}/y")


def bits(model: SoftmaxRegression) -> tuple[bytes, ...]:
    losses = np.array([[record["loss"], record["accuracy"]] for record in model.history_])
    return model.coef_.tobytes(), model.intercept_.tobytes(), losses.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_the_bits_do_not_depend_on_where_it_runs(
    digits: Arrays, store: Callable[..., str], workers: int
) -> None:
    X, y = digits
    path = store(rows=97, X=X.astype("f4"), y=y)
    with local_workers(workers):
        found = {solver: bits(fitted(path, solver)) for solver in (*SOLVERS, "fista")}
    assert found == {solver: bits(fitted(path, solver)) for solver in found}


@pytest.mark.parametrize(
    "solver", ["sgd", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lbfgs", "adam"))]
)
@pytest.mark.slow
def test_a_killed_worker_does_not_change_the_result(
    digits: Arrays, store: Callable[..., str], solver: str
) -> None:
    X, y = digits
    path = store(rows=97, X=X.astype("f4"), y=y)
    expected = bits(fitted(path, solver))

    class Killer:
        done = False

        def on_event(self, event: Event) -> None:
            if isinstance(event, PassEnded) and not self.done:
                self.done = True
                os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

    with local_workers(2) as client:
        assert bits(fitted(path, solver, [Killer()])) == expected


@pytest.mark.parametrize("solver", SOLVERS)
def test_memory_and_store_give_the_same_bits_for_the_same_chunks(
    digits: Arrays, store: Callable[..., str], solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = digits
    monkeypatch.setattr("dsoftmax.data.numpy_array._CHUNK_BYTES", 97 * 64 * 4)
    path = store(rows=97, X=X.astype("f4"), y=y)
    model = SoftmaxRegression(
        solver=solver, max_iter=5, batch_size=170, sample_size=300, random_state=0, tol=0
    )
    with pytest.warns(ConvergenceWarning):
        model.fit(X.astype("f4"), y)
    assert bits(model) == bits(fitted(path, solver))


@pytest.mark.slow
def test_the_bits_of_large_models_do_not_depend_on_where_it_runs(
    store: Callable[..., str],
) -> None:
    """BLAS splits even a product of two vectors among threads when they are long."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 26, 400)
    path = store(rows=97, X=rng.normal(size=(400, 800)) + (y[:, None] == np.arange(800)), y=y)
    expected = bits(fitted(path, "lbfgs"))
    with local_workers(1):
        assert bits(fitted(path, "lbfgs")) == expected
