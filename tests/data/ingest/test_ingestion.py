from __future__ import annotations

import doctest
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dsoftmax.data.ingest import ingestion
from dsoftmax.data.ingest.ingestion import ingest
from dsoftmax.errors import DataError

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Save arrays as the members of an archive, in a folder of its own."""

    def save_archive(compressed: bool = False, /, **arrays: Any) -> Path:
        path = tmp_path / "in" / "data.npz"
        path.parent.mkdir(exist_ok=True)
        (np.savez_compressed if compressed else np.savez)(path, **arrays)
        return path

    return save_archive


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "data.zarr"


def digits(n: int = 100, d: int = 7, dtype: str = "u1") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 2, (n, d)).astype(dtype), rng.integers(0, 10, n)


def assert_nothing_left(out: Path) -> None:
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "i8", "f2", "f4", "f8", ">i2", ">f8"])
def test_the_store_holds_what_the_archive_held(
    save: Save, out: Path, dtype: str, compressed: bool
) -> None:
    X, y = digits(dtype=dtype)
    assert ingest(save(compressed, X=X, y=y), out, chunk_rows=30) == out
    group = zarr.open_group(out, mode="r")
    np.testing.assert_array_equal(group["X"][:], X)
    np.testing.assert_array_equal(group["y"][:], y)
    assert group["X"].dtype == X.dtype.newbyteorder("=")
    assert group["X"].dtype.isnative
    assert group["X"].chunks == (30, 7)
    assert group.metadata.zarr_format == 3
    assert group.attrs["dsoftmax"] == {"source": "data.npz", "rows": 100, "shuffle": None}
    assert [path.name for path in out.parent.iterdir()] == ["data.zarr"]


@pytest.mark.parametrize(("n", "d"), [(1, 1), (1, 5), (5, 1), (9, 3), (10, 3), (11, 3)])
def test_any_number_of_rows_and_columns_survives(save: Save, out: Path, n: int, d: int) -> None:
    X, y = digits(n, d)
    ingest(save(X=X, y=y), out, chunk_rows=10)
    np.testing.assert_array_equal(zarr.open_array(out / "X", mode="r")[:], X)
    np.testing.assert_array_equal(zarr.open_array(out / "y", mode="r")[:], y)


def test_chunks_are_whole_rows_of_about_four_mebibytes(save: Save, out: Path) -> None:
    ingest(save(X=np.zeros((5000, 1000), "u2"), y=np.zeros(5000)), out)
    assert zarr.open_array(out / "X", mode="r").chunks == (4 * 2**20 // 2000, 1000)


def test_a_row_larger_than_a_chunk_gets_its_own(save: Save, out: Path) -> None:
    ingest(save(X=np.zeros((2, 5 * 2**20), "u1"), y=np.zeros(2)), out)
    assert zarr.open_array(out / "X", mode="r").chunks == (1, 5 * 2**20)


def test_string_labels_survive(save: Save, out: Path) -> None:
    labels = np.array(["deer", "", "été", "a much longer label"] * 5)
    ingest(save(X=np.eye(20), y=labels), out)
    assert zarr.open_array(out / "y", mode="r")[:].tolist() == labels.tolist()


def test_npy_files_are_paired_and_labels_are_optional(tmp_path: Path) -> None:
    X, y = digits()
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "labels.npy", y)
    ingest(tmp_path / "X.npy", tmp_path / "both.zarr", labels=tmp_path / "labels.npy")
    ingest(tmp_path / "X.npy", tmp_path / "alone.zarr")
    both = zarr.open_group(tmp_path / "both.zarr", mode="r")
    np.testing.assert_array_equal(both["X"][:], X)
    np.testing.assert_array_equal(both["y"][:], y)
    assert list(zarr.open_group(tmp_path / "alone.zarr", mode="r")) == ["X"]


def test_the_usual_members_are_found_and_others_can_be_named(save: Save, out: Path) -> None:
    X, y = digits(10)
    path = save(X_train=X, y_train=y, X_test=X[:4] + 1, y_test=y[:4])
    ingest(path, out)
    assert zarr.open_array(out / "X", mode="r").shape == (10, 7)
    ingest(path, out, x="X_test", y="y_test", overwrite=True)
    np.testing.assert_array_equal(zarr.open_array(out / "X", mode="r")[:], X[:4] + 1)


@pytest.mark.parametrize("names", [{}, {"x": "images"}, {"x": "images", "y": "label"}])
def test_members_that_cannot_be_told_are_listed(
    save: Save, out: Path, names: dict[str, str]
) -> None:
    path = save(images=np.zeros((3, 2), "f4"), classes=np.zeros(3, "i8"))
    with pytest.raises(DataError, match=r"images \(3, 2\) float32, classes \(3,\) int64"):
        ingest(path, out, **names)
    assert_nothing_left(out)


GOOD_X, GOOD_Y = np.zeros((4, 2)), np.zeros(4, "i8")
UNUSABLE = {
    "images are not rows": (np.zeros((4, 2, 2)), GOOD_Y, r"expected \(n_samples, n_features\)"),
    "one feature needs a column": (np.zeros(4), GOOD_Y, r"expected \(n_samples, n_features\)"),
    "one-hot labels": (GOOD_X, np.eye(4), r"2 dimensions; expected \(n_samples,\)"),
    "no rows": (np.zeros((0, 2)), np.zeros(0), "empty"),
    "no columns": (np.zeros((4, 0)), GOOD_Y, "empty"),
    "unequal lengths": (GOOD_X, np.zeros(5), r"\(4, 2\).*\(5,\).*one label for each row"),
    "complex": (GOOD_X + 1j, GOOD_Y, "complex128.*real numbers: convert"),
    "strings in X": (np.full((4, 2), "a"), GOOD_Y, "real numbers: convert"),
    "bytes in y": (GOOD_X, np.full(4, b"a"), "real numbers or strings: convert"),
    "dates in y": (GOOD_X, np.zeros(4, "M8[s]"), "real numbers or strings: convert"),
    "structured": (np.zeros((4, 2), [("a", "f4")]), GOOD_Y, "real numbers: convert"),
    "Fortran order": (np.asfortranarray(np.eye(4)), GOOD_Y, "np.ascontiguousarray"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_arrays_are_refused_with_a_remedy(save: Save, out: Path, case: str) -> None:
    X, y, message = UNUSABLE[case]
    with pytest.raises(DataError, match=message):
        ingest(save(X=X, y=y), out)
    assert_nothing_left(out)


class Trap:
    """Unpickling it fails the test."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("the pickle was opened",)


