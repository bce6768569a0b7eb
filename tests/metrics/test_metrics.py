from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from operator import add
from typing import Any

import numpy as np
import pytest
from distributed import Client
from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from dsoftmax import DataError, SoftmaxRegression, open_data
from dsoftmax.metrics.metrics import metrics_of
from dsoftmax.metrics.scores import EvaluationResult, scores_of
from dsoftmax.objective.reduction import Chunk

Arrays = tuple[np.ndarray, np.ndarray]
Store = Callable[..., str]


def expected_scores(
    model: SoftmaxRegression, p: np.ndarray, y: np.ndarray, weight: np.ndarray | None
) -> dict[str, Any]:
    """Return what scikit-learn computes from the probabilities of all rows."""
    labels, guess = model.classes_, model.classes_[p.argmax(axis=1)]
    given: dict[str, Any] = {"sample_weight": weight}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are never predicted, or not in y
        precision, recall, f1, support = metrics.precision_recall_fscore_support(
            y, guess, labels=labels, zero_division=0.0, **given
        )
        balanced = metrics.balanced_accuracy_score(y, guess, **given)
    two = len(labels) == 2
    ranked = p if not two else p[:, 1]
    return {
        "accuracy": metrics.accuracy_score(y, guess, **given),
        "balanced_accuracy": balanced,
        "f1_macro": f1.mean(),
        "log_loss": metrics.log_loss(y, p, labels=labels, **given),
        "brier_score": metrics.brier_score_loss(
            y, ranked, **({"pos_label": labels[1]} if two else {"labels": labels}), **given
        ),
        "top_k_accuracy": {
            k: metrics.top_k_accuracy_score(y, ranked, k=k, labels=labels, **given)
            for k in range(1, min(len(labels), 11))
        },
        "confusion_matrix": metrics.confusion_matrix(y, guess, labels=labels, **given),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "support": support,
    }


