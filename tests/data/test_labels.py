"""Labels of every kind: compared exactly, missing where they say so, never matching nothing."""

from __future__ import annotations

import math
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dsoftmax import DataError, SoftmaxRegression, SoftmaxRegressionCV, open_data
from dsoftmax.objective.labels import UNKNOWN, codes_of, joined_labels

X = np.random.default_rng(0).normal(size=(40, 2))
CODES = (X[:, 0] > 0).astype(int)
STRINGS = np.array(["a", "b"])[CODES]
BIG = 2**53


def model(**params: Any) -> SoftmaxRegression:
    return SoftmaxRegression(alpha=0.1, **params)


def in_two_blocks(first: list[Any], second: list[Any]) -> Any:
    """Return labels as a Dask array of objects, of two blocks."""
    blocks = [da.from_array(np.array(part, dtype=object), chunks=20) for part in (first, second)]
    return da.concatenate(blocks)


MIXED: list[tuple[list[Any], list[Any], str]] = [
    ([0, 1] * 10, ["0", "1"] * 10, "int, str"),
    ([0, 1] * 10, [True, False] * 10, "bool, int"),
    ([0, 1] * 10, [0.0, 1.0] * 10, "float, int"),
    ([b"0", b"1"] * 10, ["0", "1"] * 10, "bytes, str"),
]


@pytest.mark.parametrize("cut", ["one task", "a task for each block", "in memory"])
@pytest.mark.parametrize(("first", "second", "types"), MIXED)
def test_labels_of_mixed_types_are_refused_however_the_tasks_fall(
    first: list[Any], second: list[Any], types: str, cut: str, request: pytest.FixtureRequest
) -> None:
    y = in_two_blocks(first, second)
    rows: Any = da.from_array(X, chunks=(20, 2))
    if cut == "a task for each block":
        request.getfixturevalue("small_spans")
    if cut == "in memory":
        y, rows = y.compute(), X
    with pytest.raises(DataError, match=f"y mixes labels of the types {types}; expected one type"):
        model().fit(rows, y)
    fitted = model().fit(X, np.array(first)[[0, 1] * 20])
    with pytest.raises(DataError, match=r"mixes labels of the types|of the type .* convert"):
        fitted.score(rows, y)


def test_objects_of_one_type_are_labels_whatever_their_class() -> None:
    y = in_two_blocks([np.int64(v) for v in CODES[:20]], CODES[20:].tolist())
    assert model().fit(X, y).classes_.tolist() == [0, 1]
    strings = np.array([np.str_(v) for v in STRINGS], dtype=object)
    assert model().fit(X, strings).classes_.tolist() == ["a", "b"]
    with pytest.raises(DataError, match=r"-1 to 18446744073709551615, which no dtype of NumPy"):
        model().fit(X, np.array([2**64 - 1, -1] * 20, dtype=object))


def test_integers_that_float64_cannot_tell_apart_are_different_labels() -> None:
    signed = np.array([BIG, BIG + 1], np.int64)
    y, unsigned = signed[CODES], signed.astype(np.uint64)
    fitted = model(classes=unsigned).fit(X, y)
    assert fitted.classes_.tolist() == [BIG, BIG + 1]
    accuracy = fitted.score(X, y)
    assert accuracy > 0.9
    assert fitted.score(X, y.astype(np.uint64)) == accuracy
    with pytest.warns(UserWarning, match=rf"{(CODES == 0).sum()} of 40 rows .*: {BIG - 1} "):
        assert fitted.score(X, y - 1) < 0.6
    fitted.fit(X, y, X_val=X, y_val=y.astype(np.uint64))
    with pytest.raises(DataError, match=f"in the validation data, y has the label {BIG + 2} at"):
        fitted.fit(X, y, X_val=X, y_val=y.astype(np.uint64) + np.uint64(1))
    part = model().partial_fit(X, y, classes=unsigned)
    part.partial_fit(X, y.astype(np.uint64), classes=signed)
    with pytest.raises(DataError, match=f"{BIG + 2}, but the earlier calls had {BIG}"):
        part.partial_fit(X, y, classes=[BIG, BIG + 2])
    with pytest.raises(DataError, match=r"classes holds the numbers -1 to .*, which no dtype"):
        model(classes=[-1, 2**63]).fit(X, y)
    with pytest.raises(DataError, match=r"of which NumPy makes '1', 'a'|makes 'a', '1'"):
        model(classes=["a", 1]).fit(X, y)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i8", "u8", "f4", "f8", "?"])
