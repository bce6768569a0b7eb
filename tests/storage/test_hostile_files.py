"""Whatever lies where a file of ours is expected, there is one short error, and soon."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import resource
import socket
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from dsoftmax import SoftmaxRegression, ingest, inspect_data, load_model, open_data
from dsoftmax.errors import ChunkError, DsoftmaxError, shortened
from tests.conftest import Dsoftmax

X = np.random.default_rng(0).normal(size=(40, 3))
Y = np.arange(40) % 3
LONGEST = 900


@contextmanager
def little_memory(more: int = 1 << 29) -> Iterator[None]:
    """Give this process no more than so many bytes beside those that it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def refused(door: Callable[[], Any], said: str = "") -> str:
    """Return the message by which a door refuses, in little memory."""
    with little_memory(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a chunk that is not there, for a folder
        with pytest.raises(DsoftmaxError, match=said) as caught:
            door()
    message = str(caught.value)
    assert len(message) <= LONGEST, message
    return message


def no_pipe(path: Path) -> None:
    os.mkfifo(path)


def no_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(path.parent)  # the name of a socket is short
        server.bind(path.name)
        os.chdir(before)


SPECIAL: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a device without end": (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    "a device of noise": (lambda path: path.symlink_to("/dev/urandom"), "is a device"),
    "a pipe": (no_pipe, "is a named pipe"),
    "a folder": (lambda path: path.mkdir(), "a folder|Is a directory|no group"),
    "a loop of links": (lambda path: path.symlink_to(path.name), "levels of symbolic links"),
    "a socket": (no_socket, "is a socket"),
}


