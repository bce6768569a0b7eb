"""A search has the guarantees of a fit: the same bits anywhere, and after any stop."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import CheckpointError, ChunkError, SoftmaxRegressionCV, open_data
from dsoftmax.events import CandidatesJudged, CheckpointWritten, PassEnded, RowsDone
from dsoftmax.model_selection import memory, sums
from dsoftmax.runtime.connect import local_workers
from tests.callbacks import Once, Recorder, StopAfter, StopError, kill_a_worker
from tests.model_selection.problems import scaled_features

Store = Callable[..., str]
Arrays = tuple[np.ndarray, np.ndarray]

JUDGES = tuple(array[:300] for array in load_digits(return_X_y=True))
PILOT: dict[str, Any] = {"alphas": 12, "cv": None}

pytestmark = pytest.mark.usefixtures("small_spans", "checkpoint_always", "quick_retries")


def found(path: str, **changes: Any) -> SoftmaxRegressionCV:
    params: dict[str, Any] = {
        "alphas": [1.0, 10.0],
        "cv": 2,
        "random_state": 0,
        "tol": 1e-2,
        "max_iter": 20,
        "sample_size": 300,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search = SoftmaxRegressionCV(**(params | changes))
        validation = {} if search.cv else {"X_val": JUDGES[0], "y_val": JUDGES[1]}
        return search.fit(f"{path}/X", f"{path}/y", **validation)


def stop_after(events: int, error: type[BaseException] = StopError) -> StopAfter:
    return StopAfter(events, error, (RowsDone, PassEnded, CheckpointWritten))


def bits(model: SoftmaxRegressionCV) -> tuple[bytes, ...]:
    losses = np.array([[record["loss"], record["gradient_norm"]] for record in model.history_])
    arrays = (model.coef_, model.coefs_paths_, model.scores_, model.objectives_, losses)
    return tuple(array.tobytes() for array in arrays)


@pytest.mark.slow
@pytest.mark.parametrize(
    "params", [{}, PILOT, {"solver": "lbfgs"}, {"l1_ratios": (0.0, 0.5)}], ids=str
)
def test_the_bits_of_a_search_do_not_depend_on_where_it_runs(
    path: str, params: dict[str, Any]
) -> None:
    expected = bits(found(path, **params))
    for workers in (1, 3):
        with local_workers(workers):
            assert bits(found(path, **params)) == expected


@pytest.mark.slow
def test_other_workers_and_a_killed_one_do_not_change_a_search(path: str) -> None:
    expected = bits(found(path))

    with local_workers(2) as client:
        kill = Once(PassEnded, lambda: kill_a_worker(client))
        assert bits(found(path, callbacks=[kill])) == expected
    assert kill.done


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "params"), [(None, {}), (2, {}), (None, PILOT)], ids=["one", "several", "pilot"]
)
def test_a_search_that_is_stopped_anywhere_goes_on_to_the_same_bits(
    path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    width: int | None,
    params: dict[str, Any],
) -> None:
    if width:
        monkeypatch.setattr(memory, "_STACK_BYTES", width * 8 * 65 * 10)
    expected = bits(found(path, **params))
    for events in (0, 30, 60):
        place = tmp_path / f"at-{events}"
        with pytest.raises(StopError):
            found(path, checkpoint=place, callbacks=[stop_after(events)], **params)
        assert bits(found(path, checkpoint=place, **params)) == expected


@pytest.mark.slow
def test_a_search_that_is_stopped_again_and_again_goes_on_to_the_same_bits(
    path: str, tmp_path: Path
) -> None:
    expected, stops = bits(found(path)), 0
    while True:
        try:
            model = found(path, checkpoint=tmp_path / "run", callbacks=[stop_after(25)])
            break
        except StopError:
            stops += 1
    assert stops > 5
    assert bits(model) == expected


def test_a_finished_search_is_returned_without_reading(path: str, tmp_path: Path) -> None:
    first = found(path, checkpoint=tmp_path / "run")
    again = found(path, checkpoint=tmp_path / "run", callbacks=[StopAfter(0, kinds=(RowsDone,))])
    assert bits(again) == bits(first)
    assert (again.n_iter_, again.stop_reason_) == (first.n_iter_, first.stop_reason_)


@pytest.mark.slow
def test_a_larger_budget_lets_a_search_go_on(path: str, tmp_path: Path) -> None:
    short = found(path, max_iter=2, checkpoint=tmp_path / "run", prune=False)
    assert short.n_iter_ == 2
    assert "budget" in short.stop_reason_
    assert not short.converged_.any()
    long = found(path, max_iter=40, checkpoint=tmp_path / "run", prune=False)
    assert bits(long)[:4] == bits(found(path, max_iter=40, prune=False))[:4]


def test_a_search_and_a_fit_do_not_share_a_checkpoint(path: str, tmp_path: Path) -> None:
    found(path, max_iter=2, checkpoint=tmp_path / "run")
    with pytest.raises(CheckpointError, match="alphas was"):
        found(path, alphas=5, checkpoint=tmp_path / "run")


def test_ctrl_c_returns_the_best_so_far(path: str) -> None:
    model = found(path, callbacks=[stop_after(25, KeyboardInterrupt)])
    assert "interrupted" in model.stop_reason_
    assert np.isfinite(model.coef_).all()
    assert model.score(f"{path}/X", f"{path}/y") > 0.5


def test_a_search_goes_on_without_a_chunk_that_cannot_be_read(path: str) -> None:
    (Path(path) / "X" / "c" / "3" / "0").write_bytes(b"damaged")
    source = open_data(f"{path}/X", f"{path}/y", on_bad_chunk="skip", max_bad_chunks=1)
    with pytest.warns(UserWarning, match="1 chunks of X, 97 rows, cannot be read"):
        model = SoftmaxRegressionCV(alphas=3, cv=3, random_state=0, max_iter=20).fit(source)
    assert [bad["start"] for bad in model.quarantined_] == [3 * 97]
    assert model.n_iter_ <= 20
    with pytest.raises(ChunkError):
        found(path)


def test_candidates_that_cannot_win_leave_and_the_winner_is_the_same(store: Store) -> None:
    X, y = scaled_features(3, rows=20_000)
    path, judged = store(rows=1000, X=X.astype("f4"), y=y), Recorder(CandidatesJudged)

    pruned = found(path, alphas=8, callbacks=[judged])
    whole = found(path, alphas=8, prune=False)
    assert pruned.alpha_ == whole.alpha_
    assert whole.converged_.all()
    assert not pruned.converged_.all()
    running = [sum(event.running) for event in judged.events]
    assert running == sorted(running, reverse=True)
    (won,) = np.flatnonzero(pruned.alphas_ == pruned.alpha_)
    assert pruned.converged_[:, 0, won].all()
    # What was ruled out is no further from where it would have ended than what rules it out.
    np.testing.assert_allclose(pruned.scores_, whole.scores_, atol=0.02)


@pytest.mark.slow
def test_several_reads_a_round_find_what_one_finds(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    params: dict[str, Any] = {"alphas": [0.1, 1.0, 10.0], "tol": 1e-6, "sample_size": 1000}
    one = found(path, max_iter=60, prune=False, **params)
    monkeypatch.setattr(memory, "_STACK_BYTES", 2 * 8 * 65 * 10)
    several = found(path, max_iter=200, prune=False, **params)
    assert several.n_iter_ > 1.5 * one.n_iter_
    np.testing.assert_allclose(several.objectives_, one.objectives_, rtol=1e-6)
    np.testing.assert_allclose(several.scores_, one.scores_, rtol=1e-4)


@pytest.mark.slow
def test_how_many_rows_are_at_hand_at_once_changes_no_model(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    params: dict[str, Any] = {"alphas": [1.0, 10.0], "prune": False, "tol": 1e-5}
    whole = found(path, **params)
    monkeypatch.setattr(sums, "MOST_LOSSES", 1)
    monkeypatch.setattr(sums, "FEWEST_ROWS", 7)
    parts = found(path, **params)
    np.testing.assert_allclose(parts.objectives_, whole.objectives_, rtol=1e-6)
    np.testing.assert_allclose(parts.scores_, whole.scores_, rtol=1e-3)