@pytest.mark.parametrize("other", ["i1", "u1", "i8", "u8", "f4", "f8", "?"])
def test_numbers_have_the_codes_that_python_gives_them(dtype: str, other: str) -> None:
    numbers = [0, 1, 2, 3, -1, 127, 200, 255, 2**24, 2**24 + 1, BIG, BIG + 1, 2**63 - 1, -(2**63)]
    numbers += [2**63, 2**64 - 1, 0.5, 2.0**64]

    def held(kind: str) -> np.ndarray:
        with np.errstate(all="ignore"):
            found = {v for v in numbers if fits(v, np.dtype(kind))}
        return np.array(sorted(found), dtype=kind)

    labels, classes = held(dtype), held(other)
    table = {value: code for code, value in enumerate(classes.tolist())}
    expected = [table.get(value, UNKNOWN) for value in labels.tolist()]
    assert codes_of("y", labels, classes).tolist() == expected


def fits(value: float, dtype: np.dtype[Any]) -> bool:
    """Whether a dtype holds a number exactly."""
    if dtype.kind == "b":
        return value in (0, 1)
    if dtype.kind == "f":
        return bool(dtype.type(value).item() == value)
    info = np.iinfo(dtype)
    return isinstance(value, int) and info.min <= value <= info.max


def test_labels_of_parts_are_joined_as_if_they_had_been_read_together() -> None:
    whole = joined_labels(np.array([1]), np.array([2**63], np.uint64))
    assert (whole.dtype, whole.tolist()) == (np.uint64, [1, 2**63])
    assert joined_labels(np.empty(0), np.array(["a"])).tolist() == ["a"]
    with pytest.raises(DataError, match="which no dtype"):
        joined_labels(np.array([-1]), np.array([2**63], np.uint64))


REFUSED: list[tuple[Any, Any, str]] = [
    (STRINGS, b"a", r"b'a', but y has labels of the type str"),
    (STRINGS.astype("S"), "a", r"'a', but y has labels of the type bytes"),
    (STRINGS, 1.0, "labels of the type str"),
    (CODES, "1", "labels of the type int"),
    (CODES.astype("u1"), -1, "-1, which y cannot hold, of dtype uint8"),
    (CODES.astype("u1"), 256, "256, which y cannot hold"),
    (CODES, 0.5, "0.5, which y cannot hold, of dtype int64"),
    (CODES > 0, 2, "2, which y cannot hold, of dtype bool"),
    (CODES.astype("f4"), BIG + 1, "which y cannot hold, of dtype float32"),
    (CODES, math.inf, "inf, which y cannot hold"),
]


@pytest.mark.parametrize(("y", "label", "said"), REFUSED)
def test_an_ignored_label_that_no_row_can_have_is_refused(y: Any, label: Any, said: str) -> None:
    with pytest.raises(DataError, match=f"ignore_label is .*{said}"):
        open_data(X, y, ignore_label=label)
    objects = da.from_array(y.astype(object), chunks=20)
    if type(label) is not type(y[0].item()):
        with pytest.raises(DataError, match=r"ignore_label is .*y "):
            model().fit(open_data(X, objects, ignore_label=label))


