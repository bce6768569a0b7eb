from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import dsoftmax
from dsoftmax import CheckpointError, DataError, SoftmaxRegression, load_model
from dsoftmax.storage import model_file
from tests.storage.states import damaged

X, Y = np.array([[0.0, 1], [1, 0], [1, 1], [0, 0]]), np.array([0, 1, 1, 0])


@pytest.mark.parametrize("labels", [["no", "yes"], [3, 70], [False, True]])
@pytest.mark.parametrize("class_weight", [None, "balanced", "dict"])
def test_a_loaded_model_is_the_saved_one(
    tmp_path: Path, labels: list[Any], class_weight: Any
) -> None:
    if class_weight == "dict":
        class_weight = {labels[0]: 2.0}
    model = SoftmaxRegression(class_weight=class_weight, classes=labels, random_state=4)
    model.fit(X, np.array(labels)[Y]).save(tmp_path / "m.zarr")
    again = load_model(tmp_path / "m.zarr")
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.get_params() == model.get_params()
    assert again.history_ == model.history_
    assert (again.loss_, again.stop_reason_, again.n_iter_) == (
        model.loss_,
        model.stop_reason_,
        model.n_iter_,
    )
    again.save(tmp_path / "again.zarr")
    again.fit(X, np.array(labels)[Y])


@pytest.mark.parametrize("dtype", ["U9", ">i4", ">f8", "f2"])
def test_labels_of_any_width_and_byte_order_are_loaded(tmp_path: Path, dtype: str) -> None:
    model = SoftmaxRegression().fit(X, Y.astype(dtype))
    model.save(tmp_path / "m.zarr")
    again = load_model(tmp_path / "m.zarr")
    assert again.predict(X).tolist() == model.predict(X).tolist()