def mostly_slow(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """Return parameters of a test, of which all but a few are slow."""
    return [pytest.param(case, marks=() if case in quick else pytest.mark.slow) for case in cases]


def stores(at: Path) -> Path:
    group = zarr.open_group(at / "data", mode="w")
    group.create_array("X", data=X, chunks=(10, 3))
    group.create_array("y", data=Y, chunks=(20,))
    return at


def fit(at: Path) -> Any:
    return SoftmaxRegression().fit(str(at / "data" / "X"), str(at / "data" / "y"))


def _inspected(at: Path) -> None:
    report = inspect_data(str(at / "data" / "X"), str(at / "data" / "y"))
    raise ChunkError(report.unreadable[0])  # a report says what is wrong, and is no error


STORE_DOORS: dict[str, Callable[[Path], Any]] = {
    "fit": fit,
    "inspect_data": lambda at: _inspected(at),
    "predict": lambda at: np.asarray(SoftmaxRegression().fit(X, Y).predict(str(at / "data" / "X"))),
    "ingest": lambda at: ingest(at / "data", at / "out"),
}


@pytest.mark.parametrize("what", mostly_slow(SPECIAL, "a pipe", "a folder"))
@pytest.mark.parametrize("door", mostly_slow(STORE_DOORS, "fit"))
@pytest.mark.parametrize("key", ["X/c/1/0", "X/zarr.json"])
def test_a_special_file_in_a_store_is_named(tmp_path: Path, what: str, door: str, key: str) -> None:
    make, said = SPECIAL[what]
    path = stores(tmp_path) / "data" / key
    path.unlink()
    make(path)
    message = refused(lambda: STORE_DOORS[door](tmp_path), said)
    assert "cannot be" in message


def test_a_special_file_counts_as_a_chunk_that_is_bad(tmp_path: Path) -> None:
    path = stores(tmp_path) / "data" / "X" / "c" / "1" / "0"
    path.unlink()
    os.mkfifo(path)
    source = open_data(
        str(tmp_path / "data" / "X"),
        str(tmp_path / "data" / "y"),
        on_bad_chunk="skip",
        max_bad_chunks=1,
    )
    with pytest.warns(UserWarning, match="rows 10 to 19.* a named pipe"):
        SoftmaxRegression().fit(source)


def test_folders_that_link_to_each_other_are_listed_once(tmp_path: Path) -> None:
    c = stores(tmp_path) / "data" / "X" / "c"
    for name in "abcdefgh":
        (c / name).symlink_to(c, target_is_directory=True)
    assert fit(tmp_path).n_features_in_ == 3


@pytest.mark.parametrize("what", mostly_slow(SPECIAL, "a pipe"))
@pytest.mark.parametrize("key", ["coef_/c/0/0", "coef_/zarr.json", "zarr.json"])
def test_a_special_file_in_a_model_is_named(tmp_path: Path, what: str, key: str) -> None:
    make, said = SPECIAL[what]
    SoftmaxRegression().fit(X, Y).save(tmp_path / "m")
    path = tmp_path / "m" / key
    path.unlink()
    make(path)
    refused(lambda: load_model(tmp_path / "m"), said)
    if key == "zarr.json":  # of what may be anything, it cannot be told that it is a model
        refused(lambda: SoftmaxRegression().fit(X, Y).save(tmp_path / "m", overwrite=True))


@pytest.mark.parametrize("what", mostly_slow(SPECIAL, "a pipe", "a device without end"))
def test_a_special_file_as_a_checkpoint_is_named(tmp_path: Path, what: str) -> None:
    make, said = SPECIAL[what]
    (tmp_path / "state").mkdir()
    make(tmp_path / "state" / "checkpoint-00000001")
    refused(lambda: SoftmaxRegression(checkpoint=tmp_path / "state").fit(X, Y), said)


@pytest.mark.parametrize("what", mostly_slow(SPECIAL, "a device without end"))
@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.csv", "a.parquet"])
def test_a_special_file_to_ingest_is_named(tmp_path: Path, what: str, name: str) -> None:
    make, said = SPECIAL[what]
    make(tmp_path / name)
    x, y = (None, None) if name == "a.npy" else ("X", "y")
    refused(lambda: ingest(tmp_path / name, tmp_path / "out", x=x, y=y), said)


@pytest.mark.parametrize("what", mostly_slow(SPECIAL, "a pipe"))
def test_a_special_run_file_is_bad_usage(
    tmp_path: Path,
    what: str,
    dsoftmax: Dsoftmax,
) -> None:
    make, _ = SPECIAL[what]
    make(tmp_path / "run.toml")
    with little_memory():
        done = dsoftmax("train", "--config", "run.toml")
    assert done.returncode == 2
    assert "run.toml" in done.stderr
    assert len(done.stderr) < LONGEST


# Headers and metadata that claim too much


def rewritten(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


GRID = {"name": "regular", "configuration": {"chunk_shape": [10**12, 3]}}
METADATA: dict[str, dict[str, Any]] = {
    "a length of 10**18": {"shape": [10**18, 3]},
    "10**15 chunks of 1": {
        "shape": [10**15, 3],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 3]}},
    },
    "10**18 features": {"shape": [40, 10**18]},
    "a length beyond 64 bits": {"shape": [10**40, 3]},
    "chunks of 10**12 rows": {"chunk_grid": GRID},
    "chunks of no rows": {
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 3]}}
    },
    "chunks of negative rows": {
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [-10, 3]}}
    },
    "negative rows": {"shape": [-40, 3]},
    "attributes that nest": {"attributes": "NEST"},
    "long attributes": {"attributes": {"scale_factor": "x" * 100_000}},
    "a long dtype": {"data_type": "x" * 100_000},
}


@pytest.mark.parametrize("what", METADATA)
@pytest.mark.parametrize("door", mostly_slow(STORE_DOORS, "fit"))
def test_metadata_that_claim_too_much_are_refused(tmp_path: Path, what: str, door: str) -> None:
    path = stores(tmp_path) / "data" / "X" / "zarr.json"
    rewritten(path, **METADATA[what])
    path.write_text(path.read_text().replace('"NEST"', "[" * 10**5 + "]" * 10**5))
    refused(lambda: STORE_DOORS[door](tmp_path))


@pytest.mark.parametrize("door", mostly_slow(STORE_DOORS, "fit"))
def test_metadata_of_100_mb_are_not_read(tmp_path: Path, door: str) -> None:
    path = stores(tmp_path) / "data" / "X" / "zarr.json"
    with path.open("ab") as file:
        file.truncate(10**8)
    refused(lambda: STORE_DOORS[door](tmp_path), "100,000,000 bytes")


def zstd_frame(n_blocks: int, size: int | None) -> bytes:
    """Return a frame of blocks that repeat a byte 2**17 times; it may say its size."""
    said = b"\0\x38" if size is None else b"\xe0" + size.to_bytes(8, "little")
    start = b"\x28\xb5\x2f\xfd" + said
    block = 2**17 << 3 | 1 << 1
    last = (block | 1).to_bytes(3, "little")
    return start + (block.to_bytes(3, "little") + b"a") * (n_blocks - 1) + last + b"a"


