from __future__ import annotations

import functools
import http.server
import os
import pickle
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import fsspec
import numpy as np
import pytest
import s3fs
import zarr
from distributed import Client
from sklearn.exceptions import ConvergenceWarning
from zarr.storage import MemoryStore

from dsoftmax import SoftmaxRegression, SoftmaxRegressionCV, ingest, inspect_data, open_data
from dsoftmax.data.anndata_column import from_node, open_stored
from dsoftmax.data.chunk_listing import list_chunks
from dsoftmax.data.zarr_array import forget_chunks
from dsoftmax.errors import CheckpointError, ChunkError, DataError
from dsoftmax.events import FitResumed, PassEnded, RowsDone, StepEnded
from tests.callbacks import Once, Recorder, StopAfter, StopError
from tests.object_store import Bucket

ROWS, FEATURES = 400, 3
rng = np.random.default_rng(0)
X = rng.normal(size=(ROWS, FEATURES)) + 1
Y = np.where(X[:, 0] + rng.normal(size=ROWS) > 1, 2, 1)

X_IN_MEMORY = X  # by this name where X is a path

LAYOUTS: dict[str, dict[str, Any]] = {
    "format 3": {},
    "format 2": {"zarr_format": 2},
    "shards": {"shards": (50, FEATURES)},
    "dotted": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "nested format 2": {
        "zarr_format": 2,
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
    },
}
FIRST = {"format 2": "3.0", "dotted": "c.3.0", "nested format 2": "3/0"}


def written(folder: Path, layout: str = "format 3") -> tuple[str, str, Path]:
    """Return the paths of X and y of a store of others, and the file of a chunk of X."""
    chunk = 25 if layout == "shards" else 50
    options = {"chunks": (chunk, FEATURES), **LAYOUTS[layout]}
    zarr.create_array(folder / "X", data=X, **options)
    zarr.create_array(folder / "y", data=Y, chunks=(80,))
    return str(folder / "X"), str(folder / "y"), folder / "X" / FIRST.get(layout, "c/3/0")


def other_rows(chunk: Path) -> None:
    """Replace a chunk by another, of the same size."""
    now = chunk.stat().st_mtime_ns
    other = chunk.parent.parent / "1" / "0"
    chunk.write_bytes((other if other.exists() else chunk).read_bytes())
    os.utime(chunk, ns=(now + 10**9, now + 10**9))  # coarse clocks tell no two writes apart


CHANGES: dict[str, Callable[[Path], Any]] = {
    "removed": Path.unlink,
    "replaced": other_rows,
}


def model(**params: Any) -> SoftmaxRegression:
    return SoftmaxRegression(**{"solver": "lbfgs", "tol": 1e-9, "alpha": 1e-3} | params)


@pytest.fixture
def nothing_cached() -> Iterator[None]:
    """Read every chunk anew in every pass, as where the data are larger than the memory."""
    with dask.config.set({"dsoftmax.cache": 0}):
        yield


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_chunks_that_change_during_a_fit_end_it_with_their_names(
    layout: str, change: str, tmp_path: Path
) -> None:
    path, y, chunk = written(tmp_path, layout)
    events = Recorder(PassEnded)
    callback = Once(PassEnded, lambda: CHANGES[change](chunk), number=3)
    key = FIRST.get(layout, "c/3/0")
    found = rf"/X has changed since it was opened: 1 chunk\(s\) were {change} \({key}\)"
    with pytest.raises((DataError, ChunkError), match=f"{found}|chunk {key} .*not in the store"):
        model(callbacks=[callback, events]).fit(path, y)
    assert callback.done
    assert len(events.events) < 100


@pytest.mark.usefixtures("nothing_cached")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_chunk_that_vanishes_is_an_error_at_the_pass_that_misses_it(
    layout: str, tmp_path: Path
) -> None:
    path, y, chunk = written(tmp_path, layout)
    passes = Recorder(PassEnded)
    with pytest.raises(ChunkError, match=rf"/X: .*chunk {FIRST.get(layout, 'c/3/0')} is not in"):
        model(callbacks=[Once(PassEnded, chunk.unlink, number=3), passes]).fit(path, y)
    assert len(passes.events) == 3


