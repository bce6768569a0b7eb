"""Every kind of store, array, dtype and label gives the model of the same numbers in NumPy."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import dask
import dask.array as da
import numpy as np
import obstore.store
import pytest
import xarray as xr
import zarr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec
from zarr.storage import MemoryStore, ObjectStore, ZipStore

from dsoftmax import SoftmaxRegression, inspect_data, open_data
from tests.object_store import Bucket

ROWS, FEATURES = 60, 5
EXAMPLES = int(os.environ.get("DSOFTMAX_EXAMPLES", "25"))


class Place(NamedTuple):
    folder: Path
    bucket: Bucket | None


Form = Callable[[Place, str, np.ndarray], Any]


def written(where: Any, values: np.ndarray, **options: Any) -> zarr.Array[Any]:
    """Write a Zarr array in chunks of 13 rows, unless the options say otherwise."""
    dtype = "string" if values.dtype.kind == "U" else values.dtype
    chunks = options.pop("chunks", (13, *values.shape[1:]))
    array = zarr.create_array(
        where,
        shape=values.shape,
        dtype=dtype,
        chunks=chunks,
        **options,
        config={"write_empty_chunks": True},
    )
    array[...] = values
    return array


def stored(**options: Any) -> Form:
    def form(place: Place, name: str, values: np.ndarray) -> str:
        written(place.folder / name, values, **options)
        return str(place.folder / name)

    return form


def cut(rows: int, features: int | None = None) -> Form:
    def form(place: Place, name: str, values: np.ndarray) -> str:
        tail = values.shape[1:] if features is None else (features,)[: values.ndim - 1]
        written(place.folder / name, values, chunks=(rows, *tail))
        return str(place.folder / name)

    return form


def sharded(place: Place, name: str, values: np.ndarray) -> str:
    tail = values.shape[1:]
    written(place.folder / name, values, chunks=(8, *tail), shards=(24, *tail))
    return str(place.folder / name)


def in_a_group(place: Place, name: str, values: np.ndarray) -> Path:
    group = zarr.open_group(place.folder / "data.zarr", mode="a")
    written(group.store_path, values, name=f"deep/{name}")
    return place.folder / "data.zarr" / "deep" / name


def zipped(place: Place, name: str, values: np.ndarray) -> str:
    with ZipStore(place.folder / f"{name}.zip", mode="w") as store:
        written(store, values, name=f"in/{name}")
    return f"{place.folder}/{name}.zip/in/{name}"


def open_zip(place: Place, name: str, values: np.ndarray) -> Any:
    zipped(place, name, values)
    store = ZipStore(place.folder / f"{name}.zip", mode="r")
    return zarr.open_array(store, path=f"in/{name}", mode="r")


def memory_url(place: Place, name: str, values: np.ndarray) -> str:
    url = f"memory://{uuid4().hex}/{name}"
    written(url, values)
    return url


def at_s3(place: Place, name: str, values: np.ndarray) -> str:
    assert place.bucket is not None
    url, options = f"{place.bucket.url}/{name}", place.bucket.options
    written(url, values, chunks=(40, *values.shape[1:]), storage_options=options)
    return f"{place.bucket.url}/{name}"


def open_s3(place: Place, name: str, values: np.ndarray) -> Any:
    assert place.bucket is not None
    url = at_s3(place, name, values)
    return zarr.open_array(url, mode="r", storage_options=place.bucket.options)


def by_obstore(place: Place, name: str, values: np.ndarray) -> Any:
    assert place.bucket is not None
    at_s3(place, name, values)
    options = place.bucket.options
    store = obstore.store.S3Store(
        place.bucket.url.removeprefix("s3://"),
        prefix=name,
        endpoint=options["endpoint_url"],
        access_key_id=options["key"],
        secret_access_key=options["secret"],
        client_options={"allow_http": True},
    )
    return zarr.open_array(ObjectStore(store, read_only=True), mode="r")


def mapped(place: Place, name: str, values: np.ndarray) -> Any:
    values.tofile(place.folder / name)
    return np.memmap(place.folder / name, values.dtype, "r", shape=values.shape)


def part_of_a_map(place: Place, name: str, values: np.ndarray) -> Any:
    np.save(place.folder / f"{name}.npy", np.concatenate([values[:7], values]))
    return np.load(place.folder / f"{name}.npy", mmap_mode="r")[7:]


def data_array(values: Any) -> Any:
    return xr.DataArray(values, dims=("sample", "feature")[: values.ndim])


def xarray_of_a_file(place: Place, name: str, values: np.ndarray) -> Any:
    if values.dtype.kind == "U":  # xarray writes strings in a way that Zarr warns of
        return data_array(values)
    path = place.folder / f"{name}.xarray"
    xr.Dataset({name: data_array(values)}).to_zarr(path, consolidated=False)
    return xr.open_zarr(path, consolidated=False, chunks=None)[name]


FORMS: dict[str, Form] = {
    "format 3": stored(),
    "format 2": stored(zarr_format=2),
    "sharded": sharded,
    "cut along features": cut(13, 2),
    "one giant chunk": cut(1000),
    "tiny chunks": cut(5),
    "uncompressed": stored(compressors=None),
    "gzip": stored(compressors=GzipCodec()),
    "blosc": stored(compressors=BloscCodec()),
    "checksums": stored(compressors=[ZstdCodec(checksum=True), Crc32cCodec()]),
    "in a group": in_a_group,
    "file url": lambda place, name, values: f"file://{stored()(place, name, values)}",
    "open array": lambda place, name, values: written(place.folder / name, values),
    "zip": zipped,
    "open zip": open_zip,
    "memory url": memory_url,
    "in memory": lambda place, name, values: written(MemoryStore(), values),
    "numpy": lambda place, name, values: values,
    "fortran": lambda place, name, values: np.asfortranarray(values),
    "list": lambda place, name, values: values.tolist(),
    "dask": lambda place, name, values: da.from_array(values, chunks=17),
    "dask of zarr": lambda place, name, values: da.from_zarr(stored()(place, name, values)),
    "memmap": mapped,
    "part of a memmap": part_of_a_map,
    "xarray": lambda place, name, values: data_array(values),
    "xarray of dask": lambda place, name, values: data_array(da.from_array(values, chunks=17)),
    "xarray of a file": xarray_of_a_file,
}
REMOTE: dict[str, Form] = {"s3": at_s3, "open s3": open_s3, "obstore": by_obstore}

LABELS: dict[str, np.ndarray] = {
    "integers": np.array([0, 1, 2]),
    "negative and far apart": np.array([-7, 3, 100_000]),
    "bytes": np.array([3, 0, 255], "u1"),
    "big-endian": np.array([5, 300, -1], ">i4"),
    "booleans": np.array([True, False]),
    "strings": np.array(["b", "a", "cccc"]),
    "whole floats": np.array([0.0, 2.0, 1e9]),
}
DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", ">f8", ">i2"]


@lru_cache
def numbers(dtype: str, labels: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, len(LABELS[labels]), ROWS)
    X = rng.integers(0, 30, (ROWS, FEATURES)) + 12 * (codes[:, None] == np.arange(FEATURES))
    X = X > 20 if dtype == "?" else X.astype(dtype)
    return X, LABELS[labels][codes], rng.integers(0, 3, ROWS).astype("f4")


def fitted(X: Any, y: Any, weight: Any = None, **options: Any) -> SoftmaxRegression:
    source = open_data(X, y, weight, dtype="float64", **options)
    return SoftmaxRegression(alpha=10, tol=1e-8, max_iter=1000).fit(source)


@lru_cache
def expected(dtype: str, labels: str) -> SoftmaxRegression:
    X, y, weight = numbers(dtype, labels)
    return fitted(X.astype("f8"), y, weight)


def assert_same(model: SoftmaxRegression, other: SoftmaxRegression) -> None:
    assert model.classes_.tolist() == other.classes_.tolist()
    np.testing.assert_allclose(model.coef_, other.coef_, atol=1e-6)
    np.testing.assert_allclose(model.intercept_, other.intercept_, atol=1e-6)


def assert_read_alike(form: Form, place: Place, dtype: str, labels: str) -> None:
    named = zip(("X", "y", "w"), numbers(dtype, labels), strict=True)
    X, y, weight = (form(place, name, values) for name, values in named)
    model = fitted(X, y, weight)
    assert_same(model, expected(dtype, labels))
    predicted = model.predict(X)
    assert np.asarray(predicted).tolist() == model.predict(numbers(dtype, labels)[0]).tolist()
    assert model.score(X, y, weight) == pytest.approx(model.score(*numbers(dtype, labels)))


def turns() -> Iterator[tuple[str, str, str]]:
    """Yield pairs of dtypes and labels in turn: all for three forms, three for each other."""
    dtypes, labels = cycle(DTYPES), cycle(LABELS)
    for form in FORMS:
        count = len(DTYPES) if form in ("format 3", "numpy", "dask") else 3
        yield from ((form, next(dtypes), next(labels)) for _ in range(count))


@pytest.mark.parametrize(("form", "dtype", "labels"), list(turns()))
def test_every_store_array_dtype_and_label_is_read_as_its_numbers(
    form: str, dtype: str, labels: str, tmp_path: Path
) -> None:
    assert_read_alike(FORMS[form], Place(tmp_path, None), dtype, labels)


@pytest.mark.parametrize(("dtype", "labels"), [("u1", "strings"), ("f4", "booleans")])
@pytest.mark.parametrize("form", REMOTE)
def test_a_store_at_s3_is_read_as_its_numbers(
    form: str, dtype: str, labels: str, tmp_path: Path, bucket: Bucket
) -> None:
    assert_read_alike(REMOTE[form], Place(tmp_path, bucket), dtype, labels)


def test_labels_of_fixed_length_bytes_are_labels() -> None:
    X, y, _ = numbers("f8", "strings")
    assert fitted(X, y.astype("S4")).classes_.tolist() == [b"a", b"b", b"cccc"]


SHAPE = (4, 5, 3)

CUBES: dict[str, Form] = {
    "whole": stored(chunks=(4, 5, 3, FEATURES)),
    "one axis": stored(chunks=(1, 5, 3, FEATURES)),
    "all axes": stored(chunks=(3, 2, 2, 2)),
    "format 2": stored(chunks=(2, 5, 2, 4), zarr_format=2),
    "sharded": stored(chunks=(1, 2, 3, FEATURES), shards=(2, 4, 3, FEATURES)),
    "numpy": lambda place, name, values: values,
    "dask": lambda place, name, values: da.from_array(values, chunks=((1, 3), (2, 3), 2, 2)),
    "memmap": mapped,
    "xarray": lambda place, name, values: xr.DataArray(values, dims=("t", "y", "x", "band")),
}
MASKS: dict[str, Form] = {
    "numpy": lambda place, name, values: values,
    "otherwise cut": stored(chunks=(4, 1, 2)),
    "dask": lambda place, name, values: da.from_array(values, chunks=((3, 1), 3, 3)),
    "memmap": mapped,
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("cube", CUBES)
def test_samples_may_lie_along_several_axes(cube: str, mask: str, tmp_path: Path) -> None:
    X, y, weight = numbers("f8", "negative and far apart")
    place = Place(tmp_path, None)
    cubic = CUBES[cube](place, "X", X.reshape(*SHAPE, FEATURES))
    labels = MASKS[mask](place, "y", y.reshape(SHAPE))
    model = fitted(cubic, labels, MASKS[mask](place, "w", weight.reshape(SHAPE)))
    assert_same(model, expected("f8", "negative and far apart"))
    assert model.score(cubic, labels) == pytest.approx(model.score(X, y))


@pytest.mark.parametrize("cube", CUBES)
def test_predictions_have_the_shape_of_the_samples(cube: str, tmp_path: Path) -> None:
    X, model = numbers("f8", "strings")[0], expected("f8", "strings")
    cubic = CUBES[cube](Place(tmp_path, None), "X", X.reshape(*SHAPE, FEATURES))
    for method, tail in {"predict": (), "predict_proba": (3,)}.items():
        flat = getattr(model, method)(X).reshape(*SHAPE, *tail)
        lazy = getattr(model, method)(cubic)
        assert lazy.shape == flat.shape
        model.predict_to(cubic, tmp_path / "out", method, overwrite=True)
        for values in (np.asarray(lazy), np.asarray(zarr.open_array(tmp_path / "out")[...])):
            if method == "predict":
                assert values.tolist() == flat.tolist()
            else:
                np.testing.assert_allclose(values, flat, rtol=1e-9)


def test_predictions_for_a_data_array_keep_its_coordinates() -> None:
    X, y, _ = numbers("f8", "strings")
    coords = {"t": [2001, 2002, 2003, 2004], "lat": ("y", np.arange(5.0)), "band": list("abcde")}
    cube = xr.DataArray(X.reshape(*SHAPE, FEATURES), dims=("t", "y", "x", "band"), coords=coords)
    model = fitted(cube, y.reshape(SHAPE))
    labels, p = model.predict(cube), model.predict_proba(cube.chunk(2))
    assert labels.dims == ("t", "y", "x")
    assert set(labels.coords) == {"t", "lat"}
    assert p.sel(t=2003, **{"class": "cccc"}).shape == (5, 3)
    assert isinstance(p.data, da.Array)
    assert labels.to_numpy().tolist() == p["class"].to_numpy()[p.argmax("class")].tolist()


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize("form", ["format 3", "cut along features", "one giant chunk", "sharded"])
def test_each_chunk_is_decoded_once_a_pass(form: str, tmp_path: Path, reads: list[str]) -> None:
    X, y, _ = numbers("f8", "integers")
    path = FORMS[form](Place(tmp_path, None), "X", X)
    reads.clear()
    with dask.config.set({"dsoftmax.cache": 0}):
        model = fitted(path, y)
    chunks = {key for key in reads if key.startswith("X/c/")}
    assert len(chunks) >= len(open_data(path).chunks) - 1
    assert {reads.count(key) for key in chunks} == {model.n_iter_}


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize("cube", ["one axis", "all axes", "sharded"])
def test_each_chunk_of_a_cube_is_decoded_once_a_pass(
    cube: str, tmp_path: Path, reads: list[str]
) -> None:
    X, y, _ = numbers("f8", "integers")
    path = CUBES[cube](Place(tmp_path, None), "X", X.reshape(*SHAPE, FEATURES))
    reads.clear()
    with dask.config.set({"dsoftmax.cache": 0}):
        model = fitted(path, y.reshape(SHAPE))
    chunks = {key for key in reads if key.startswith("X/c/")}
    assert len(chunks) > 1
    assert {reads.count(key) for key in chunks} == {model.n_iter_}


@pytest.mark.usefixtures("small_spans")
def test_each_chunk_is_decoded_once_at_all_if_it_is_remembered(
    tmp_path: Path, reads: list[str]
) -> None:
    X, y, _ = numbers("f8", "integers")
    path = FORMS["format 3"](Place(tmp_path, None), "X", X)
    reads.clear()
    assert fitted(path, y).n_iter_ > 1
    chunks = {key for key in reads if key.startswith("X/c/")}
    assert {reads.count(key) for key in chunks} == {1}


def test_a_shard_of_many_rows_is_read_chunk_by_chunk(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "X", shape=(1 << 16, 2048), dtype="f4", chunks=(64, 2048), shards=(1 << 16, 2048)
    )
    assert open_data(array).chunks[:3] == (0, 64, 128)


def test_stored_values_keep_their_dtype_until_the_kernel(tmp_path: Path) -> None:
    written(tmp_path / "X", np.ones((40, 3), "u1"))
    chunk = open_data(tmp_path / "X").read(0, 40)
    assert chunk.X.dtype == np.uint8


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("balanced", [False, True])
def test_rows_left_out_have_no_influence_at_all(
    solver: str, weighted: bool, balanced: bool
) -> None:
    X, y, weight = (values.copy() for values in numbers("f4", "integers"))
    weight += 1
    X, y, weight = (np.concatenate([values] * 3) for values in (X, y, weight))
    nan, nodata = np.arange(180) % 7 == 3, np.arange(180) % 5 == 1
    used = ~(nan | nodata)
    clean = X[used], y[used], weight[used] if weighted else None
    X[nan, 2], X[nodata, 0], y[nodata] = np.nan, 1e30, 255
    X[nan & nodata] = np.inf
    y[nan & ~nodata] = 77  # a label of rows that are left out is no class
    weight[~used] = np.nan
    model = SoftmaxRegression(
        solver=solver,
        alpha=0.1,
        class_weight="balanced" if balanced else None,
        tol=1e-8,
        max_iter=1000,
        batch_size=1000,
    )
    expect = model.fit(open_data(*clean, dtype="float64"))
    coef, loss = expect.coef_.copy(), expect.loss_
    source = open_data(
        X, y, weight if weighted else None, missing="drop", ignore_label=255, dtype="float64"
    )
    message = r"of 180 rows are left out: 36 with the label 255 .*and 21 with a value.*not finite"
    with pytest.warns(UserWarning, match=message):
        model.fit(source)
    assert model.classes_.tolist() == [0, 1, 2]
    np.testing.assert_allclose(model.coef_, coef, atol=1e-6)
    assert model.loss_ == pytest.approx(loss, abs=1e-9)
    with pytest.warns(UserWarning, match="57 of 180 rows are left out, by missing='drop' or"):
        metrics = model.evaluate(source)
    assert metrics["n_samples"] == used.sum()
    alone = model.evaluate(*clean)
    np.testing.assert_allclose(metrics["confusion_matrix"], alone["confusion_matrix"], rtol=1e-12)
    for key in ("accuracy", "balanced_accuracy", "log_loss", "brier_score", "ece"):
        assert metrics[key] == pytest.approx(alone[key])


def test_mini_batches_of_rows_left_out_learn_from_the_others(
    digits: tuple[np.ndarray, np.ndarray],
) -> None:
    X, y = digits[0].copy(), digits[1].copy()
    y[:500] = -1
    X[1000:1100, 3] = np.nan
    source = open_data(X, y, missing="drop", ignore_label=-1)
    model = SoftmaxRegression(solver="adam", max_iter=20, alpha=1e-3, random_state=0)
    with (
        pytest.warns(UserWarning, match="600 of 1,797 rows are left out"),
        pytest.warns(ConvergenceWarning, match="budget"),
    ):
        model.fit(source)
    assert model.score(digits[0][:500], digits[1][:500]) > 0.85


def test_a_nan_may_be_the_label_of_rows_that_are_left_out() -> None:
    X, y, _ = numbers("f8", "whole floats")
    y = np.where(np.arange(ROWS) < 9, np.nan, y)
    with pytest.warns(UserWarning, match="9 of 60 rows are left out: 9 with the label nan"):
        model = fitted(X, y, ignore_label=np.nan)
    assert_same(model, fitted(X[9:], y[9:]))


def test_absent_chunks_of_labels_are_warned_of_in_training(tmp_path: Path) -> None:
    X, y, _ = numbers("f8", "integers")
    array = written(tmp_path / "y", y + 1, chunks=(20,))
    (tmp_path / "y" / "c" / "1").unlink()
    with pytest.warns(UserWarning, match=r"1 chunk\(s\) of .*/y are not in the store.*fill value"):
        model = fitted(X, array)
    assert model.classes_.tolist() == [0, 1, 2, 3]


@st.composite
def chunkings(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(draw(st.integers(1, length + 1)) for length in shape)


@st.composite
def forms(draw: st.DrawFn, values: np.ndarray) -> Any:
    kind = draw(st.sampled_from(["numpy", "dask", "format 2", "format 3", "sharded", "xarray"]))
    chunks = draw(chunkings(values.shape))
    if kind == "numpy":
        return values
    if kind in ("dask", "xarray"):
        lazy = da.from_array(values, chunks=chunks)
        return lazy if kind == "dask" else xr.DataArray(lazy)
    options: dict[str, Any] = {"zarr_format": 2 if kind == "format 2" else 3, "chunks": chunks}
    if kind == "sharded":
        options["shards"] = tuple(c * draw(st.integers(1, 3)) for c in chunks)
    return written(MemoryStore(), values, **options)


@settings(max_examples=EXAMPLES, derandomize="DSOFTMAX_EXAMPLES" not in os.environ)
@given(data=st.data())
def test_any_shape_chunking_dtype_and_label_gives_the_fit_in_memory(data: st.DataObject) -> None:
    axes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    shape, features = tuple(axes), data.draw(st.integers(1, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    kind = LABELS[data.draw(st.sampled_from(list(LABELS)))]
    dtype = data.draw(st.sampled_from(DTYPES))
    codes = rng.integers(0, len(kind), shape)
    X = rng.integers(0, 9, (*shape, features)) + 4 * (codes[..., None] == np.arange(features))
    X = X > 4 if dtype == "?" else X.astype(dtype)
    y, weight = kind[codes], rng.integers(0, 3, shape).astype("f4")
    used = np.ones(shape, bool)
    options: dict[str, Any] = {}
    if data.draw(st.booleans()):
        options["ignore_label"] = kind[0].item()
        used &= y != kind[0]
    if X.dtype.kind == "f" and data.draw(st.booleans()):
        options["missing"] = "drop"
        lost = rng.random(shape) < 0.2
        X[lost, 0] = np.nan
        used &= ~lost
    weighted = data.draw(st.booleans())
    counted = used & (weight > 0) if weighted else used
    assume(len(np.unique(y[counted])) > 1)
    given_weight = data.draw(forms(weight)) if weighted else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*rows are left out|.*not in the store", UserWarning)
        model = fitted(data.draw(forms(X)), data.draw(forms(y)), given_weight, **options)
    in_memory = fitted(X[used].astype("f8"), y[used], weight[used] if weighted else None)
    assert_same(model, in_memory)


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize("cube", ["all axes", "sharded", "memmap", "dask"])
def test_a_cluster_gives_the_bits_of_this_process(
    cube: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    X, y, weight = (values.copy() for values in numbers("f4", "integers"))
    X[7, 2] = np.nan
    cubic = CUBES[cube](Place(tmp_path, None), "X", X.reshape(*SHAPE, FEATURES))
    mask = MASKS["otherwise cut"](Place(tmp_path, None), "y", y.reshape(SHAPE))
    source = open_data(cubic, mask, weight.reshape(SHAPE), missing="drop", ignore_label=2)

    def bits() -> tuple[bytes, bytes]:
        model = SoftmaxRegression(alpha=1)
        with pytest.warns(UserWarning, match="of 60 rows are left out"):
            model.fit(source)
        labels = model.predict(np.nan_to_num(X).reshape(*SHAPE, FEATURES))
        return model.coef_.tobytes(), labels.tobytes()

    here = bits()
    request.getfixturevalue("cluster")
    assert bits() == here


def test_a_memory_map_travels_as_its_path(tmp_path: Path) -> None:
    values = np.arange(60_000.0).reshape(20_000, 3)
    whole = mapped(Place(tmp_path, None), "X", values)
    for X, expected_rows in ((whole, values), (whole[100:], values[100:])):
        source = open_data(X)
        assert not source.X.in_memory
        sent = pickle.dumps(source)
        assert len(sent) < 1000
        np.testing.assert_array_equal(pickle.loads(sent).read(5, 7).X, expected_rows[5:7])
    written_on = np.memmap(tmp_path / "X", float, "c", shape=(20_000, 3))
    for in_memory in (whole * 2, whole[::2], whole.T, written_on):  # not what the file holds
        assert open_data(in_memory).X.in_memory


def test_inspect_counts_what_there_is(tmp_path: Path) -> None:
    X, y, _ = (values.copy() for values in numbers("f4", "integers"))
    y.sort()
    X[:, 1] = 4
    X[17, 3], X[18, 3], X[18, 0] = np.nan, np.inf, -np.inf
    written(tmp_path / "X", X, chunks=(10, 5), shards=(20, 5))
    written(tmp_path / "y", y, chunks=(6,), compressors=ZstdCodec(checksum=True))
    (tmp_path / "y" / "c" / "0").unlink()  # whose labels are all 0, as the fill value
    found = inspect_data(tmp_path / "X", tmp_path / "y")
    assert found.class_counts == dict(enumerate(np.bincount(y).tolist()))
    assert found.constant_features == (1,)
    assert (found.non_finite_values, found.non_finite_rows) == (3, 2)
    in_chunks = [len(np.unique(y[start : start + 20])) for start in (0, 20, 40)]
    assert found.classes_in_a_chunk == (min(in_chunks), sum(in_chunks) / 3, max(in_chunks))
    assert found.one_class_chunks == in_chunks.count(1)
    of_x, of_y = found.arrays["X"].stored, found.arrays["y"].stored
    assert of_x is not None
    assert of_y is not None
    assert (of_x.chunks, of_x.shards, of_x.codecs) == (
        (10, 5),
        (20, 5),
        ("sharding_indexed", "bytes", "zstd"),
    )
    assert not of_x.checksum
    assert of_y.checksum
    assert (of_x.n_objects, of_x.absent_objects) == (3, 0)
    assert (of_y.n_objects, of_y.absent_objects) == (10, 1)
    kept = [path for path in (tmp_path / "X").rglob("*") if path.is_file()]
    assert of_x.stored_bytes == sum(path.stat().st_size for path in kept)
    text = str(found)
    for part in (
        "X has no checksum",
        "chunks of y are not in the store",
        "labels seem to be sorted",
    ):
        assert part in text
