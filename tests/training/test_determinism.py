"""The same bits wherever it runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from dsoftmax.events import PassEnded
from dsoftmax.runtime.connect import local_workers
from tests.callbacks import Once, kill_a_worker
from tests.fits import SOLVERS, bits, fitted, model_of

Arrays = tuple[np.ndarray, np.ndarray]

pytestmark = pytest.mark.usefixtures("small_spans")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_the_bits_do_not_depend_on_where_it_runs(path: str, workers: int) -> None:
    with local_workers(workers):
        found = {solver: bits(fitted(path, solver)) for solver in SOLVERS}
    assert found == {solver: bits(fitted(path, solver)) for solver in found}


@pytest.mark.parametrize(
    "solver", ["sgd", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lbfgs", "adam"))]
)
@pytest.mark.slow
def test_a_killed_worker_does_not_change_the_result(path: str, solver: str) -> None:
    expected = bits(fitted(path, solver))

    with local_workers(2) as client:
        kill = Once(PassEnded, lambda: kill_a_worker(client))
        assert bits(fitted(path, solver, callbacks=[kill])) == expected
    assert kill.done


@pytest.mark.parametrize("solver", SOLVERS)
def test_memory_and_store_give_the_same_bits_for_the_same_chunks(
    digits: Arrays, path: str, solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = digits
    monkeypatch.setattr("dsoftmax.data.numpy_array._CHUNK_BYTES", 97 * 64 * 4)
    with pytest.warns(ConvergenceWarning):
        model = model_of(solver).fit(X.astype("f4"), y)
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