@pytest.mark.parametrize("name", ["X", "y"])
def test_pickled_objects_are_refused_and_never_loaded(save: Save, out: Path, name: str) -> None:
    arrays = {"X": GOOD_X, "y": GOOD_Y}
    arrays[name] = np.full(arrays[name].shape, Trap(), dtype=object)
    with pytest.raises(DataError, match=f"^{name} .*pickles are never loaded"):
        ingest(save(**arrays), out)
    assert_nothing_left(out)


@pytest.mark.parametrize("suffix", ["npz", "npy"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, out: Path, suffix: str, kept: float) -> None:
    X, y = digits(1000)
    path = tmp_path / f"data.{suffix}"
    np.savez(path, X=X, y=y) if suffix == "npz" else np.save(path, X)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(DataError, match="damaged"):
        ingest(path, out)
    assert_nothing_left(out)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_member_leaves_nothing_behind(save: Save, out: Path, compressed: bool) -> None:
    X, y = digits(20_000)
    path = save(compressed, X=X, y=y)
    content = bytearray(path.read_bytes())
    content[20_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"data\.npz cannot be read"):
        ingest(path, out, chunk_rows=100)
    assert_nothing_left(out)


def test_a_member_that_ends_before_its_header_says_is_refused(tmp_path: Path, out: Path) -> None:
    np.save(tmp_path / "X.npy", GOOD_X)
    np.save(tmp_path / "y.npy", GOOD_Y)
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("X.npy", (tmp_path / "X.npy").read_bytes()[:-8])
        archive.write(tmp_path / "y.npy", "y.npy")
    with pytest.raises(DataError, match="has 184 bytes; expected 192"):
        ingest(tmp_path / "data.npz", out)
    assert_nothing_left(out)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_failed_ingest_leaves_nothing_behind(
    save: Save, out: Path, error: type[BaseException]
) -> None:
    def fail(rows_done: int, rows_total: int) -> None:
        assert not out.exists()
        raise error

    X, y = digits()
    with pytest.raises(error):
        ingest(save(X=X, y=y), out, chunk_rows=10, progress=fail)
    assert_nothing_left(out)


def test_a_failed_write_is_reported_and_leaves_nothing_behind(
    save: Save, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_the_disk(*_: Any) -> None:
        raise OSError("No space left on device")

    X, y = digits()
    monkeypatch.setattr(zarr.Array, "__setitem__", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        ingest(save(X=X, y=y), out, chunk_rows=10)
    assert_nothing_left(out)


def test_an_existing_store_is_kept_unless_told_otherwise(save: Save, out: Path) -> None:
    X, y = digits()
    path = save(X=X, y=y)
    ingest(path, out)
    with pytest.raises(DataError, match=r"already holds a Zarr store: pass overwrite=True"):
        ingest(path, out)
    ingest(save(X=X[:3], y=y[:3]), out, overwrite=True)
    assert zarr.open_array(out / "X", mode="r").shape == (3, 7)
    assert list(out.parent.iterdir()) == [out]


def test_a_failed_overwrite_keeps_the_old_store(save: Save, out: Path) -> None:
    X, y = digits()
    path = save(X=X, y=y)
    ingest(path, out)
    with pytest.raises(ZeroDivisionError):
        ingest(path, out, overwrite=True, progress=lambda done, total: 1 // 0)
    np.testing.assert_array_equal(zarr.open_array(out / "X", mode="r")[:], X)
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_not_a_store_is_never_replaced(
    save: Save, out: Path, kind: str, overwrite: bool
) -> None:
    thesis = out if kind == "file" else out / "thesis.tex"
    thesis.parent.mkdir(exist_ok=True)
    thesis.write_text("years of work")
    with pytest.raises(DataError, match="never replaced"):
        ingest(save(X=GOOD_X, y=GOOD_Y), out, overwrite=overwrite)
    assert thesis.read_text() == "years of work"


def test_a_url_is_written_in_place_under_the_same_rules(save: Save) -> None:
    fsspec = pytest.importorskip("fsspec")
    url, path = "memory://ingestion/data.zarr", save(X=GOOD_X, y=GOOD_Y)
    assert ingest(path, url) == url
    with pytest.raises(DataError, match="pass overwrite=True"):
        ingest(path, url)
    ingest(path, url, overwrite=True)
    assert zarr.open_group(url, mode="r")["X"].shape == (4, 2)

    fsspec.filesystem("memory").pipe("/ingestion/thesis.tex", b"years of work")
    with pytest.raises(DataError, match="never replaced"):
        ingest(path, "memory://ingestion", overwrite=True)


def test_a_file_url_is_a_path(save: Save, out: Path) -> None:
    assert ingest(save(X=GOOD_X, y=GOOD_Y), f"file://{out}") == out


def test_arguments_that_do_not_fit_the_source_are_refused(save: Save, out: Path) -> None:
    path = save(X=GOOD_X, y=GOOD_Y)
    np.save(path.with_suffix(".npy"), GOOD_X)
    with pytest.raises(DataError, match="expected x and y to name"):
        ingest(path, out, labels=path.with_suffix(".npy"))
    with pytest.raises(DataError, match="expected x and y to name"):
        ingest(path.with_suffix(".npy"), out, x="X")
    with pytest.raises(DataError, match=r"holds X \(4, 2\).*got x=\['X'\], y='y'"):
        ingest(path, out, x=["X"], y="y")
    with pytest.raises(DataError, match="chunk_rows=0; expected 1 or more"):
        ingest(path, out, chunk_rows=0)
    with pytest.raises(FileNotFoundError):
        ingest(path.with_name("absent.npz"), out)
    assert_nothing_left(out)


def test_progress_counts_every_row_once(save: Save, out: Path) -> None:
    X, y = digits(25)
    calls: list[tuple[int, int]] = []
    ingest(save(X=X, y=y), out, chunk_rows=10, progress=lambda *rows: calls.append(rows))
    assert calls == [(10, 25), (20, 25), (25, 25)]


def test_chunks_of_zeros_are_written_too(save: Save, out: Path) -> None:
    ingest(save(X=np.zeros((40, 2)), y=np.zeros(40)), out, chunk_rows=10)
    assert len([path for path in (out / "X" / "c").rglob("*") if path.is_file()]) == 4


@pytest.mark.parametrize("name", ["X", "y"])
def test_a_flipped_bit_is_detected_on_reading(save: Save, out: Path, name: str) -> None:
    X, y = digits(1000, dtype="f8")
    ingest(save(X=X + np.pi, y=y), out)
    chunk = next(path for path in (out / name / "c").rglob("*") if path.is_file())
    stored = chunk.read_bytes()
    for position in np.linspace(0, len(stored) - 1, 50).astype(int):
        damaged = bytearray(stored)
        damaged[position] ^= 4
        chunk.write_bytes(damaged)
        with pytest.raises(RuntimeError, match="Zstd"):
            zarr.open_array(out / name, mode="r")[:]


# Not ru_maxrss: a child inherits that of the process that started it, here of all the tests.
MEASURE = """
import sys
from dsoftmax.data.ingest.ingestion import ingest
source, store, y, shuffle = sys.argv[1:]
ingest(source, store, y=y or None, shuffle=int(shuffle) if shuffle else None)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")


def peak_bytes(source: Path, out: Path, y: str = "", shuffle: str = "") -> int:
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, source, out, y, shuffle],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(measured.stdout) * 1024


def save_large(path: Path, rows: int) -> None:
    """Save an archive of zeros, of 1000 bytes a row, in little memory."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (rows, 1000)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("X.npy", "w") as member:
            np.lib.format.write_array_header_1_0(member, header)
            for _ in range(rows // 6000):
                member.write(bytes(6_000_000))
        with archive.open("y.npy", "w") as member:
            np.lib.format.write_array(member, np.zeros(rows, "u1"))


@needs_proc
@pytest.mark.slow
def test_memory_stays_bounded_however_large_the_member(tmp_path: Path, out: Path) -> None:
    save_large(tmp_path / "large.npz", 600_000)
    assert peak_bytes(tmp_path / "large.npz", out) < 200e6


@needs_proc
@pytest.mark.slow
def test_memory_stays_bounded_however_large_a_parquet_file(tmp_path: Path, out: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    part = pa.table({f"f{place}": np.arange(500_000) * 1.0 for place in range(10)})
    part = part.append_column("y", pa.array(np.zeros(500_000, "u1")))
    with pq.ParquetWriter(tmp_path / "large.parquet", part.schema) as writer:
        for _ in range(10):
            writer.write_table(part, row_group_size=500_000)
    assert peak_bytes(tmp_path / "large.parquet", out, "y") < 300e6


@needs_proc
@pytest.mark.slow
def test_memory_stays_bounded_however_large_a_csv_file(tmp_path: Path, out: Path) -> None:
    pytest.importorskip("pyarrow")
    with (tmp_path / "large.csv").open("w") as file:
        file.write(",".join(f"f{place}" for place in range(20)) + ",y\n")
        for _ in range(200):
            file.write(("1," * 20 + "a\n") * 10_000)
    assert peak_bytes(tmp_path / "large.csv", out, "y") < 300e6


@needs_proc
@pytest.mark.slow
def test_memory_stays_bounded_however_much_is_shuffled(tmp_path: Path, out: Path) -> None:
    save_large(tmp_path / "large.npz", 600_000)
    assert peak_bytes(tmp_path / "large.npz", out, shuffle="1") < 300e6
    assert peak_bytes(out, tmp_path / "again.zarr", shuffle="1") < 300e6


def test_the_documented_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(ingestion).failed == 0