@pytest.mark.usefixtures("nothing_cached", "small_spans")
def test_workers_know_which_chunks_were_absent_and_miss_the_others(
    tmp_path: Path, cluster: Client
) -> None:
    image = X.reshape(20, 20, FEATURES).copy()
    image[10:15, 5:10] = image[:5, 15:] = 0  # Zarr leaves these chunks out
    zarr.create_array(tmp_path / "X", data=image, chunks=(5, 5, FEATURES))
    path, chunk = str(tmp_path / "X"), tmp_path / "X" / "c" / "2" / "2" / "0"
    labels = Y.reshape(20, 20)
    with pytest.warns(UserWarning, match=r"2 chunk\(s\) of .*/X are not in the store"):
        found = model().fit(path, labels)
    whole: Any = {"chunks": (5, 5, FEATURES), "config": {"write_empty_chunks": True}}
    zarr.create_array(tmp_path / "whole", data=image, **whole)
    expected = model().fit(tmp_path / "whole", labels)
    np.testing.assert_array_equal(found.coef_, expected.coef_)
    with (
        pytest.warns(UserWarning, match=r"2 chunk\(s\) of"),
        pytest.raises(ChunkError, match="chunk c/2/2/0 is not in the store"),
    ):
        model(callbacks=[Once(PassEnded, chunk.unlink)]).fit(path, labels)


FITS: dict[str, Callable[[Any, str, str, Path], Any]] = {
    "lbfgs": lambda once, X, y, folder: model(callbacks=[once]).fit(X, y),
    "newton": lambda once, X, y, folder: model(
        solver="newton", callbacks=[once], sample_size=50, max_iter=9
    ).fit(X, y),
    "sgd": lambda once, X, y, folder: model(solver="sgd", callbacks=[once], max_iter=4).fit(X, y),
    "labels": lambda once, X, y, folder: model(callbacks=[once]).fit(X_IN_MEMORY, y),
    "weights": lambda once, X, y, folder: model(callbacks=[once]).fit(X, Y, y),
    "search": lambda once, X, y, folder: SoftmaxRegressionCV(
        alphas=[1e-2, 1e-1], cv=2, callbacks=[once], random_state=0
    ).fit(X, y),
    "folds": lambda once, X, y, folder: SoftmaxRegressionCV(
        alphas=[1e-2, 1e-1], cv=y, callbacks=[once], random_state=0
    ).fit(X, np.roll(Y, 7)),
    "validation": lambda once, X, y, folder: model(callbacks=[once]).fit(
        rng.normal(size=(9, FEATURES)), [1, 2, 1] * 3, X_val=X, y_val=Y
    ),
    "partial_fit": lambda once, X, y, folder: model(solver="sgd", callbacks=[once]).partial_fit(
        X, y, [1, 2]
    ),
}


@pytest.mark.parametrize("fit", FITS)
def test_every_fit_notices_a_chunk_that_was_replaced(fit: str, tmp_path: Path) -> None:
    path, y, chunk = written(tmp_path)
    of_y = fit in ("labels", "weights", "folds")
    changed = tmp_path / "y" / "c" / "2" if of_y else chunk
    kinds: Any = (RowsDone, StepEnded)  # of passes, and of mini-batches
    once = Once(kinds, lambda: other_rows(changed))
    name = "y" if of_y else "X"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        with pytest.raises(DataError, match=rf"/{name} has changed.* replaced \(c/[23]"):
            FITS[fit](once, path, y, tmp_path)
    assert once.done


def test_a_model_says_nothing_of_convergence_when_its_data_have_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, y, chunk = written(tmp_path)
    with pytest.raises(DataError, match="were replaced"):
        model(callbacks=[Once(PassEnded, lambda: other_rows(chunk))], verbose=1).fit(path, y)
    assert "converged" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["fit", "search"])
