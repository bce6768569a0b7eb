from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dsoftmax.data.ingest import tables
from dsoftmax.data.ingest.ingestion import ingest
from dsoftmax.errors import DataError, DsoftmaxError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pacsv = pytest.importorskip("pyarrow.csv")

Save = Callable[..., Path]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "data.zarr"


@pytest.fixture(params=["csv", "parquet"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Save:
    """Save columns as a table of either kind."""

    def save_table(**columns: Any) -> Path:
        path = tmp_path / f"table.{request.param}"
        table = pa.table(columns)
        (pacsv.write_csv if request.param == "csv" else pq.write_table)(table, path)
        return path

    return save_table


@pytest.fixture
def save_parquet(tmp_path: Path) -> Save:
    def save_table(**columns: Any) -> Path:
        pq.write_table(pa.table(columns), tmp_path / "table.parquet")
        return tmp_path / "table.parquet"

    return save_table


@pytest.fixture
def save_text(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def save_lines(text: str | bytes) -> Path:
        path = tmp_path / "table.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return save_lines


def held(store: Path) -> tuple[np.ndarray, list[Any]]:
    group = zarr.open_group(store, mode="r")
    return group["X"][:], group["y"][:].tolist()


def assert_nothing_left(out: Path) -> None:
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    "labels", [[3, 1, 2], ["deer", "été", "x" * 99], [True, False, True]], ids=repr
)
def test_labels_of_any_type_and_all_other_columns_are_kept_in_order(
    save: Save, out: Path, labels: list[Any]
) -> None:
    ingest(
        save(b=[1.5, 2.5, 3.5], label=labels, a=[1, 2, 3], c=[True, False, True]), out, y="label"
    )
    X, y = held(out)
    assert X.tolist() == [[1.5, 1, 1], [2.5, 2, 0], [3.5, 3, 1]]
    assert y == labels
    assert zarr.open_array(out / "X", mode="r").attrs["feature_names"] == ["b", "a", "c"]


@pytest.mark.parametrize("x", [["c", "a"], "c,a"])
def test_columns_can_be_chosen_and_ordered(save: Save, out: Path, x: Any) -> None:
    ingest(save(a=[1, 2], b=["not", "used"], c=[3, 4], y=[0, 1]), out, x=x, y="y")
    assert held(out)[0].tolist() == [[3, 1], [4, 2]]
    assert zarr.open_array(out / "X", mode="r").attrs["feature_names"] == ["c", "a"]


@pytest.mark.parametrize("rows", [1, 19, 20, 21])
@pytest.mark.parametrize("columns", [1, 3])
def test_any_number_of_rows_and_columns_survives(
    save: Save, out: Path, rows: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_BLOCK_BYTES", 64)
    X = np.arange(rows * columns).reshape(rows, columns)
    table = {f"f{place}": X[:, place] for place in range(columns)}
    ingest(save(**table, y=np.arange(rows)), out, y="y", chunk_rows=10)
    got, y = held(out)
    np.testing.assert_array_equal(got, X)
    assert y == list(range(rows))


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (["u1", "u1"], "u1"),
        (["?", "?"], "?"),
        (["u1", "i1"], "i2"),
        (["f2", "u1"], "f2"),
        (["f4", "i4"], "f8"),
        (["?", "f4"], "f4"),
    ],
)
def test_mixed_types_are_promoted_as_numpy_does(
    save_parquet: Save, out: Path, dtypes: list[str], expected: str
) -> None:
    columns = {f"f{place}": np.ones(3, dtype) for place, dtype in enumerate(dtypes)}
    ingest(save_parquet(**columns, y=[1, 2, 3]), out, y="y")
    X = zarr.open_array(out / "X", mode="r")
    assert X.dtype == expected
    assert np.all(X[:] == 1)


@pytest.mark.parametrize(
    ("labels", "plain"),
    [
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array([7, 5, 7], "int16").dictionary_encode(), [7, 5, 7]),
        (pa.array(["a", "b", "a"], pa.large_string()), ["a", "b", "a"]),
        (pa.array(["a", "b", "a"], pa.string_view()), ["a", "b", "a"]),
        (pa.array([1, 2, 3], "uint8"), [1, 2, 3]),
    ],
    ids=["categories", "integer categories", "large strings", "string views", "uint8"],
)
def test_categories_become_what_they_stand_for(
    save_parquet: Save, out: Path, labels: Any, plain: list[Any]
) -> None:
    ingest(save_parquet(a=[1, 2, 3], y=labels), out, y="y")
    assert held(out)[1] == plain