def assert_equal(scores: EvaluationResult, expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        found = scores[key] if key in scores else scores["per_class"][key]
        if isinstance(value, dict):
            assert list(found) == list(value)
            value, found = list(value.values()), list(found.values())
        np.testing.assert_allclose(found, value, rtol=1e-10, atol=1e-13, err_msg=key)


@pytest.fixture(scope="module", params=["ten classes", "two classes"])
def fitted(request: pytest.FixtureRequest, digits: Arrays) -> tuple[SoftmaxRegression, Arrays]:
    two = request.param == "two classes"
    X, y = load_breast_cancer(return_X_y=True) if two else digits
    y = np.array([f"class {label}" for label in range(10)])[y]
    return SoftmaxRegression(alpha=0.1, tol=1e-2).fit(X, y), (X, y)


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_equal_those_of_scikit_learn(
    cluster: Client, fitted: tuple[SoftmaxRegression, Arrays], store: Store, weighted: bool
) -> None:
    model, (X, y) = fitted
    weight = np.random.default_rng(0).random(len(y)) if weighted else None
    path = store(rows=100, X=X, y=y)
    expected = expected_scores(model, model.predict_proba(X), y, weight)
    for data in ((X, y), (f"{path}/X", f"{path}/y")):
        scores = model.evaluate(*data, weight)
        assert_equal(scores, expected)
        assert scores["n_samples"] == len(y)
        assert scores["confusion_matrix"].dtype == (float if weighted else int)
        assert model.score(*data, weight) == scores["accuracy"]


def test_reliability_is_that_of_scikit_learns_calibration_curve(
    fitted: tuple[SoftmaxRegression, Arrays],
) -> None:
    model, (X, y) = fitted
    table, p = model.evaluate(X, y)["reliability"], model.predict_proba(X)
    right, confidence = model.predict(X) == y, p.max(axis=1)
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    there = table["support"] > 0
    np.testing.assert_allclose(table["accuracy"][there], accuracy, rtol=1e-10)
    np.testing.assert_allclose(table["confidence"][there], mean, rtol=1e-10)
    assert np.isnan(table["accuracy"][~there]).all()
    share = table["support"][there] / len(y)
    assert model.evaluate(X, y)["ece"] == pytest.approx(share @ np.abs(accuracy - mean), rel=1e-10)


def test_classes_that_do_not_occur_count_as_they_do_in_scikit_learn(digits: Arrays) -> None:
    X, y = digits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = SoftmaxRegression(classes=range(12), max_iter=3).fit(X, y)
    some = y < 4
    expected = expected_scores(model, model.predict_proba(X[some]), y[some], None)
    del expected["top_k_accuracy"]  # scikit-learn prefers the last of equal classes
    assert_equal(model.evaluate(X[some], y[some]), expected)


def test_one_row_and_rows_in_float32_are_evaluated(digits: Arrays) -> None:
    X, y = digits
    model = SoftmaxRegression(alpha=0.1, tol=1e-2).fit(X, y)
    exact, rough = model.evaluate(X, y), model.evaluate(X.astype("u1"), y)
    for key in ("accuracy", "log_loss", "brier_score", "ece"):
        assert rough[key] == pytest.approx(exact[key], rel=1e-4)
    one = model.evaluate(X[:1], y[:1])
    assert (one["accuracy"], one["balanced_accuracy"], one["n_samples"]) == (1.0, 1.0, 1)
    assert one["confusion_matrix"].sum() == 1


def test_rows_that_are_left_out_have_no_part_in_any_metric(digits: Arrays) -> None:
    X, y = digits
    model = SoftmaxRegression(alpha=0.1, tol=1e-2).fit(X, y)
    gaps = X.copy()
    gaps[::3] = np.nan
    kept = np.arange(len(y)) % 3 > 0
    with pytest.warns(UserWarning, match="599 of 1,797 rows are left out"):
        found = model.evaluate(open_data(gaps, y, missing="drop"))
    assert found["n_samples"] == kept.sum()
    alone = model.evaluate(X[kept], y[kept])
    np.testing.assert_array_equal(found["confusion_matrix"], alone["confusion_matrix"])
    for key in ("accuracy", "f1_macro", "log_loss", "brier_score", "ece"):
        assert found[key] == pytest.approx(alone[key], rel=1e-10)


def test_sums_of_a_thousand_classes_hold_only_the_pairs_that_occur() -> None:
    rng = np.random.default_rng(0)
    n_rows, n_features, n_classes = 2000, 8, 1000
    X, y = rng.normal(size=(n_rows, n_features)), rng.integers(0, n_classes, n_rows)
    point = rng.normal(size=(n_features + 1, n_classes))
    reduction = metrics_of(point, None)
    parts = [reduction.chunk(Chunk(X[i::4], y[i::4], None, 0)) for i in range(4)]
    total = add(add(parts[0], parts[1]), add(parts[2], parts[3]))
    assert len(total.pairs.keys) <= n_rows
    scores = scores_of(total, np.arange(n_classes), weighted=False)
    guess = (X @ point[:-1] + point[-1]).argmax(axis=1)
    np.testing.assert_array_equal(
        scores["confusion_matrix"], metrics.confusion_matrix(y, guess, labels=range(n_classes))
    )
    assert "and 980 classes with a better F1" in str(scores)
    assert len(str(scores).splitlines()) < 60


def test_of_classes_that_are_equally_probable_the_first_is_predicted() -> None:
    X, y = np.zeros((3, 2)), np.array([0, 1, 2])
    model = SoftmaxRegression().fit(np.eye(3, 2), y)
    model.coef_, model.intercept_ = np.zeros((3, 2)), np.zeros(3)
    scores = model.evaluate(X, y)
    assert scores["top_k_accuracy"] == {1: 1 / 3, 2: 2 / 3}
    assert scores["accuracy"] == 1 / 3
    assert model.predict(X).tolist() == [0, 0, 0]


def test_a_bin_of_confidence_holds_its_upper_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsoftmax.metrics.metrics.BINS", np.array([0.0, 0.5, 1.0]))
    rows = Chunk(np.zeros((3, 2)), np.array([0, 1, 0]), None, 0)
    sums = metrics_of(np.zeros((3, 1)), None).chunk(rows)  # two classes that are equally probable
    np.testing.assert_array_equal(sums.bins, [[3.0, 1.5, 2.0], [0.0, 0.0, 0.0]])


def test_scores_are_a_table_and_strict_json(fitted: tuple[SoftmaxRegression, Arrays]) -> None:
    model, data = fitted
    scores = model.evaluate(*data)
    lines = str(scores).splitlines()
    assert lines[0] == f"rows               {len(data[1]):,}"
    assert lines[1] == f"accuracy           {scores['accuracy']:.6f}"
    assert sum(line.startswith("class ") for line in lines) == 1 + len(model.classes_)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    plain = json.loads(json.dumps(scores.to_dict()), parse_constant=refuse)
    assert plain["per_class"]["label"] == model.classes_.tolist()
    assert np.sum(plain["confusion_matrix"]) == len(data[1])
    assert None in plain["reliability"]["accuracy"]


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["str", "int"])
def test_rows_with_a_label_the_model_does_not_know_are_wrong_as_in_scikit_learn(
    digits: Arrays, store: Store, kind: str, weighted: bool
) -> None:
    X, y = digits
    labels = y if kind == "int" else np.array([f"class {label}" for label in range(10)])[y]
    known = y < 7
    model = SoftmaxRegression(alpha=0.1, tol=1e-2).fit(X[known], labels[known])
    weight = np.random.default_rng(0).random(len(y)) if weighted else None
    p = model.predict_proba(X)
    guess = model.predict(X)
    some = None if weight is None else weight[known]
    expected = expected_scores(model, p[known], labels[known], some)
    # Scikit-learn refuses unknown labels for these, and leaves them out of a matrix of `labels`.
    expected = {k: expected[k] for k in ("log_loss", "brier_score", "confusion_matrix", "support")}
    names = {"labels": model.classes_, "sample_weight": weight, "zero_division": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels that are never predicted
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(labels, guess, **names)
        balanced = metrics.balanced_accuracy_score(labels, guess, sample_weight=weight)
    expected |= {"precision": precision, "recall": recall, "f1": f1, "balanced_accuracy": balanced}
    expected["accuracy"] = metrics.accuracy_score(labels, guess, sample_weight=weight)
    path = store(rows=100, X=X, y=labels)
    said = rf"{(~known).sum()} of {len(y):,} rows of .* does not know: .*7.* \({(y == 7).sum()}\), "
    for data in ((X, labels), (f"{path}/X", f"{path}/y")):
        with pytest.warns(UserWarning, match=said):
            scores = model.evaluate(*data, weight)
        assert_equal(scores, expected)
        assert scores["n_samples"] == len(y)
        assert scores["unknown_labels"]["label"].tolist() == np.unique(labels[~known]).tolist()
        assert scores["unknown_labels"]["rows"].tolist() == np.bincount(y)[7:].tolist()
        assert scores["top_k_accuracy"][1] == pytest.approx(scores["accuracy"])
        total = len(y) if weight is None else weight.sum()
        assert scores["reliability"]["support"].sum() == pytest.approx(total)
        with pytest.warns(UserWarning, match=said):
            assert model.score(*data, weight) == scores["accuracy"]
    assert f"{labels[y == 7][0]} ({(y == 7).sum()} rows, counted as wrong)" in str(scores)
    assert json.loads(json.dumps(scores.to_dict()))["unknown_labels"]["rows"][0] == (y == 7).sum()


def test_rows_of_which_no_label_is_known_have_no_loss() -> None:
    model = SoftmaxRegression().fit([[0.0], [1.0]], ["a", "b"])
    with pytest.warns(UserWarning, match=r"2 of 2 rows .* 'c' \(1\), 'dd' \(1\)"):
        scores = model.evaluate([[0.0], [1.0]], ["c", "dd"])
    assert (scores["accuracy"], scores["balanced_accuracy"]) == (0.0, 0.0)
    assert np.isnan(scores["log_loss"])
    assert scores.to_dict()["log_loss"] is None
    with pytest.raises(DataError, match=r"more than 10,000 labels that the model does not know"):
        model.evaluate(np.zeros((20_000, 1)), np.arange(20_000).astype(str))


def test_a_search_of_scikit_learn_with_a_rare_class_finds_the_right_candidate() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = (X[:, 0] + X[:, 1] > 0).astype(int)
    y[7] = 2  # its row is in the test set of one split, and in the training sets of the others
    search = GridSearchCV(SoftmaxRegression(), {"alpha": [10, 0.01]}, cv=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        warnings.filterwarnings("default", "1 of 100 rows of y have a label that the model")
        with pytest.warns(UserWarning, match=r"does not know: 2 \(1\); they are counted as wrong"):
            search.fit(X, y)
    assert search.best_params_ == {"alpha": 0.01}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_an_evaluation_needs_labels_and_weight() -> None:
    model = SoftmaxRegression().fit([[0.0], [1.0]], ["a", "b"])
    with pytest.raises(DataError, match="y is missing"):
        model.evaluate([[0.0], [1.0]])
    with pytest.raises(DataError, match="all weights are zero"):
        model.evaluate([[0.0], [1.0]], ["a", "b"], [0, 0])