def test_feature_names_are_kept(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame(X, columns=["width", "height"])
    SoftmaxRegression().fit(frame, Y).save(tmp_path / "m.zarr")
    again = load_model(tmp_path / "m.zarr")
    assert list(again.feature_names_in_) == ["width", "height"]
    again.predict(frame)
    with pytest.raises(ValueError, match="feature names"):
        again.predict(frame[["height", "width"]])


def test_a_model_can_be_read_without_dsoftmax(tmp_path: Path) -> None:
    model = SoftmaxRegression().fit(X, Y)
    model.save(tmp_path / "m.zarr")
    group = zarr.open_group(tmp_path / "m.zarr", mode="r")
    z = X @ group["coef_"][:].T + group["intercept_"][:]  # type: ignore[index]
    np.testing.assert_array_equal(
        group["classes_"][:][(z[:, 0] > 0).astype(int)],  # type: ignore[index]
        model.predict(X),
    )
    json.dumps(dict(group.attrs))


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a file says, and sign it anew."""
    group = zarr.open_group(path)
    content: Any = dict(group.attrs["dsoftmax"])  # type: ignore[arg-type]
    del content["sha256"]
    change(content)
    arrays = {name: model_file._storable(np.asarray(array[...])) for name, array in group.arrays()}
    group.attrs["dsoftmax"] = content | {"sha256": model_file._content_digest(content, arrays)}


def test_it_tells_what_it_was_made_from_and_with(tmp_path: Path) -> None:
    model = SoftmaxRegression().fit(X, Y)
    model.save(tmp_path / "m.zarr")
    again = load_model(tmp_path / "m.zarr")
    assert again.data_ == model.data_
    assert again.numerics_ == model.numerics_
    assert again.data_["X"].startswith("(4, 2) float64 in 1 chunks")
    other = SoftmaxRegression().fit(X, 1 - Y)
    assert other.data_["labels"] == model.data_["labels"]  # two rows of each, as before
    assert SoftmaxRegression().fit(X, [0, 1, 1, 1]).data_["labels"] != model.data_["labels"]
    about: Any = zarr.open_group(tmp_path / "m.zarr").attrs["dsoftmax"]
    assert about["versions"]["dsoftmax"] == dsoftmax.__version__
    assert about["versions"]["numpy"] == np.__version__


def test_a_file_of_an_earlier_version_is_loaded(tmp_path: Path) -> None:
    model = SoftmaxRegression(alpha=0.5).fit(X, Y)
    model.save(tmp_path / "m.zarr")

    def age(content: dict[str, Any]) -> None:
        del content["versions"], content["params"]["clip_norm"]
        for name in ("data_", "numerics_", "quarantined_"):
            del content["facts"][name]

    rewritten(tmp_path / "m.zarr", age)
    again = load_model(tmp_path / "m.zarr")
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.get_params() == model.get_params()
    again.save(tmp_path / "again.zarr")


def test_a_file_of_a_later_version_is_refused_by_what_is_new_in_it(tmp_path: Path) -> None:
    SoftmaxRegression().fit(X, Y).save(tmp_path / "m.zarr")

    def come_from_the_future(content: dict[str, Any]) -> None:
        content["versions"]["dsoftmax"] = "9.1"
        content["params"]["group_lasso"] = 0.5

    rewritten(tmp_path / "m.zarr", come_from_the_future)
    with pytest.raises(CheckpointError, match=r"by dsoftmax 9\.1, with parameters.*group_lasso"):
        load_model(tmp_path / "m.zarr")


def test_a_model_is_never_overwritten_unasked(tmp_path: Path) -> None:
    model = SoftmaxRegression().fit(X, Y)
    model.save(tmp_path / "m.zarr")
    with pytest.raises(DataError, match="already holds"):
        model.save(tmp_path / "m.zarr")
    model.save(tmp_path / "m.zarr", overwrite=True)
    (tmp_path / "notes").mkdir()
    with pytest.raises(DataError, match="never replaced"):
        model.save(tmp_path / "notes", overwrite=True)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "array.zarr", data=X)
    zarr.open_group(tmp_path / "group.zarr", mode="w")
    for name in ("nothing.zarr", "array.zarr", "group.zarr"):
        with pytest.raises(CheckpointError, match=f"{name} is not a readable model"):
            load_model(tmp_path / name)


def test_another_format_is_refused_by_its_number(tmp_path: Path) -> None:
    SoftmaxRegression().fit(X, Y).save(tmp_path / "m.zarr")
    meta = tmp_path / "m.zarr" / "zarr.json"
    meta.write_text(meta.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(CheckpointError, match=r"format 99, .* the version that wrote it \(0"):
        load_model(tmp_path / "m.zarr")


@pytest.mark.slow
def test_a_damaged_model_is_never_loaded_as_another(tmp_path: Path) -> None:
    model = SoftmaxRegression().fit(X, Y)
    path = tmp_path / "m.zarr"
    model.save(path)
    rng = np.random.default_rng(0)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    for _ in range(1000):
        file = files[int(rng.integers(len(files)))]
        intact = file.read_bytes()
        file.write_bytes(damaged(intact, rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # zarr on metadata it does not know
                again = load_model(path)
        except CheckpointError:
            pass
        else:  # a blank in JSON, say
            np.testing.assert_array_equal(again.coef_, model.coef_)
            np.testing.assert_array_equal(again.classes_, model.classes_)
            np.testing.assert_array_equal(again.intercept_, model.intercept_)
            assert again.get_params() == model.get_params()
            assert again.history_ == model.history_
        file.write_bytes(intact)


def test_the_file_of_a_diverged_model_is_strict_json(tmp_path: Path) -> None:
    model = SoftmaxRegression().fit(X, Y)
    model.history_[0]["loss"] = float("inf")
    model.save(tmp_path / "m.zarr")

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads((tmp_path / "m.zarr" / "zarr.json").read_text(), parse_constant=refuse)
    assert load_model(tmp_path / "m.zarr").history_[0]["loss"] is None