@pytest.mark.parametrize(
    "column",
    [
        pa.array([datetime.date(2026, 1, 1)] * 3),
        pa.array([datetime.datetime(2026, 1, 1)] * 3),
        pa.array([Decimal("1.5")] * 3),
        pa.array([b"a"] * 3),
        pa.array([[1]] * 3),
        pa.nulls(3),
    ],
    ids=lambda column: str(column.type),
)
def test_columns_of_other_types_are_refused(save_parquet: Save, out: Path, column: Any) -> None:
    plain = [1, 2, 3]
    with pytest.raises(DataError, match=r"column 'y' is of type .*; expected integers, strings or"):
        ingest(save_parquet(a=plain, y=column), out, y="y")
    with pytest.raises(DataError, match=r"column 'a' is of type .*; expected numbers or booleans"):
        ingest(save_parquet(a=column, y=plain), out, y="y")
    assert_nothing_left(out)


def test_a_column_of_strings_is_no_feature(save: Save, out: Path) -> None:
    with pytest.raises(DataError, match=r"column 'a' is of type string.*name the columns of x"):
        ingest(save(a=["u", "v"], y=[1, 2]), out, y="y")


@pytest.mark.parametrize("missing", ["a", "b", "y"])
def test_a_missing_value_is_named_by_column_and_row(
    save: Save, out: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_BLOCK_BYTES", 128)
    columns: dict[str, list[Any]] = {"a": [1] * 80, "b": [0.5] * 80, "y": ["u"] * 80}
    columns[missing][70] = None
    with pytest.raises(DataError, match=rf"table\.\w+: column '{missing}' has no value at row 70"):
        ingest(save(**columns), out, y="y")
    assert_nothing_left(out)


def test_an_explicit_nan_is_kept(save: Save, out: Path) -> None:
    ingest(save(a=[1.0, float("nan"), float("inf")], y=[0, 1, 2]), out, y="y")
    np.testing.assert_array_equal(held(out)[0][:, 0], [1, np.nan, np.inf])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({}, r"the columns a, b, y; got x=\['a', 'b', 'y'\], y=None"),
        ({"y": "label"}, "y='label', expected names of these"),
        ({"y": "y", "x": ["a", "c"]}, r"got x=\['a', 'c'\]"),
        ({"y": "y", "x": []}, "x of one feature or more"),
        ({"y": "y", "x": ["a", "y"]}, "'y' is there twice, or asked for twice"),
        ({"y": "y", "x": "a,a"}, "'a' is there twice, or asked for twice"),
        ({"y": "y", "labels": "y.npy"}, "labels to be another"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    save: Save, out: Path, names: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        ingest(save(a=[1, 2], b=[1, 2], y=[1, 2]), out, **names)
    assert_nothing_left(out)


def test_columns_of_the_same_name_are_refused_where_they_are_used(
    tmp_path: Path, out: Path
) -> None:
    table = pa.Table.from_arrays([pa.array([1, 2])] * 4, names=["a", "a", "b", "y"])
    pq.write_table(table, tmp_path / "table.parquet")
    pacsv.write_csv(table, tmp_path / "table.csv")
    for suffix in ("csv", "parquet"):
        with pytest.raises(DataError, match="'a' is there twice"):
            ingest(tmp_path / f"table.{suffix}", out, y="y", overwrite=True)
        ingest(tmp_path / f"table.{suffix}", out, x="b", y="y", overwrite=True)
        assert held(out)[0].tolist() == [[1], [2]]


def test_a_table_without_features_is_refused(save: Save, out: Path) -> None:
    with pytest.raises(DataError, match="x of one feature or more"):
        ingest(save(y=[1, 2]), out, y="y")


def test_a_table_without_rows_is_refused(save_parquet: Save, save_text: Save, out: Path) -> None:
    empty = pa.array([], "int64")
    for path in (save_parquet(a=empty, y=empty), save_text("a,y\n"), save_text("")):
        with pytest.raises(DataError, match=r"no rows|of type null|Empty CSV"):
            ingest(path, out, y="y")
    assert_nothing_left(out)


BAD_LINES = {
    "a number that is none": ("1,NA,u", r"column 'b': row 50: .*invalid value 'NA'"),
    "a float among integers": ("1.5,2,u", r"column 'a': row 50: .*int64: invalid value '1.5'"),
    "too few fields": ("1,2", r"row 50: Expected 3 columns, got 2: 1,2;"),
    "too many fields": ("1,2,u,3", r"row 50: Expected 3 columns, got 4: 1,2,u,3;"),
    "not UTF-8": (b"1,2,\xff", r"column 'y': row 50: .*UTF8"),
    "longer than a block": ("1,2," + "u" * 500, "block size"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_of_a_csv_file_is_named(
    save_text: Save, out: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_BLOCK_BYTES", 128)
    line, message = BAD_LINES[case]
    bad = line.encode() if isinstance(line, str) else line
    path = save_text(b"a,b,y\n" + b"1,2,u\n" * 50 + bad + b"\n" + b"1,2,u\n" * 50)
    with pytest.raises(DataError, match=message):
        ingest(path, out, y="y")
    assert_nothing_left(out)


def test_fields_of_a_csv_file_are_read_as_they_are_written(save_text: Save, out: Path) -> None:
    ingest(save_text('\ufeff"a, b",y\r\n1,""\r\n\r\n2,"x, ""y"""\r\n3,NA\r\n'), out, y="y")
    assert held(out)[1] == ["", 'x, "y"', "NA"]
    assert zarr.open_array(out / "X", mode="r").attrs["feature_names"] == ["a, b"]


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.999])
def test_a_truncated_parquet_file_is_refused(save_parquet: Save, out: Path, kept: float) -> None:
    path = save_parquet(a=np.arange(1000), y=np.arange(1000))
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(DataError, match=r"table\.parquet cannot be read as Parquet: .*copy"):
        ingest(path, out, y="y")
    assert_nothing_left(out)


def test_a_damaged_page_of_a_parquet_file_leaves_nothing_behind(
    save_parquet: Save, out: Path
) -> None:
    path = save_parquet(a=np.random.default_rng(0).random(1000), y=np.arange(1000))
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        ingest(path, out, y="y")
    assert_nothing_left(out)


def test_a_folder_of_parquet_files_is_read_in_the_order_of_names(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    for name in ("b", "a", "c"):
        pq.write_table(pa.table({"x": [ord(name)], "y": [name]}), folder / f"{name}.parquet")
    ingest(folder, out, y="y")
    X, y = held(out)
    assert X[:, 0].tolist() == [97, 98, 99]
    assert y == ["a", "b", "c"]


@pytest.mark.parametrize("other", [{"x": [1.5], "y": ["a"]}, {"x": [1], "z": [1], "y": ["a"]}])
def test_a_folder_of_unlike_parquet_files_is_refused(
    tmp_path: Path, out: Path, other: dict[str, Any]
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    pq.write_table(pa.table({"x": [1], "y": ["a"]}), folder / "a.parquet")
    pq.write_table(pa.table(other), folder / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet has other columns than .*a\.parquet"):
        ingest(folder, out, y="y")
    assert_nothing_left(out)


def test_the_index_of_pandas_is_no_feature(tmp_path: Path, out: Path) -> None:
    pd = pytest.importorskip("pandas")
    path = tmp_path / "table.parquet"
    frame = pd.DataFrame({"a": [1, 2, 3], "y": pd.Categorical(["u", "v", "u"])})
    frame.iloc[[1, 2, 0]].to_parquet(path)
    with pytest.raises(DataError, match="'__index_level_0__' is the index that pandas saved"):
        ingest(path, out, y="y")
    ingest(path, out, x="a", y="y")
    assert held(out)[1] == ["v", "u", "u"]


def test_absent_tables_are_not_found(tmp_path: Path, out: Path) -> None:
    for name in ("absent.csv", "absent.parquet"):
        with pytest.raises(FileNotFoundError):
            ingest(tmp_path / name, out, y="y")


def test_without_pyarrow_the_remedy_is_named(
    save: Save, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    with pytest.raises(DsoftmaxError, match=r"pip install dsoftmax\[tables\]"):
        ingest(save(a=[1], y=[1]), out, y="y")
