"""Fits that are judged by rows that they do not learn from."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss

from dsoftmax import CheckpointError, ChunkError, DataError, SoftmaxRegression, open_data
from dsoftmax.data.folds import HoldOut
from dsoftmax.events import FitEnded, PassEnded, RowsDone, StepEnded
from tests.callbacks import Once, Recorder, StopAfter, StopError, press_ctrl_c
from tests.faulty import with_faults
from tests.fits import SOLVERS, bits, model_of

Arrays = tuple[np.ndarray, np.ndarray]
Store = Callable[..., str]
SCORES = ("loss", "accuracy", "balanced_accuracy", "f1_macro", "brier_score", "ece")

pytestmark = [
    pytest.mark.usefixtures("small_spans"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture
def halves(digits: Arrays) -> tuple[np.ndarray, ...]:
    X, y = digits
    return X[:1200], y[:1200], X[1200:], y[1200:]


def judged(model: SoftmaxRegression, key: str = "validation_loss") -> list[float]:
    return [record[key] for record in model.history_ if key in record]


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_pass_is_evaluated_on_the_validation_rows(
    solver: str, halves: tuple[np.ndarray, ...]
) -> None:
    X, y, X_val, y_val = halves
    model = model_of(solver, early_stopping=True).fit(X, y, X_val=X_val, y_val=y_val)
    passes = [record for record in model.history_ if record["kind"] == "pass"]
    assert all(f"validation_{name}" in record for record in passes for name in SCORES)
    best = min(passes, key=lambda record: record["validation_loss"])
    scores = model.evaluate(X_val, y_val)
    for name in SCORES:
        expected = scores["log_loss" if name == "loss" else name]
        assert best[f"validation_{name}"] == pytest.approx(expected, rel=1e-12), name
    p = model.predict_proba(X_val)
    assert best["validation_loss"] == pytest.approx(log_loss(y_val, p), rel=1e-9)
    predicted = model.predict(X_val)
    expected = balanced_accuracy_score(y_val, predicted)
    assert best["validation_balanced_accuracy"] == pytest.approx(expected)
    macro = f1_score(y_val, predicted, average="macro")
    assert best["validation_f1_macro"] == pytest.approx(macro)


@pytest.mark.parametrize("solver", SOLVERS)
def test_validation_rows_without_early_stopping_change_no_bit(
    solver: str, halves: tuple[np.ndarray, ...]
) -> None:
    X, y, X_val, y_val = halves
    model = model_of(solver).fit(X, y, X_val=X_val, y_val=y_val)
    alone = model_of(solver).fit(X, y)
    assert model.coef_.tobytes() == alone.coef_.tobytes()
    assert (model.n_iter_, model.n_steps_, model.loss_) == (
        alone.n_iter_,
        alone.n_steps_,
        alone.loss_,
    )
    assert not judged(alone)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_fit_learns_nothing_from_the_rows_that_it_holds_out(solver: str, digits: Arrays) -> None:
    X, y = digits
    held = HoldOut(0.3, 5).rows(0, len(y))
    other, others = X.copy(), y.copy()
    other[held] = np.random.default_rng(0).uniform(0, 16, (held.sum(), X.shape[1]))
    others[held] = 3
    params = {"random_state": 5, "early_stopping": True, "validation_fraction": 0.3}
    params |= {"n_iter_no_change": 1000, "max_iter": 5}
    found = []
    for rows, labels in ((X, y), (other, others)):
        steps = Recorder(StepEnded)
        model_of(solver, **params, callbacks=[steps]).fit(rows, labels)
        found.append([(step.loss, step.gradient_norm, step.accuracy) for step in steps.events])
    # Mini-batches evaluate the model that is kept once more, and that choice is theirs.
    last = -1 if solver in ("sgd", "adam") else None
    np.testing.assert_allclose(found[0][:last], found[1][:last], rtol=1e-7)


@pytest.mark.parametrize(
    "solver",
    ["lbfgs", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fista", "newton"))],
)
def test_a_fit_with_held_out_rows_is_the_fit_to_the_other_rows(solver: str, digits: Arrays) -> None:
    X, y = digits
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(y))
    held = HoldOut(0.1, 3).rows(0, len(y))
    params = {"alpha": 1e-2, "random_state": 3, "tol": 1e-9, "max_iter": 1000, "l1_ratio": 0.0}
    stops = {"early_stopping": True, "n_iter_no_change": 1000}
    model = model_of(solver, **params, **stops).fit(X, y, weight)
    rest = model_of(solver, **params).fit(X[~held], y[~held], weight[~held])
    # The best by the rows held out is not the last one, so compare what the passes told.
    last = [record for record in model.history_ if record["kind"] == "pass"][-1]
    assert last["loss"] == pytest.approx(rest.loss_, rel=1e-7)
    scores = rest.evaluate(X[held], y[held], weight[held])
    assert last["validation_loss"] == pytest.approx(scores["log_loss"], rel=1e-4)
    assert last["validation_accuracy"] == pytest.approx(scores["accuracy"], abs=0.01)
    own = model.evaluate(X[held], y[held], weight[held])
    assert min(judged(model)) == pytest.approx(own["log_loss"], rel=1e-6)


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("solver", SOLVERS)
def test_early_stopping_returns_the_best_model(
    solver: str, validation: bool, halves: tuple[np.ndarray, ...]
) -> None:
    X, y, X_val, y_val = halves
    rows = {"X_val": X_val, "y_val": y_val} if validation else {}
    stops = {"early_stopping": True, "n_iter_no_change": 3, "tol": 0.02}
    model = model_of(solver, alpha=0.0, l1_ratio=0.0, max_iter=60, **stops).fit(X, y, **rows)
    losses = judged(model)
    if model.stop_reason_.startswith("early"):
        assert len(losses) >= 4
        assert min(losses[-3:]) > 0.98**3 * min(losses[:-3])
    if validation:
        assert model.evaluate(X_val, y_val)["log_loss"] == pytest.approx(min(losses), rel=1e-12)
    else:
        seen = [record for record in model.history_ if "validation_loss" in record]
        whole = solver not in ("sgd", "adam")  # whose loss is evaluated once more, at the end
        best = min(seen, key=lambda record: record["validation_loss"])["loss"]
        assert model.loss_ == pytest.approx(best, rel=1e-9) if whole else model.loss_ < 2.3


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_pass_counts_as_better_only_if_it_lowers_the_loss_by_tol(
    solver: str, halves: tuple[np.ndarray, ...]
) -> None:
    X, y, X_val, y_val = halves
    params = {"early_stopping": True, "n_iter_no_change": 2, "tol": 0.9, "max_iter": 30}
    model = model_of(solver, alpha=1e-2, **params).fit(X, y, X_val=X_val, y_val=y_val)
    losses = judged(model)
    assert model.stop_reason_.startswith("early")
    assert 0.1 * losses[0] < losses[1] < losses[0]
    assert len(losses) == 3 + 1  # and the closing pass


def test_patience_is_counted_in_passes(halves: tuple[np.ndarray, ...]) -> None:
    X, y, X_val, y_val = halves
    rows = {"X_val": X_val, "y_val": np.roll(y_val, 1)}  # labels at random: only worse can come
    for retry_policy in (1, 4):
        params = {"early_stopping": True, "n_iter_no_change": retry_policy, "max_iter": 30}
        model = model_of("lbfgs", **params).fit(X, y, **rows)
        assert model.stop_reason_.startswith("early: the validation loss has not fallen")
        assert model.n_iter_ == 1 + retry_policy
        np.testing.assert_array_equal(model.coef_, 0)  # the intercepts alone were the best


def test_feature_names_of_the_validation_rows_are_those_of_the_fit(digits: Arrays) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(digits[0][:, :3], columns=["a", "b", "c"])
    with pytest.raises(DataError, match="in the validation data, column 0 is 'c', and 'a' in X"):
        SoftmaxRegression().fit(table, digits[1], X_val=table[["c", "b", "a"]], y_val=digits[1])


def test_ctrl_c_at_the_end_of_a_pass_keeps_the_model_of_that_pass(
    halves: tuple[np.ndarray, ...],
) -> None:
    X, y, X_val, y_val = halves

    interrupt = Once(PassEnded, press_ctrl_c, number=5)
    model = model_of("lbfgs", early_stopping=True, max_iter=20, callbacks=[interrupt])
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        model.fit(X, y, X_val=X_val, y_val=y_val)
    assert model.best_iter_ == 5
    assert model.evaluate(X_val, y_val)["log_loss"] == pytest.approx(min(judged(model)))


def test_the_pass_of_the_best_model_is_reported(halves: tuple[np.ndarray, ...]) -> None:
    X, y, X_val, y_val = halves
    ends = Recorder(FitEnded)
    params = {"early_stopping": True, "alpha": 0.0, "max_iter": 30, "callbacks": [ends]}
    model = model_of("lbfgs", **params).fit(X, y, X_val=X_val, y_val=y_val)
    passes = [record for record in model.history_ if record["kind"] == "pass"]
    best = min(passes, key=lambda record: record["validation_loss"])
    assert model.best_iter_ == best["pass"] == ends.events[0].best_pass
    assert model_of("lbfgs").fit(X, y, X_val=X_val, y_val=y_val).best_iter_ is None


def test_mini_batches_whose_best_epoch_ended_badly_fall_back_on_the_solvers_best(
    digits: Arrays,
) -> None:
    X, y = digits[0] / 16, digits[1]
    params: dict[str, Any] = {"solver": "sgd", "alpha": 1e-2, "max_iter": 5, "early_stopping": True}
    params |= {"n_iter_no_change": 1000, "tol": 1e-9}
    for seed in range(6):
        model = SoftmaxRegression(random_state=seed, **params).fit(X[:, 20:21], y)
        assert not model.stop_reason_.startswith("diverged")
        assert np.any(model.coef_)


def test_early_stopping_is_no_failure_to_converge(halves: tuple[np.ndarray, ...]) -> None:
    X, y, X_val, y_val = halves
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model_of("lbfgs", early_stopping=True, n_iter_no_change=1, tol=0.5).fit(
            X, y, X_val=X_val, y_val=y_val
        )


def rows_read(passes: Recorder) -> int:
    return sum(event.rows for event in passes.events)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_budget_counts_no_pass_over_validation_rows(
    solver: str, halves: tuple[np.ndarray, ...]
) -> None:
    X, y, X_val, y_val = halves
    counted, alone = Recorder(PassEnded), Recorder(PassEnded)
    model = model_of(solver, max_iter=4, callbacks=[counted]).fit(X, y, X_val=X_val, y_val=y_val)
    model_of(solver, max_iter=4, callbacks=[alone]).fit(X, y)
    assert model.n_iter_ <= 4
    assert rows_read(counted) == rows_read(alone)


def test_validation_rows_in_a_store_are_decoded_once(
    halves: tuple[np.ndarray, ...], store: Store, reads: list[str]
) -> None:
    X, y, X_val, y_val = halves
    path = store(rows=100, X_val=X_val, y_val=y_val)
    reads.clear()
    rows = {"X_val": f"{path}/X_val", "y_val": f"{path}/y_val"}
    model = model_of("lbfgs", max_iter=5, tol=0).fit(X, y, **rows)
    with dask.config.set({"dsoftmax.cache": 0}):
        assert bits(model) == bits(model_of("lbfgs", max_iter=5, tol=0).fit(X, y, **rows))
    chunks = [key for key in reads if key.startswith("X_val/c/")]
    assert len(judged(model)) > 1
    assert {chunks.count(key) for key in chunks} == {1 + len(judged(model))}


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["sgd", "newton"])
def test_validation_gives_the_same_bits_on_workers_and_the_same_losses_for_any_array(
    solver: str, digits: Arrays, path: str, store: Store, request: pytest.FixtureRequest
) -> None:
    X, y = digits
    model = model_of(solver, early_stopping=True)
    in_process = bits(model.fit(f"{path}/X", f"{path}/y"))
    request.getfixturevalue("cluster")
    assert bits(model.fit(f"{path}/X", f"{path}/y")) == in_process
    val = store(rows=50, name="val.zarr", X=X[:300].astype("f4"), y=y[:300])
    kinds: dict[str, Any] = {
        "paths": (f"{val}/X", f"{val}/y"),
        "numpy": (X[:300].astype("f4"), y[:300]),
        "dask": (da.from_array(X[:300].astype("f4"), chunks=(50, 64)), y[:300]),
        "opened": (open_data(f"{val}/X", f"{val}/y"), None),
    }
    losses = {}
    for name, (X_val, y_val) in kinds.items():
        fit = model.fit(f"{path}/X", f"{path}/y", X_val=X_val, y_val=y_val)
        losses[name] = judged(fit)
    for name, found in losses.items():
        assert found == pytest.approx(losses["paths"], rel=1e-6), name


@pytest.mark.parametrize(
    ("solver", "validation"),
    [
        ("lbfgs", True),
        *(
            pytest.param(solver, validation, marks=pytest.mark.slow)
            for solver in ("newton", "lbfgs", "sgd")
            for validation in (True, False)
            if (solver, validation) != ("lbfgs", True)
        ),
    ],
)
def test_a_fit_that_is_stopped_again_and_again_stops_early_at_the_same_bits(
    solver: str, validation: bool, digits: Arrays, path: str, tmp_path: Path
) -> None:
    X, y = digits
    rows = {"X_val": X[:200], "y_val": y[:200]} if validation else {}
    params = {"early_stopping": True, "n_iter_no_change": 2, "tol": 0.01, "max_iter": 20}

    def fitted(**more: Any) -> SoftmaxRegression:
        return model_of(solver, **params, **more).fit(f"{path}/X", f"{path}/y", **rows)

    expected = fitted()
    rng, stops = np.random.default_rng(0), 0
    with dask.config.set({"dsoftmax.checkpoint-interval": 0}):
        while True:
            stop = StopAfter(int(rng.integers(2, 5)), kinds=(RowsDone, StepEnded))
            try:
                model = fitted(checkpoint=tmp_path / "state", callbacks=[stop])
                break
            except StopError:
                stops += 1
        again = fitted(checkpoint=tmp_path / "state")
    assert stops > 2
    assert bits(model) == bits(expected) == bits(again)
    assert judged(model) == judged(expected) == judged(again)
    assert model.stop_reason_ == expected.stop_reason_


def test_a_fit_out_of_budget_resumes_from_its_last_model_not_its_best(
    halves: tuple[np.ndarray, ...], tmp_path: Path
) -> None:
    X, y, X_val, y_val = halves
    rows = {"X_val": X_val, "y_val": y_val}
    params = {"early_stopping": True, "n_iter_no_change": 50, "alpha": 0.0}
    short = model_of("lbfgs", max_iter=22, checkpoint=tmp_path / "run", **params).fit(X, y, **rows)
    assert min(judged(short)) < judged(short)[-1]
    long = model_of("lbfgs", max_iter=25, checkpoint=tmp_path / "run", **params).fit(X, y, **rows)
    assert bits(long) == bits(model_of("lbfgs", max_iter=25, **params).fit(X, y, **rows))


@pytest.mark.parametrize("change", ["values", "rows"])
def test_a_checkpoint_of_other_validation_rows_is_refused(
    change: str, halves: tuple[np.ndarray, ...], tmp_path: Path
) -> None:
    X, y, X_val, y_val = halves
    model = model_of("lbfgs", max_iter=3, checkpoint=tmp_path / "run")
    model.fit(X, y, X_val=X_val, y_val=y_val)
    rows = 1 if change == "values" else 0
    other = {"X_val": (X_val + rows)[rows - 1 :], "y_val": y_val[rows - 1 :]}
    with pytest.raises(CheckpointError, match=r"the validation data was X \(597, 64\).*and is X"):
        model.fit(X, y, **other)
    with pytest.raises(CheckpointError, match=r"the validation data was X .*, and is none"):
        model.fit(X, y)


def test_skipped_chunks_are_missing_from_the_held_out_rows_too(
    digits: Arrays, path: str, tmp_path: Path
) -> None:
    X, y = digits
    source = open_data(f"{path}/X", f"{path}/y", on_bad_chunk="skip", max_bad_chunks=1)
    broken = with_faults(source, {291: ["bad"]}, tmp_path / "log")
    params = {"early_stopping": True, "random_state": 1, "n_iter_no_change": 100, "max_iter": 8}
    with pytest.warns(UserWarning, match="left out"):
        model = model_of("lbfgs", **params).fit(broken)
    keep = np.ones(len(y), bool)
    keep[291:388] = False
    held = HoldOut(0.1, 1).rows(0, len(y)) & keep
    best = model.evaluate(X[held], y[held])
    assert min(judged(model)) == pytest.approx(best["log_loss"], rel=1e-6)


@pytest.mark.parametrize("reads", [3, 5, 7])
def test_the_best_model_survives_a_chunk_that_is_skipped_later(
    reads: int, halves: tuple[np.ndarray, ...], store: Store, tmp_path: Path
) -> None:
    X, y, X_val, y_val = halves
    path = store(rows=100, X=X, y=y)
    source = open_data(f"{path}/X", f"{path}/y", on_bad_chunk="skip", max_bad_chunks=1)
    broken = with_faults(source, {400: ["ok"] * reads + ["bad"]}, tmp_path / "log")
    params = {"early_stopping": True, "n_iter_no_change": 8, "max_iter": 8, "random_state": 1}
    with pytest.warns(UserWarning, match="left out"):
        model = model_of("sgd", alpha=0.0, **params).fit(broken, X_val=X_val, y_val=y_val)
    scores = model.evaluate(X_val, y_val)
    assert scores["log_loss"] == pytest.approx(min(judged(model)), rel=1e-9)


def test_reads_of_validation_rows_that_were_tried_again_are_counted(
    halves: tuple[np.ndarray, ...], store: Store, tmp_path: Path
) -> None:
    X, y, X_val, y_val = halves
    path = store(rows=100, X=X_val, y=y_val)
    shaky = with_faults(
        open_data(f"{path}/X", f"{path}/y"), {200: ["busy", "ok"]}, tmp_path / "log"
    )
    ends = Recorder(FitEnded)
    shaky = replace(shaky, retry_policy=shaky.retry_policy._replace(delay=0.001))
    model_of("lbfgs", max_iter=3, callbacks=[ends]).fit(X, y, X_val=shaky)
    assert ends.events[0].retries == 1


def test_labels_of_validation_rows_are_checked_before_training(
    halves: tuple[np.ndarray, ...], store: Store
) -> None:
    X, y, X_val, y_val = halves
    started = Recorder(RowsDone)
    with pytest.raises(DataError, match="in the validation data, y has the label 106"):
        model_of("lbfgs", callbacks=[started]).fit(X, y, X_val=X_val, y_val=y_val + 99)
    assert not started.events
    left_out = open_data(X_val, np.where(y_val == 3, 255, y_val), ignore_label=255)
    with pytest.warns(UserWarning, match="of 597 validation rows are left out: 62 with the label"):
        model_of("lbfgs", max_iter=2).fit(X, y, X_val=left_out)
    path = store(rows=100, X=X_val, y=y_val)
    (Path(path) / "y" / "c" / "2").unlink()
    with pytest.warns(UserWarning, match=r"1 chunk\(s\) of .*y are not in the store"):
        model_of("lbfgs", max_iter=2).fit(X, y, X_val=f"{path}/X", y_val=f"{path}/y")


def test_chunks_of_the_validation_rows_are_never_left_out(
    halves: tuple[np.ndarray, ...], store: Store, tmp_path: Path
) -> None:
    X, y, X_val, y_val = halves
    path = store(rows=97, X=X_val, y=y_val)
    source = open_data(f"{path}/X", f"{path}/y", on_bad_chunk="skip", max_bad_chunks=3)
    broken = with_faults(source, {97: ["bad"]}, tmp_path / "log")
    with pytest.raises(ChunkError):
        model_of("lbfgs").fit(X, y, X_val=broken)


def test_validation_rows_have_weights_of_their_own(halves: tuple[np.ndarray, ...]) -> None:
    X, y, X_val, y_val = halves
    weight = np.zeros(len(y_val))
    weight[:100] = 2.0
    model = model_of("lbfgs", max_iter=3)
    some = model.fit(X, y, X_val=X_val[:100], y_val=y_val[:100])
    expected = judged(some)
    rows = {"X_val": X_val, "y_val": y_val, "sample_weight_val": weight}
    assert judged(model.fit(X, y, **rows)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", ["f2", "u1", "i2", "f8"])
def test_two_named_classes_are_validated_in_any_dtype(dtype: str, digits: Arrays) -> None:
    X, y = digits
    names = np.where(y < 5, "low", "high")
    model = SoftmaxRegression(early_stopping=True, random_state=0, max_iter=5)
    model.fit(X.astype(dtype), names)
    held = HoldOut(0.1, 0).rows(0, len(y))
    best = model.evaluate(X[held].astype(dtype), names[held])
    assert min(judged(model)) == pytest.approx(best["log_loss"], rel=1e-6)


def test_validation_rows_may_lack_a_class_but_bring_no_new_one(
    halves: tuple[np.ndarray, ...],
) -> None:
    X, y, X_val, y_val = halves
    few = y_val < 3
    model = model_of("lbfgs", max_iter=3).fit(X, y, X_val=X_val[few], y_val=y_val[few])
    assert len(judged(model)) == 3
    with pytest.raises(DataError, match="in the validation data, y has the label 7 at row"):
        model_of("lbfgs").fit(X[y != 7], y[y != 7], X_val=X_val, y_val=y_val)


def test_one_validation_row_is_enough(halves: tuple[np.ndarray, ...]) -> None:
    X, y, X_val, y_val = halves
    model = model_of("lbfgs", max_iter=2).fit(X, y, X_val=X_val[:1], y_val=y_val[:1])
    assert len(judged(model)) == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"y_val": [1]}, "X_val is missing"),
        ({"sample_weight_val": [1]}, "X_val is missing"),
        ({"X_val": np.ones((2, 3))}, "y is missing: pass y_val with X_val"),
        ({"X_val": np.ones((2, 3)), "y_val": [0]}, "validation data, X has 2 rows but y has 1"),
        ({"X_val": np.ones((2, 4)), "y_val": [0, 1]}, "X has 4 features; expected 3, as in X"),
        ({"X_val": np.full((2, 3), np.nan), "y_val": [0, 1]}, "validation data, X has the value"),
        (
            {"X_val": np.ones((2, 3)), "y_val": [0, 1], "sample_weight_val": [0, 0]},
            "in the validation data, all weights are zero",
        ),
    ],
)
def test_validation_rows_that_cannot_be_used_are_refused(
    rows: dict[str, Any], message: str
) -> None:
    X = np.arange(12.0).reshape(4, 3)
    with pytest.raises(DataError, match=message):
        SoftmaxRegression().fit(X, [0, 1, 0, 1], **rows)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, np.nan, "some", None])
def test_an_invalid_validation_fraction_is_refused(fraction: Any) -> None:
    with pytest.raises(DataError, match="validation_fraction is"):
        SoftmaxRegression(validation_fraction=fraction).fit(np.eye(4), [0, 1, 0, 1])


def test_a_fraction_that_holds_out_nothing_is_refused() -> None:
    X, y = np.eye(4), np.array([0, 1, 0, 1])
    model = SoftmaxRegression(early_stopping=True, random_state=0, validation_fraction=1e-6)
    with pytest.raises(DataError, match=r"holds out no row that counts, of 4 rows .*X_val"):
        model.fit(X, y)


def test_a_class_that_would_have_no_training_row_keeps_all_its_rows() -> None:
    rng = np.random.default_rng(0)
    X, held = rng.normal(size=(300, 3)), HoldOut(0.5, 0).rows(0, 300)
    y = np.where(np.arange(300) % 2, "odd", "even")
    rare = np.flatnonzero(held)[:2]
    y[rare] = "rare"
    params = {"early_stopping": True, "random_state": 0, "validation_fraction": 0.5}
    model = SoftmaxRegression(**params, alpha=1e-2).fit(X, y)
    assert model.classes_.tolist() == ["even", "odd", "rare"]
    held[rare] = False
    own = model.evaluate(X[held], y[held])
    assert min(judged(model)) == pytest.approx(own["log_loss"], rel=1e-9)


def test_partial_fit_refuses_early_stopping() -> None:
    model = SoftmaxRegression(early_stopping=True)
    with pytest.raises(DataError, match=r"partial_fit makes one: look at model\.evaluate"):
        model.partial_fit(np.eye(4), [0, 1, 0, 1], classes=[0, 1])