MANY = bytes(2**23)
BOMBS: dict[str, tuple[dict[str, Any], bytes]] = {
    "zstd": ({"compressors": ZstdCodec()}, zstd_frame(10**5, None)),
    "zstd that says so": ({"compressors": ZstdCodec()}, zstd_frame(8, 10**15)),
    "zstd in two frames": (
        {"compressors": ZstdCodec()},
        zstd_frame(1, None) + zstd_frame(10**5, None),
    ),
    "gzip": ({"compressors": GzipCodec()}, gzip.compress(MANY, 1)),
    "blosc": (
        {"compressors": BloscCodec()},
        bytes([2, 1, 0x21, 1]) + (2**31 - 1).to_bytes(4, "little") * 2 + bytes(99),
    ),
    "zstd in a shard": ({"compressors": ZstdCodec(), "shards": (20, 3)}, zstd_frame(10**5, None)),
    "zlib": ({"compressors": numcodecs.Zlib()}, zlib.compress(MANY, 1)),
    "lz4": ({"compressors": numcodecs.LZ4()}, b"\xff\xff\xff\x7f" + bytes(99)),
    "lzma": ({"compressors": numcodecs.LZMA()}, lzma.compress(MANY, preset=0)),
    "bz2": ({"compressors": numcodecs.BZ2()}, bz2.compress(MANY)),
}


@pytest.mark.parametrize("codec", mostly_slow(BOMBS, "zstd", "gzip", "blosc"))
def test_a_chunk_that_decodes_to_far_too_much_is_not_decoded(tmp_path: Path, codec: str) -> None:
    options, bomb = BOMBS[codec]
    numpys = isinstance(options["compressors"], numcodecs.abc.Codec)
    group = zarr.open_group(stores(tmp_path) / "data", mode="r+", zarr_format=3)
    if numpys:
        group = zarr.open_group(tmp_path / "data", mode="w", zarr_format=2)
        group.create_array("y", data=Y, chunks=(20,))
    array = group.create_array(
        "X", shape=X.shape, dtype="f8", chunks=(10, 3), overwrite=True, **options
    )
    array[:] = X
    path = tmp_path / "data" / "X" / ("1.0" if numpys else "c/1/0")
    if "shards" in options:  # each of its two chunks; the index is at the end, with a checksum
        index = np.array([0, len(bomb), 0, len(bomb)], "<u8").tobytes()
        bomb += index + google_crc32c.value(index).to_bytes(4, "little")
    path.write_bytes(bomb)
    assert "a chunk would be" in refused(lambda: fit(tmp_path))


def test_chunks_that_are_sound_are_decoded_by_all_codecs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (4000, 40)).astype("u1")  # it grows when it is encoded
    for number, (options, _) in enumerate(BOMBS.values()):
        options = {**options, "chunks": (1000, 40)} | (
            {"shards": (2000, 40)} if "shards" in options else {}
        )
        format_ = 2 if isinstance(options["compressors"], numcodecs.abc.Codec) else 3
        place = str(tmp_path / str(number))
        zarr.create_array(place, shape=noise.shape, dtype="u1", zarr_format=format_, **options)[
            :
        ] = noise
        np.testing.assert_array_equal(open_data(place).read(0, 4000).X, noise)


def test_a_shard_of_tiny_chunks_and_labels_of_great_length_are_sound(tmp_path: Path) -> None:
    shape, labels = (30_000, 1), np.array(["a" * 3000, "b" * 3000])[np.arange(200) % 2]
    tiny = zarr.create_array(
        str(tmp_path / "X"), shape=shape, dtype="i1", chunks=(1, 1), shards=shape
    )
    tiny[:] = np.arange(30_000)[:, None] % 100
    assert open_data(str(tmp_path / "X")).read(0, 30_000).X.sum() == tiny[:].sum()
    zarr.create_array(str(tmp_path / "y"), shape=200, dtype=str)[:] = labels
    assert SoftmaxRegression(max_iter=1).fit(np.ones((200, 1)), str(tmp_path / "y")).n_iter_ == 1


HEADERS = {
    "a product": b"{'descr': '<f8', 'fortran_order': False, 'shape': (10**15, 3)}",
    "10**15 rows": b"{'descr': '<f8', 'fortran_order': False, 'shape': (1%s, 3)}" % (b"0" * 15),
    "deep parentheses": b"(" * 9000,
    "deep dicts": b"{'a': " * 900 + b"1" + b"}" * 900,
    "huge strings": b"{'descr': '<U999999999', 'fortran_order': False, 'shape': (3, 3)}",
    "no end": b"{'descr': '<f8'",
}