UNDERSTOOD: list[tuple[Any, Any]] = [
    (np.where(np.arange(40) < 3, 255, CODES).astype("u1"), 255.0),
    (np.where(np.arange(40) < 3, 255, CODES).astype("f4"), np.uint8(255)),
    (np.where(np.arange(40) < 3, "none", STRINGS), np.str_("none")),
    (np.where(np.arange(40) < 3, 1, CODES * 2), True),
    (np.where(np.arange(40) < 3, np.nan, CODES), np.float32("nan")),
    (np.where(np.arange(40) < 3, np.nan, CODES), pd.NA),
    (pd.Series([None] * 3 + STRINGS[3:].tolist(), dtype="string"), math.nan),
    (pd.Series(pd.Categorical([None] * 3 + STRINGS[3:].tolist())), math.nan),
    (np.where(np.arange(40) < 3, BIG + 1, CODES).astype("u8"), BIG + 1),
]


@pytest.mark.parametrize(("y", "label"), UNDERSTOOD)
def test_an_ignored_label_of_another_dtype_is_understood(y: Any, label: Any) -> None:
    with pytest.warns(UserWarning, match="3 of 40 rows are left out: 3 with the label"):
        fitted = model().fit(open_data(X, y, ignore_label=label))
    assert len(fitted.classes_) == 2


def test_an_ignored_label_is_compared_exactly() -> None:
    y = np.array([BIG, BIG + 1, 3], np.uint64)[np.arange(40) % 3]
    with pytest.warns(UserWarning, match="14 of 40 rows are left out"):
        fitted = model().fit(open_data(X, y, ignore_label=float(BIG)))
    assert fitted.classes_.tolist() == [3, BIG + 1]


def test_an_ignored_label_that_no_row_has_is_said() -> None:
    with pytest.warns(UserWarning, match=r"no row of the 40 rows has the label 254 \(ignore_label"):
        model().fit(open_data(X, CODES, ignore_label=254))
    model().fit(open_data(X, CODES, ignore_label=math.nan))  # which is for those that may be


GAPS: list[Any] = [
    [None, *STRINGS[1:].tolist()],
    np.array([math.nan, *STRINGS[1:].tolist()], dtype=object),
    np.array([None, *CODES[1:].tolist()], dtype=object),
    np.where(np.arange(40) == 0, np.nan, CODES),
    pd.Series([None, *CODES[1:].tolist()], dtype="Int64"),
    pd.Series([None, *(CODES[1:] > 0).tolist()], dtype="boolean"),
    pd.Series([None, *STRINGS[1:].tolist()], dtype="string"),
    pd.array([None, *CODES[1:].astype(float)], dtype="Float64"),
    pd.Categorical([None, *STRINGS[1:].tolist()]),
    pa.array([None, *CODES[1:].tolist()]),
    np.ma.masked_array(STRINGS.astype(object), np.arange(40) == 0),
    da.from_array(np.array([None, *STRINGS[1:].tolist()], dtype=object), chunks=10),
    pd.DataFrame({"y": pd.Categorical([None, *CODES[1:].tolist()])}),
]


@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
@pytest.mark.parametrize("y", GAPS, ids=lambda y: type(y).__name__)
def test_a_missing_label_is_one_whatever_it_is_called(y: Any) -> None:
    named = r"y has a missing label at row 0 .*open_data\(ignore_label=float\('nan'\)\)"
    whole = np.where(np.arange(40) == 0, CODES[1], CODES)
    calls = {
        "fit": lambda: model().fit(X, y),
        "X_val": lambda: model().fit(X, whole, X_val=X, y_val=y),
        "CV": lambda: SoftmaxRegressionCV(alphas=[1.0, 0.1], cv=2).fit(X, y),
        "partial_fit": lambda: model().partial_fit(X, y, classes=[0, 1]),
        "score": lambda: model().fit(X, whole).score(X, y),
    }
    for call in calls.values():
        with pytest.raises(DataError, match=named):
            call()
    with pytest.warns(UserWarning, match="1 of 40 rows are left out"):
        fitted = model().fit(open_data(X, y, missing="drop"))
    kind = np.asarray(["a"] if "b" in fitted.classes_.tolist() else [0]).dtype.kind
    assert fitted.classes_.dtype.kind in (kind, "b", "f")
    np.testing.assert_allclose(fitted.coef_, model().fit(X[1:], CODES[1:]).coef_, atol=1e-5)
