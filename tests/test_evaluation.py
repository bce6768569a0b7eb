from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from distributed import Client
from sklearn.metrics import accuracy_score, log_loss

from dsoftmax import DataError, SoftmaxRegression

Arrays = tuple[np.ndarray, np.ndarray]


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_equal_those_of_scikit_learn(
    cluster: Client, digits: Arrays, store: Callable[..., str], weighted: bool
) -> None:
    X, y = digits
    weight = np.random.default_rng(0).random(len(y)) if weighted else None
    model = SoftmaxRegression(alpha=0.1, tol=1e-2).fit(X, y)
    path = store(rows=100, X=X, y=y)
    p = model.predict_proba(X)
    expected = (
        accuracy_score(y, p.argmax(axis=1), sample_weight=weight),
        log_loss(y, p, sample_weight=weight),
    )
    for data in ((X, y), (f"{path}/X", f"{path}/y")):
        metrics = model.evaluate(*data, weight)
        np.testing.assert_allclose([metrics["accuracy"], metrics["log_loss"]], expected, rtol=1e-10)
        assert metrics["n_samples"] == len(y)
        assert model.score(*data, weight) == metrics["accuracy"]


def test_a_label_the_model_does_not_know_is_refused() -> None:
    model = SoftmaxRegression().fit([[0.0], [1.0]], ["a", "b"])
    with pytest.raises(DataError, match=r"label 'c' at row 1.*2 classes \('a', 'b'\)"):
        model.evaluate([[0.0], [1.0]], ["a", "c"])
    with pytest.raises(DataError, match="y is missing"):
        model.evaluate([[0.0], [1.0]])