@pytest.mark.parametrize("what", [*HEADERS, "a header of 1 GB"])
@pytest.mark.parametrize("archive", mostly_slow([False, True], False))
def test_a_header_that_claims_too_much_is_refused(tmp_path: Path, what: str, archive: bool) -> None:
    text = HEADERS.get(what, b"")
    size = len(text) if text else 10**9
    content = b"\x93NUMPY\2\0" + size.to_bytes(4, "little") + (text or bytes(2**24))
    if archive:
        with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as members:
            members.writestr("X.npy", content)
            members.writestr("y.npy", content)
        refused(lambda: ingest(tmp_path / "a.npz", tmp_path / "out"), r"a\.npz|X")
    else:
        (tmp_path / "a.npy").write_bytes(content)
        refused(lambda: ingest(tmp_path / "a.npy", tmp_path / "out"), r"a\.npy")


# Zip files


def zipped_store(at: Path, change: Callable[[bytearray], None]) -> Path:
    stores(at)
    path = at / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((at / "data").rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(at / "data"))
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return path


def _bad_crc(content: bytearray) -> None:
    content[content.index(b"X/c/1/0") + 30] ^= 1


def _truncated(content: bytearray) -> None:
    del content[len(content) // 2 :]


def _encrypted(content: bytearray) -> None:
    for start, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(start)
        while at >= 0:
            content[at + flags] |= 1
            at = content.find(start, at + 4)


def _inflated(content: bytearray) -> None:
    at = content.rindex(b"X/c/1/0") - 46
    content[at + 24 : at + 28] = (2**31).to_bytes(4, "little")


ZIPS = {
    "a bad checksum": (_bad_crc, "Bad CRC-32"),
    "truncated": (_truncated, "not a zip file"),
    "encrypted": (_encrypted, "encrypted|password"),
    "a member of 2 GB": (_inflated, "2,147,483,648 bytes"),
}


@pytest.mark.parametrize("what", ZIPS)
@pytest.mark.parametrize("door", mostly_slow(["inspect", "ingest", "train", "predict"], "inspect"))
def test_a_damaged_zip_file_is_refused_by_commands(
    tmp_path: Path,
    what: str,
    door: str,
    dsoftmax: Dsoftmax,
) -> None:
    change, said = ZIPS[what]
    path = zipped_store(tmp_path, change)
    if door == "predict":
        SoftmaxRegression().fit(X, Y).save(tmp_path / "m")
    arguments = {
        "inspect": ["inspect", path],
        "ingest": ["ingest", path, "out"],
        "train": ["train", path, "m", "--quiet"],
        "predict": ["predict", "m", path, "out/p"],
    }
    done = dsoftmax(*arguments[door])
    assert re.search(said, done.stdout + done.stderr)
    assert len(done.stderr) < LONGEST
    assert done.returncode in ((0, 1, 2) if door == "inspect" else (1, 2))


# Paths

PATHS = {
    "a NUL": "a\0b",
    "a part that is too long": "a" * 5000,
    "a path that is too long": "a/" * 5000,
    "a surrogate": "a\ud800b",
    "no such user": "~nobody-of-this-name/x",
}
PATH_DOORS: dict[str, Callable[[str, Path], Any]] = {
    "open_data": lambda path, at: open_data(path),
    "load_model": lambda path, at: load_model(path),
    "inspect_data": lambda path, at: inspect_data(path),
    "save": lambda path, at: SoftmaxRegression().fit(X, Y).save(path),
    "checkpoint": lambda path, at: SoftmaxRegression(checkpoint=path).fit(X, Y),
    "ingest": lambda path, at: ingest(path, at / "out"),
    "ingest to": lambda path, at: ingest(at / "a.npz", path),
    "predict_to": lambda path, at: SoftmaxRegression().fit(X, Y).predict_to(X, path),
}


@pytest.mark.parametrize("what", mostly_slow(PATHS, "a NUL", "a part that is too long"))
@pytest.mark.parametrize("door", PATH_DOORS)
def test_a_path_that_no_system_can_follow_is_refused(tmp_path: Path, what: str, door: str) -> None:
    np.savez(tmp_path / "a.npz", X=X, y=Y)
    refused(lambda: PATH_DOORS[door](PATHS[what], tmp_path), "is no path")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("what", mostly_slow(PATHS, "a NUL"))
@pytest.mark.parametrize(
    "command",
    [
        "inspect PATH",
        "ingest PATH out",
        "ingest a.npz PATH",
        "train PATH m",
        "train data PATH",
        "train data m --checkpoint PATH",
        "train data --run-folder PATH",
        "train data m --log PATH",
        "train data m --plot PATH",
        "train data m --validation PATH",
        "train data m --config PATH",
        "train data m --y PATH",
        "predict PATH data out",
        "predict m PATH out",
        "evaluate PATH data",
        "plan PATH",
        "certs PATH",
    ],
)
def test_a_command_refuses_a_path_that_no_system_can_follow(
    tmp_path: Path,
    what: str,
    command: str,
    dsoftmax: Dsoftmax,
) -> None:
    np.savez(tmp_path / "a.npz", X=X, y=Y)
    stores(tmp_path)
    done = dsoftmax(*command.replace("PATH", PATHS[what]).split(" "))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


# Tables and run files


@pytest.mark.slow
def test_a_table_of_30_000_columns_is_read(tmp_path: Path) -> None:
    names = [*(f"f{i}" for i in range(30_000)), "y"]
    row = ",".join(["1.5"] * 30_000)
    (tmp_path / "t.csv").write_text("\n".join([",".join(names), f"{row},a", f"{row},b"]))
    with little_memory(2**32):  # Arrow and glibc reserve addresses for each of their threads
        ingest(tmp_path / "t.csv", tmp_path / "out", y="y")
    assert zarr.open_array(tmp_path / "out" / "X").shape == (2, 30_000)


TABLES = {
    "a long field": "a,b,y\n1,2,u\n1," + "x" * 100_000 + ",u\n",
    "a long line": "a,b,y\n" + "1," * 100_000 + "u\n",
    "a long name": "a" * 100_000 + ",b,y\nx,2,u\n",
    "a NUL": "a,b,y\n1,\0,u\n",
    "a quote": 'a,b,y\n1,"2,u\n1,2,v\n',
    "nothing": "",
    "one line": "a,b,y\n",
    "no UTF-8": "a,b,y\n1,2,\udcff\n",
}


@pytest.mark.parametrize("what", TABLES)
def test_a_table_that_is_none_is_refused_in_a_few_words(tmp_path: Path, what: str) -> None:
    text = TABLES[what].encode(errors="surrogateescape")
    (tmp_path / "t.csv").write_bytes(text)
    refused(lambda: ingest(tmp_path / "t.csv", tmp_path / "out", y="y"), r"t\.csv")


RUNS = {
    "5,000 arrays in each other": "[data]\nstore = " + "[" * 5000 + "]" * 5000,
    "5,000 tables in each other": "[data]\n[" + ".".join("a" * 5000) + "]",
    "5,000 dots": "[data]\n" + ".".join("a" * 5000) + " = 1",
    "a NUL in the store": '[data]\nstore = "a\\u0000b"\n[output]\nmodel = "m"',
    "a long store": '[data]\nstore = "' + "a" * 10**5 + '"\n[output]\nmodel = "m"',
    "a long solver": '[data]\nstore = "d"\n[model]\nsolver = "' + "a" * 10**5 + '"',
    "a long size": '[data]\nstore = "d"\n[cluster]\nmemory_limit = "' + "a" * 10**5 + '"',
    "a long key": "[data]\n" + "a" * 10**5 + " = 1",
    "a long table": "[" + "a" * 10**5 + "]",
    "a long number": "[model]\nalpha = " + "9" * 10**5,
    "2 MB": "#" * 2_000_000,
    "no UTF-8": "\udcff",
}


@pytest.mark.parametrize("what", mostly_slow(RUNS, *list(RUNS)[:1], *list(RUNS)[3:]))
def test_a_run_file_that_is_none_is_bad_usage_in_a_few_words(
    tmp_path: Path,
    what: str,
    dsoftmax: Dsoftmax,
) -> None:
    (tmp_path / "run.toml").write_text(RUNS[what], errors="surrogateescape")
    done = dsoftmax("train", "--config", "run.toml")
    assert done.returncode == 2
    assert len(done.stderr) < LONGEST


def test_what_others_wrote_is_quoted_in_200_characters() -> None:
    assert shortened("short") == "short"
    assert len(shortened("x" * 100_000)) < 210
    assert shortened("a\nb\x00\x1b[31m") == "a b\\x00\\x1b[31m"