def test_a_fit_that_is_interrupted_returns_its_model_without_a_look_at_the_stores(
    kind: str, tmp_path: Path
) -> None:
    path, y, chunk = written(tmp_path)

    def stop() -> None:
        other_rows(chunk)
        raise KeyboardInterrupt

    once, checkpoint = Once(PassEnded, stop, number=3), tmp_path / "checkpoint"
    options: Any = {"callbacks": [once], "checkpoint": checkpoint}
    search = SoftmaxRegressionCV(alphas=[1e-2, 1e-1], cv=2, random_state=0, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = (model(**options) if kind == "fit" else search).fit(path, y)
    assert once.done
    assert found.stop_reason_.startswith("interrupted")
    assert found.score(X, Y) > 0.7
    with pytest.raises(CheckpointError, match="chunks of X were written, or removed, since"):
        found.set_params(callbacks=[]).fit(path, y)


def test_an_evaluation_of_data_that_change_is_refused(tmp_path: Path) -> None:
    path, y, chunk = written(tmp_path)
    fitted = model().fit(X, Y)
    source = open_data(path, y)
    other_rows(chunk)
    with pytest.raises(DataError, match=r"were replaced \(c/3/0\)"):
        fitted.score(source)
    source = open_data(path)
    other_rows(tmp_path / "X" / "c" / "5" / "0")
    with pytest.raises(DataError, match=r"were replaced \(c/5/0\)"):
        fitted.predict_to(source, tmp_path / "predicted")
    assert not (tmp_path / "predicted").exists()
    source = open_data(path, y)
    chunk.unlink()
    for call in (fitted.score, lambda X: fitted.predict_to(X, tmp_path / "predicted")):
        with pytest.raises(ChunkError, match="chunk c/3/0 is not in the store"):
            call(source)


def test_a_lazy_prediction_does_not_take_a_lost_chunk_for_zeros(tmp_path: Path) -> None:
    path, _, chunk = written(tmp_path)
    lazy = model().fit(X, Y).predict_proba(path)
    chunk.unlink()
    with pytest.raises(ChunkError, match="chunk c/3/0"):
        lazy.compute()
    np.asarray(lazy[:150])


def absent_chunks(folder: Path) -> tuple[str, str]:
    path, y, chunk = written(folder)
    chunk.unlink()
    return path, y


def warned(call: Callable[[], Any]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [warning for warning in found if "not in the store" in str(warning.message)]


CALLS: dict[str, Callable[[Any, str, str, Path], Any]] = {
    "fit": lambda fitted, X, y, folder: model().fit(X, y),
    "hold-out": lambda fitted, X, y, folder: model(early_stopping=True).fit(X, y),
    "validation": lambda fitted, X, y, folder: model().fit(X_IN_MEMORY, Y, X_val=X, y_val=y),
    "search": lambda fitted, X, y, folder: SoftmaxRegressionCV(alphas=[0.1, 1], cv=2).fit(X, y),
    "partial_fit": lambda fitted, X, y, folder: model(solver="sgd").partial_fit(X, y, [1, 2]),
    "evaluate": lambda fitted, X, y, folder: fitted.evaluate(X, y),
    "predict": lambda fitted, X, y, folder: np.asarray(fitted.predict(X)),
    "predict_to": lambda fitted, X, y, folder: fitted.predict_to(X, folder / "predicted"),
}


@pytest.mark.parametrize("call", CALLS)
def test_absent_chunks_are_warned_of_once_a_call_and_at_the_line_that_calls(
    call: str, tmp_path: Path
) -> None:
    path, y = absent_chunks(tmp_path)
    fitted = model().fit(X, Y)
    (found,) = warned(lambda: CALLS[call](fitted, path, y, tmp_path))
    assert "1 chunk(s) of" in str(found.message)
    assert "fill value, 0.0. Zarr leaves out chunks" in str(found.message)
    assert Path(found.filename) == Path(__file__)


def test_absent_chunks_of_weights_and_folds_are_warned_of(tmp_path: Path) -> None:
    _, y, _ = written(tmp_path)
    (tmp_path / "y" / "c" / "2").unlink()
    (found,) = warned(lambda: model().fit(X, Y, y))
    assert "chunk(s) of" in str(found.message)
    search = SoftmaxRegressionCV(alphas=[0.1, 1], cv=y)
    (found,) = warned(lambda: search.fit(X, np.roll(Y, 7)))
    assert "/y are not in the store" in str(found.message)


@pytest.mark.usefixtures("nothing_cached")
def test_a_chunk_that_is_lost_is_left_out_where_that_is_allowed(tmp_path: Path) -> None:
    path, y, chunk = written(tmp_path)
    source = open_data(path, y, on_bad_chunk="skip", max_bad_chunks=1)
    with (
        pytest.warns(UserWarning, match=r"1 chunk\(s\) were removed \(c/3/0\); rows that"),
        pytest.warns(UserWarning, match="1 chunks of X, 50 rows, cannot be read"),
    ):
        found = model(callbacks=[Once(PassEnded, chunk.unlink)]).fit(source)
    assert [bad["start"] for bad in found.quarantined_] == [150]
    kept = np.r_[0:150, 200:ROWS]
    np.testing.assert_allclose(found.coef_, model().fit(X[kept], Y[kept]).coef_, rtol=1e-5)


@pytest.mark.usefixtures("checkpoint_always")
@pytest.mark.parametrize("change", [None, *CHANGES])
def test_a_fit_does_not_go_on_with_other_data_at_its_place(
    change: str | None, tmp_path: Path
) -> None:
    path, y, chunk = written(tmp_path)
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(StopError):
        model(checkpoint=checkpoint, callbacks=[StopAfter(12)]).fit(path, y)
    if change is None:
        assert model(checkpoint=checkpoint).fit(path, y).stop_reason_.startswith("converged")
        return
    # Of more than 16 chunks, some values are not looked at.
    CHANGES[change](chunk)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the chunk that is absent
        with pytest.raises(CheckpointError, match="chunks of X were written, or removed, since"):
            model(checkpoint=checkpoint).fit(path, y)


@pytest.mark.usefixtures("checkpoint_always", "nothing_cached")
def test_a_fit_goes_on_when_the_chunk_that_it_missed_is_restored(tmp_path: Path) -> None:
    path, y, chunk = written(tmp_path)
    expected = model().fit(path, y)
    kept, checkpoint = chunk.read_bytes(), tmp_path / "checkpoint"
    with pytest.raises(ChunkError, match="chunk c/3/0"):
        model(checkpoint=checkpoint, callbacks=[Once(PassEnded, chunk.unlink, 3)]).fit(path, y)
    chunk.write_bytes(kept)
    resumed = Recorder(FitResumed)
    found = model(checkpoint=checkpoint, callbacks=[resumed]).fit(path, y)
    assert resumed.events[0].passes == 3
    np.testing.assert_array_equal(found.coef_, expected.coef_)


def test_a_source_that_is_used_later_is_compared_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, y, chunk = written(tmp_path)
    source = open_data(path, y)
    other_rows(chunk)
    monkeypatch.setattr("dsoftmax.data.store_changes._NEW_SECONDS", 0.0)
    events = Recorder()
    with pytest.raises(DataError, match="were replaced"):
        model(callbacks=[events]).fit(source)
    assert events.events == []


@pytest.mark.parametrize(
    ("library", "change"), [("fsspec", "replaced"), ("fsspec", "removed"), ("obstore", "replaced")]
)
def test_objects_that_change_at_s3_are_noticed(change: str, library: str, bucket: Bucket) -> None:
    options = {"storage_options": bucket.options}
    url = f"{bucket.url}/X"
    zarr.create_array(url, data=X, chunks=(100, FEATURES), **options)
    files = s3fs.S3FileSystem(**bucket.options, skip_instance_cache=True)
    chunk = f"{url}/c/2/0".removeprefix("s3://")

    def act() -> None:
        if change == "removed":
            files.rm(chunk)
        else:
            files.pipe(chunk, files.cat(chunk.replace("/2/0", "/1/0")))

    with (
        opened_by(library, bucket),
        pytest.raises(DataError, match=rf"/X has changed.*{change} \(c/2/0\)"),
    ):
        model(callbacks=[Once(PassEnded, act)]).fit(url, Y)


@contextmanager
def opened_by(library: str, bucket: Bucket) -> Iterator[None]:
    if library == "fsspec":
        yield
        return
    known = {
        "endpoint": bucket.options["endpoint_url"],
        "access_key_id": bucket.options["key"],
        "secret_access_key": bucket.options["secret"],
        "region": "us-east-1",
        "client_options": {"allow_http": True},
    }
    with dask.config.set(
        {"dsoftmax.object-store": "obstore", "dsoftmax.storage-options": {"s3": known}}
    ):
        yield


def test_a_rewritten_object_of_the_same_bytes_is_no_change(bucket: Bucket) -> None:
    url = f"{bucket.url}/X"
    zarr.create_array(url, data=X, chunks=(100, FEATURES), storage_options=bucket.options)
    files = s3fs.S3FileSystem(**bucket.options, skip_instance_cache=True)
    chunk = f"{url}/c/2/0".removeprefix("s3://")
    again = Once(PassEnded, lambda: files.pipe(chunk, files.cat(chunk)))
    model(callbacks=[again]).fit(url, Y)
    assert again.done


def test_a_store_in_memory_is_listed(tmp_path: Path) -> None:
    store = MemoryStore()
    zarr.create_array(store, name="X", data=X, chunks=(100, FEATURES))
    array = zarr.open_array(store, path="X", mode="r")
    once = Once(PassEnded, lambda: store._store_dict.pop("X/c/2/0"))
    with pytest.raises((DataError, ChunkError), match="c/2/0"):
        model(callbacks=[once]).fit(array, Y)


def test_a_zip_file_that_is_replaced_is_noticed(tmp_path: Path) -> None:
    place = tmp_path / "X.zip"
    for data in (X, X + 1):
        with zarr.storage.ZipStore(tmp_path / f"{data[0, 0]}.zip", mode="w") as store:
            zarr.create_array(store, data=data, chunks=(100, FEATURES))
    first, second = sorted(tmp_path.glob("*.zip"))
    first.rename(place)
    with pytest.raises(DataError, match=r"4 chunk\(s\) were replaced \(c/0/0, c/1/0, c/2/0, ...\)"):
        model(callbacks=[Once(PassEnded, lambda: second.rename(place))]).fit(place, Y)


def test_a_chunk_that_a_zip_file_lists_twice_is_one_chunk(tmp_path: Path) -> None:
    with zarr.storage.ZipStore(tmp_path / "X.zip", mode="w") as store:
        array = zarr.create_array(store, shape=X.shape, dtype=X.dtype, chunks=(100, FEATURES))
        array[:] = 1
        with pytest.warns(UserWarning, match="Duplicate name"):
            array[:] = X
    zarr.create_array(str(tmp_path / "X"), data=X, chunks=(100, FEATURES))
    expected = model().fit(tmp_path / "X", Y)
    assert model().fit(tmp_path / "X.zip", Y).coef_.tobytes() == expected.coef_.tobytes()


class WithoutLists(http.server.SimpleHTTPRequestHandler):
    """A server of files that lists no folders."""

    def list_directory(self, path: Any) -> None:
        self.send_error(404)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address of the folder of a test, on a server that lists no folders."""
    handler = functools.partial(WithoutLists, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_store_that_cannot_be_listed_is_read_without_a_warning(
    tmp_path: Path, web: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, y, _ = written(tmp_path)
    with caplog.at_level("DEBUG", "dsoftmax"):
        found = model().fit(f"{web}/X", f"{web}/y")
    np.testing.assert_array_equal(found.coef_, model().fit(path, y).coef_)
    assert "cannot be listed" in caplog.text
    assert inspect_data(f"{web}/X", f"{web}/y").arrays["X"].stored.absent_objects == 0


def test_a_store_of_ours_on_a_web_server_has_lost_nothing(tmp_path: Path, web: str) -> None:
    np.savez(tmp_path / "d.npz", X=X, y=Y)
    ingest(tmp_path / "d.npz", tmp_path / "d.zarr", chunk_rows=100)
    assert open_data(f"{web}/d.zarr/X", f"{web}/d.zarr/y").n_samples == ROWS


@pytest.mark.parametrize("fill", [0, 7, np.nan, None])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_lost_chunk_is_missed_whatever_the_fill_value(
    fill: Any, zarr_format: Any, tmp_path: Path
) -> None:
    values: Any = np.arange(1.0, 13).reshape(6, 2)
    zarr.create_array(
        tmp_path / "X", data=values, chunks=(2, 2), fill_value=fill, zarr_format=zarr_format
    )
    array = open_stored(tmp_path / "X")
    (tmp_path / "X" / ("1.0" if zarr_format == 2 else "c/1/0")).unlink()
    np.testing.assert_array_equal(array.read(0, 2), values[:2])
    with pytest.raises(FileNotFoundError, match=r"1.0 is not in the store"):
        array.read(0, 6)


@pytest.mark.parametrize("kind", ["string", "U1", "S1", "bool", "i8"])
def test_a_lost_chunk_of_labels_is_missed_whatever_their_kind(kind: str, tmp_path: Path) -> None:
    values = (
        np.array(list("1111"))
        .astype("U1" if kind == "string" else "i8")
        .astype("U1" if kind == "string" else kind)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Zarr's, of strings of fixed length
        array = zarr.create_array(tmp_path / "y", shape=4, dtype=kind, chunks=2)
        array[:] = values
        opened = open_stored(tmp_path / "y")
        (tmp_path / "y" / "c" / "1").unlink()
        assert len(opened.read(0, 2)) == 2
        for start, stop in ((1, 4), (2, 3)):  # of a part of a chunk too
            with pytest.raises(FileNotFoundError, match="chunk c/1 is not in the store"):
                opened.read(start, stop)


def test_a_list_takes_few_bytes_a_chunk_and_does_not_travel(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "X", data=np.ones((100, 1)), chunks=(1, 1))
    array = open_stored(tmp_path / "X")
    assert array.listing is not None
    assert array.listing.numbers.nbytes + array.listing.stamps.nbytes == 16 * 100
    assert len(pickle.dumps(array)) < 1000
    (tmp_path / "X" / "c" / "5" / "0").unlink()
    after = list_chunks(array.array())
    assert after is not None
    assert {what: n.tolist() for what, n in array.listing.changes(after).items()} == {
        "removed": [5]
    }
    assert after.absent is not None
    assert after.absent.tolist() == [5]
    assert open_stored(tmp_path / "X").part(50, 60).absent.tolist() == []
    assert open_stored(tmp_path / "X").part(5, 6).absent.tolist() == [5]


def test_more_absent_chunks_than_can_be_known_are_warned_of_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsoftmax.data.chunk_listing._MOST_ABSENT", 0)
    path, y = absent_chunks(tmp_path)
    (found,) = warned(lambda: model().fit(path, y))
    assert "1 chunk(s) of" in str(found.message)


def test_ingest_warns_of_absent_chunks_and_refuses_a_store_that_changes(tmp_path: Path) -> None:
    _, _, chunk = written(tmp_path / "in")
    zarr.open_group(tmp_path / "in", mode="a")
    with pytest.raises(DataError, match=r"were replaced \(c/3/0\)"):
        ingest(tmp_path / "in", tmp_path / "out", progress=lambda *done: other_rows(chunk))
    assert not (tmp_path / "out").exists()
    chunk.unlink()
    (found,) = warned(lambda: ingest(tmp_path / "in", tmp_path / "out"))
    assert "1 chunk(s) of" in str(found.message)
    assert Path(found.filename) == Path(__file__)


@pytest.mark.parametrize("root", ["", "X"])
def test_a_virtual_store_lacks_no_chunks(root: str, tmp_path: Path) -> None:
    path, y, _ = written(tmp_path, "format 2")
    files = list((tmp_path / "X").iterdir())
    refs = {
        f"X/{file.name}": file.read_text() if file.name.startswith(".") else [str(file)]
        for file in files
    }
    options = {"remote_protocol": "file", "remote_options": {"asynchronous": True}}
    virtual = fsspec.filesystem(
        "reference", fo={"version": 1, "refs": refs}, asynchronous=True, **options
    )
    store = zarr.storage.FsspecStore(virtual, path=root, read_only=True)
    array = zarr.open_array(store, path="" if root else "X", mode="r")
    found = model().fit(array, y)
    np.testing.assert_array_equal(found.coef_, model().fit(path, y).coef_)
    listing = list_chunks(array)
    assert listing is not None
    assert listing.n_absent == 0


class CountingStore(MemoryStore):
    """A store that knows how often each key was looked for."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: Counter[str] = Counter()

    async def exists(self, key: str) -> bool:
        self.looked[key] += 1
        return await super().exists(key)


def counted(values: np.ndarray, **layout: Any) -> tuple[CountingStore, Any]:
    """Return a store of an array that holds all its chunks, and the array as it is read."""
    store = CountingStore()
    config: Any = {"write_empty_chunks": True}
    array = zarr.create_array(store, name="X", data=values, config=config, **layout)
    opened = from_node("X", array)
    store.looked.clear()
    return store, opened


def test_a_chunk_of_fill_values_is_looked_for_once_in_all_passes() -> None:
    store, array = counted(np.repeat([0.0, 1, 0], 4), chunks=(4,))
    for _ in range(3):
        array.read(0, 12)
    assert store.looked == {"X/c/0": 1, "X/c/2": 1}
    forget_chunks()
    array.read(0, 12)
    assert store.looked == {"X/c/0": 2, "X/c/2": 2}


def test_a_tall_chunk_of_rare_labels_is_not_looked_for() -> None:
    labels = np.zeros(1000, np.int64)
    labels[-1] = 1
    store, array = counted(labels, chunks=(1000,))
    for start in range(0, 900, 100):
        array.read(start, start + 100)
    assert not store.looked


def test_a_shard_of_fill_values_is_looked_for_once_a_read_and_never_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dsoftmax.data.zarr_array._SHARD_BYTES", 1)  # read chunk by chunk
    values = np.repeat([0.0, 0, 0, 1], 5)
    store, array = counted(values, chunks=(5,), shards=(20,))
    for _ in range(3):
        array.read(0, 20)
    assert store.looked == {"X/c/0": 1}
    for _ in range(3):
        for start in range(0, 20, 5):
            array.read(start, start + 5)
    assert store.looked == {"X/c/0": 1}


@pytest.mark.parametrize("layout", [{"chunks": (6,)}, {"chunks": (2,), "shards": (6,)}])
def test_a_chunk_that_was_found_is_missed_in_rows_that_were_not_read(
    layout: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsoftmax.data.zarr_array._SHARD_BYTES", 1)
    values = np.array([1.0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1])
    store, array = counted(values, **layout)
    np.testing.assert_array_equal(array.read(0, 8), values[:8])  # more rows than a chunk has
    assert store.looked == {"X/c/1": 1}
    del store._store_dict["X/c/1"]
    np.testing.assert_array_equal(array.read(0, 8), values[:8])
    with pytest.raises(FileNotFoundError, match="chunk c/1 is not in the store"):
        array.read(0, 12)


@pytest.mark.parametrize("layout", ["dotted", "format 2", "nested format 2", "shards"])
def test_files_that_are_no_chunks_are_not_listed(layout: str, tmp_path: Path) -> None:
    _, _, chunk = written(tmp_path, layout)
    for name in ("03.0", "c/03/0", "99.0", "c/99/0", "c.99.0", "3", "3.0.tmp", "c/3/0.tmp", "99/0"):
        stray = tmp_path / "X" / name
        if not stray.exists() and not stray.parent.is_file():
            stray.parent.mkdir(parents=True, exist_ok=True)
            stray.touch()
    listing = list_chunks(zarr.open_array(tmp_path / "X", mode="r"))
    assert listing is not None
    assert listing.numbers.tolist() == list(range(8))
    chunk.unlink()
    after = list_chunks(zarr.open_array(tmp_path / "X", mode="r"))
    assert after is not None
    assert {what: n.tolist() for what, n in listing.changes(after).items()} == {"removed": [3]}


@pytest.mark.parametrize("declared", [True, False])
def test_absent_chunks_that_are_declared_missing_are_not_warned_of(
    tmp_path: Path, declared: bool
) -> None:
    attributes = {"_FillValue": 0} if declared else {}
    array = zarr.create_array(
        tmp_path / "X", shape=(40, 2), chunks=(10, 2), dtype="i2", attributes=attributes
    )
    array[:20] = np.arange(40).reshape(20, 2) + 1
    with pytest.warns(UserWarning, match="left out" if declared else "not in the store") as said:
        SoftmaxRegression().fit(open_data(tmp_path / "X", np.arange(40) % 2, missing="drop"))
    assert len(said) == 1
