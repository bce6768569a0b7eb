"""Every mistake of a user gets one clear error: what was got, what was expected, what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from distributed import Client
from scipy.sparse import csr_array
from sklearn.exceptions import NotFittedError
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from dsoftmax import ChunkError, DataError, MemoryBoundError, SoftmaxRegression, open_data
from dsoftmax.runtime.connect import local_workers
from dsoftmax.solvers import SOLVERS
from tests import object_store

Store = Callable[..., str]

X4, Y4 = np.ones((4, 2)), np.array([0, 1, 0, 1])
CUBE = np.zeros((2, 2, 3))

BAD_DATA: list[tuple[Any, Any, Any, str]] = [
    (np.zeros((0, 2)), np.zeros(0), None, r"0 sample\(s\)"),
    (np.zeros((4, 0)), Y4, None, r"0 feature\(s\).*minimum of 1"),
    (np.zeros(4), Y4, None, r"shape \(4,\); expected at least two dimensions"),
    (CUBE, Y4, None, r"y has shape \(4,\); expected the axes of X but the last, \(2, 2\)"),
    (CUBE, np.eye(3)[[[0, 1], [2, 0]]], None, r"shape \(2, 2, 3\).*not one-hot rows or prob"),
    (X4, Y4[:3], None, "X has 4 rows but y has 3; they must be of the same length"),
    (X4, np.eye(4), None, r"y has shape \(4, 4\); expected one dimension.*not one-hot rows"),
    (X4, [[0.1, 0.9]] * 4, None, "not one-hot rows or probabilities"),
    (X4, [0.1, 0.9, 0.5, 0.5], None, r"y has the value 0\.1 at row 0.*not probabilities"),
    (X4, None, None, r"y is missing: fit requires y"),
    (X4, np.zeros(4), None, r"holds 1 class \(0\.0\).*at least 2"),
    (X4, [0.5, 1, 0, 1], None, "continuous"),
    (X4, Y4.astype(complex), None, "labels must be integers, booleans or strings"),
    (X4, np.array([{}, {}, {}, {}]), None, "y holds objects of the type dict; expected integers"),
    (X4, np.array([1, "a", 1, "a"], dtype=object), None, "mixes labels of the types int, str"),
    (X4.astype(complex), Y4, None, "complex128; expected real numbers.*Complex data not supported"),
    (X4.astype(np.longdouble), Y4, None, "expected real numbers .float of at most 64 bits"),
    (X4.astype(str), Y4, None, "expected real numbers"),
    (X4.astype("M8[s]"), Y4, None, "expected real numbers"),
    (np.array([["a", 1]] * 4, dtype=object), Y4, None, "objects that are not numbers"),
    (csr_array(np.eye(4)), Y4, None, "sparse csr_array; sparse data is not supported.*toarray"),
    (
        np.array([[0, 0], [0, np.nan], [0, 0], [0, 0.0]]),
        Y4,
        None,
        r"X has the value nan at row 1, column 1, which is not finite.*1 such values among 4 rows",
    ),
    (np.array([[0, 0], [0, 0], [np.inf, 0], [0, 0.0]]), Y4, None, "inf at row 2, column 0"),
    (X4, Y4, [1, 1, -1, 1], "sample_weight is -1.0 at row 2; weights must be finite"),
    (X4, Y4, [1, np.nan, 1, 1], "sample_weight has a missing value at row 1"),
    (X4, Y4, [0, 0, 0, 0], "all weights are zero; at least one row must count"),
    (X4, Y4, [1, 1], "X has 4 rows but sample_weight has 2"),
    (X4, Y4, ["a"] * 4, "sample_weight has dtype <U1; expected numbers"),
    ("nowhere.zarr/X", Y4, None, "nowhere.zarr/X does not exist.*expected the path or URL"),
    ("nosuch://host/X", Y4, None, "nosuch://host/X cannot be opened.*check the address"),
    (da.ones((4, 2))[da.ones(4) > 0], Y4, None, r"call X\.compute_chunk_sizes\(\) first"),
    (da.ones((4, 2), chunks=2), np.array([0, 1]), None, "X has 4 rows but y has 2"),
    (xr.Dataset({"X": (("a", "b"), X4)}), Y4, None, "xarray Dataset; expected a DataArray of it"),
    (
        xr.DataArray(CUBE, dims=("a", "b", "f")),
        xr.DataArray(CUBE[..., 0], dims=("b", "a")),
        None,
        r"axes \('b', 'a'\) where those of X are \('a', 'b'\); transpose",
    ),
]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("X", "y", "weight", "message"), BAD_DATA)
def test_bad_data_get_one_clear_error(
    X: Any, y: Any, weight: Any, message: str, solver: str
) -> None:
    with pytest.raises(DataError, match=message):
        SoftmaxRegression(solver=solver).fit(X, y, weight)


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"missing": "skip"}, "missing is 'skip'; expected 'raise' or 'drop'"),
    ({"ignore_label": "nodata"}, "ignore_label is 'nodata', but y has labels of the type int"),
    ({"ignore_label": [0, 1]}, r"ignore_label is \[0, 1\]; expected one label"),
    ({"dtype": "float16"}, "expected float32 or float64"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_a_bad_option_of_a_source_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(X4, Y4, **options)


def test_what_is_ignored_cannot_be_a_class_nor_be_all() -> None:
    with pytest.raises(DataError, match="ignore_label is 1, which is also one of the classes"):
        SoftmaxRegression(classes=[0, 1]).fit(open_data(X4, Y4, ignore_label=1))
    with pytest.raises(DataError, match="there is no y that could hold it"):
        open_data(X4, ignore_label=1)
    with (
        pytest.warns(UserWarning, match="4 of 4 rows are left out"),
        pytest.raises(DataError, match="all 4 rows are left out; at least one row must count"),
    ):
        SoftmaxRegression().fit(open_data(X4 * np.nan, Y4, missing="drop"))
    with (
        pytest.warns(UserWarning, match="2 of 4 rows are left out"),
        pytest.raises(DataError, match="holds 1 class"),
    ):
        SoftmaxRegression().fit(open_data(X4, Y4, ignore_label=0))


def fitted() -> SoftmaxRegression:
    return SoftmaxRegression().fit([[0.0, 1], [1, 0]], [0, 1])


CALLS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: SoftmaxRegression().predict([[1.0]]), NotFittedError, "not fitted yet"),
    (lambda: fitted().predict(np.zeros((3, 5))), DataError, "5 features, but .* expecting 2"),
    (lambda: fitted().predict(np.zeros((3, 3, 5))), DataError, "5 features, but .* expecting 2"),
    (lambda: fitted().score(X4, ["a", "b"] * 2), DataError, r"type str, .* \(0, 1\) .* type int"),
    (lambda: SoftmaxRegression(classes=[0, 2]).fit(X4, Y4), DataError, "label 1 at row 1"),
    (lambda: fitted().partial_fit(X4, Y4, classes=[0, 1, 2]), DataError, "classes"),
    (lambda: fitted().predict(np.array([[np.nan, 0]])), DataError, "nan at row 0.* missing_label="),
]


@pytest.mark.parametrize(("call", "error", "message"), CALLS)
def test_a_call_that_does_not_fit_the_model_is_refused(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_missing_value_and_an_unknown_label_are_named_with_their_chunks(store: Store) -> None:
    X, y = np.random.default_rng(0).normal(size=(300, 3)), np.arange(300) % 3
    X[217, 1], X[250] = np.nan, np.inf
    path = store(rows=100, X=X, y=y)
    found = (
        r"data\.zarr/X has the value nan at row 217, column 1 \(chunk c/2/0\), which is not finite "
        r"\(NaN or infinity\);.*missing='drop'\) \(4 such values among 300 rows\)"
    )
    with pytest.raises(DataError, match=found):
        SoftmaxRegression().fit(f"{path}/X", f"{path}/y")
    with pytest.raises(DataError, match=r"y has the label 2 at row 2 \(chunk c/0\), which is not"):
        SoftmaxRegression(classes=[0, 1]).fit(f"{path}/X", f"{path}/y")


def test_a_missing_value_of_a_cube_is_named_with_its_index_and_chunk(tmp_path: Path) -> None:
    cube = np.ones((4, 5, 6, 3))
    cube[3, 1, 4, 2] = np.nan
    zarr.create_array(tmp_path / "X", data=cube, chunks=(2, 5, 3, 3))
    found = r"nan at index \(3, 1, 4\), column 2 \(chunk c/1/0/1/0\)"
    with pytest.raises(DataError, match=found):
        SoftmaxRegression().fit(tmp_path / "X", np.arange(120).reshape(4, 5, 6) % 2)
    model = SoftmaxRegression().fit(np.eye(3), [0, 1, 0])
    for lazy in (tmp_path / "X", da.from_array(cube, chunks=2), cube):
        with pytest.raises(DataError, match=r"nan at index \(3, 1, 4\), column 2"):
            np.asarray(model.predict(lazy))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_damaged_chunk_is_an_error_that_names_array_key_and_rows(
    tmp_path: Path, zarr_format: Any
) -> None:
    X = np.random.default_rng(0).normal(size=(100, 3))
    zarr.create_array(tmp_path / "X", data=X, chunks=(50, 3), zarr_format=zarr_format)
    key = "1.0" if zarr_format == 2 else "c/1/0"
    chunk = tmp_path / "X" / key
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(ChunkError, match=rf"/X: chunk {key} \(rows 50 to 99\) cannot be read"):
        SoftmaxRegression().fit(tmp_path / "X", np.arange(100) % 2)


def test_a_flipped_bit_is_an_error_where_there_is_a_checksum(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(4, 6, 3))
    codec = ZstdCodec(checksum=True)
    zarr.create_array(tmp_path / "X", data=X, chunks=(2, 3, 3), compressors=codec)
    chunk = tmp_path / "X" / "c" / "0" / "1" / "0"
    held = bytearray(chunk.read_bytes())
    held[len(held) // 2] ^= 4
    chunk.write_bytes(bytes(held))
    with pytest.raises(ChunkError, match=r"/X: chunk c/0/1/0 \(rows 0 to 1\) cannot be read"):
        SoftmaxRegression().fit(tmp_path / "X", np.arange(24).reshape(4, 6) % 2)


def test_a_damaged_chunk_of_labels_is_named(store: Store) -> None:
    path = store(rows=50, X=np.ones((100, 3)), y=np.arange(1, 101) % 3)
    chunk = Path(path, "y", "c", "1")
    chunk.write_bytes(chunk.read_bytes()[:9])
    with pytest.raises(ChunkError, match=r"/y: chunk c/1 \(rows 50 to 99\) cannot be read"):
        SoftmaxRegression().fit(f"{path}/X", f"{path}/y")


METADATA: list[tuple[Callable[[str], str], str]] = [
    (lambda text: "{", r"data\.zarr/X cannot be opened.*restore it"),
    (lambda text: text.replace("zstd", "no-such-codec"), r"cannot be opened.*no-such-codec"),
    (lambda text: text.replace("float64", "float99"), r"data\.zarr/X cannot be opened"),
]


@pytest.mark.parametrize(("damage", "message"), METADATA)
def test_metadata_that_make_no_sense_are_an_error_that_names_the_store(
    store: Store, damage: Callable[[str], str], message: str
) -> None:
    path = store(X=X4, y=Y4)
    metadata = Path(path, "X", "zarr.json")
    metadata.write_text(damage(metadata.read_text()))
    with pytest.raises(DataError, match=message):
        SoftmaxRegression().fit(f"{path}/X", f"{path}/y")


@pytest.mark.parametrize("given", ["path", "open"])
def test_a_group_is_refused_with_the_arrays_in_it(store: Store, given: str) -> None:
    path = store(X=X4, y=Y4)
    group = path if given == "path" else zarr.open_group(path, mode="r")
    with pytest.raises(DataError, match=r"is a Zarr group.*data.zarr/X \(4, 2\).*data.zarr/y"):
        SoftmaxRegression().fit(group, Y4)


def test_a_sparse_group_of_anndata_is_said_not_to_be_supported(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.h5ad.zarr", mode="w")
    sparse = group.create_group("X", attributes={"encoding-type": "csr_matrix"})
    sparse.create_array("data", data=np.ones(3))
    with pytest.raises(DataError, match=r"sparse AnnData matrix \(csr_matrix\).*not supported yet"):
        SoftmaxRegression().fit(tmp_path / "a.h5ad.zarr" / "X", Y4)
    with pytest.raises(DataError, match=r"a\.h5ad\.zarr/X \(a group\)"):
        SoftmaxRegression().fit(tmp_path / "a.h5ad.zarr", Y4)


def test_a_store_that_changes_before_it_is_read_is_refused(store: Store) -> None:
    path = store(rows=10, X=np.ones((100, 3)), y=np.arange(100) % 2)
    source = open_data(f"{path}/X", f"{path}/y")
    store(rows=10, X=np.zeros((50, 3)), y=np.arange(50) % 2)
    with pytest.raises(DataError, match=r"has changed since it was opened: it is now \(50,"):
        SoftmaxRegression().fit(source)


def test_a_store_that_changes_during_a_fit_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsoftmax.data.zarr_array._LOOK_SECONDS", 1e-9)
    X, y = np.random.default_rng(0).normal(size=(100, 3)), np.arange(100) % 2
    path = store(rows=10, X=X, y=y)

    class Writer:
        def on_event(self, event: object) -> None:
            zarr.open_array(f"{path}/X", mode="r+").resize((120, 3))

    with pytest.raises(DataError, match=r"/X has changed .* now \(120, 3\) float64; do not write"):
        SoftmaxRegression(callbacks=[Writer()]).fit(f"{path}/X", f"{path}/y")


def test_a_file_that_has_been_cut_off_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", np.zeros((4, 2)))
    source = open_data(np.load(tmp_path / "X.npy", mmap_mode="r"), Y4)
    np.save(tmp_path / "X.npy", np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"X\.npy has changed since it was opened.*192.*176"):
        SoftmaxRegression().fit(source)


def test_a_store_that_a_worker_cannot_see_is_named_with_worker_and_host(
    cluster: Client, store: Store, tmp_path: Path
) -> None:
    path = store(X=X4, y=Y4)
    source = open_data(f"{path}/X", f"{path}/y")
    (tmp_path / "data.zarr").rename(tmp_path / "elsewhere.zarr")  # as if on another machine
    message = r"not visible from the worker tls://.* on host \S+: .*data\.zarr/X.*shared storage"
    with pytest.raises(DataError, match=message):
        SoftmaxRegression().fit(source)


@pytest.mark.parametrize("where", ["url", "store"])
def test_a_store_in_this_process_is_refused_by_a_cluster(cluster: Client, where: str) -> None:
    place = "memory://mistakes/X" if where == "url" else MemoryStore()
    array = zarr.create_array(place, data=X4, chunks=(2, 2), overwrite=True)
    given = place if where == "url" else array
    cause = "is in this process's memory" if where == "url" else "is a store that is open"
    with pytest.raises(DataError, match=f"{cause}.*workers.*cannot read"):
        SoftmaxRegression().fit(given, Y4)


def test_a_chunk_larger_than_the_memory_of_a_worker_is_refused_in_advance(tmp_path: Path) -> None:
    X = zarr.create_array(tmp_path / "X", shape=(1 << 16, 2048), dtype="f4", chunks=(1 << 16, 512))
    y = np.arange(1 << 16) % 2
    with (
        local_workers(1, "300 MiB"),
        pytest.warns(UserWarning, match=r"4 chunk\(s\) of .*/X are not in the store"),
        pytest.raises(MemoryBoundError, match=r"chunks of 512 MiB.*300 MiB.*smaller chunks"),
    ):
        SoftmaxRegression().fit(X, y)


def run(address: str, url: str, key: str = "any") -> subprocess.CompletedProcess[str]:
    """Inspect a URL in a process of its own, as its environment says."""
    environment = os.environ | {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": "wrong",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "dsoftmax", "inspect", url],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )


def test_a_url_that_cannot_be_reached_is_one_error() -> None:
    done = run("http://127.0.0.1:9", "s3://bucket/X")
    assert done.returncode == 1  # an outage: the data may be as they should
    assert "s3://bucket/X cannot be opened" in done.stderr
    assert "check the address" in done.stderr


@pytest.mark.slow
def test_wrong_credentials_are_one_error() -> None:
    with object_store.serve() as address, object_store.new_bucket(address) as bucket:
        url = f"{bucket.url}/X"
        zarr.create_array(url, data=X4, storage_options=bucket.options)
        assert "4 of 2 features" in run(address, url).stdout  # the server is not asking yet
        ask = urllib.request.Request(
            f"{address}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(ask, timeout=30).close()
        try:
            done = run(address, url, "nobody")
        finally:
            ask.data = b"1e9"
            urllib.request.urlopen(ask, timeout=30).close()
    assert done.returncode == 2
    assert "cannot be opened: PermissionError" in done.stderr
    assert "credentials in the environment or in the Dask setting" in done.stderr


def test_options_that_are_no_mapping_are_refused() -> None:
    with (
        dask.config.set({"dsoftmax.storage-options": "key"}),
        pytest.raises(DataError, match="storage-options is not a mapping from protocols"),
    ):
        open_data("s3://bucket/X")
