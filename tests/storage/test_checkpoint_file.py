from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from dsoftmax import CheckpointError, DataError
from dsoftmax.storage.atomic_folder import open_folder
from dsoftmax.storage.checkpoint_file import CheckpointFolder
from dsoftmax.storage.records import STORABLE
from tests.storage.states import SOLVERS, damaged, same, state_of

OLD, NEW = {"step": 1, "point": np.arange(3.0)}, {"step": 2, "point": np.ones(3)}


def newest(place: str | Path) -> str:
    return open_folder(place).names()[-1]


def damage(place: str | Path, name: str) -> None:
    folder = open_folder(place)
    content = bytearray(folder.read(name))
    content[-1] ^= 1
    folder.write(name, bytes(content))


def both(folder: Path) -> list[Path]:
    """Write an older and a newer checkpoint, and return the files."""
    checkpoints = CheckpointFolder(folder)
    checkpoints.write(OLD)
    checkpoints.write(NEW)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("name", SOLVERS)
def test_what_is_read_is_what_was_written(tmp_path: Path, name: str) -> None:
    state = state_of(name)
    size = CheckpointFolder(tmp_path).write(state)
    assert same(CheckpointFolder(tmp_path).read(STORABLE), state)
    assert [file.stat().st_size for file in tmp_path.iterdir()] == [size]


def test_the_last_two_are_kept_wherever_they_are(place: str) -> None:
    assert CheckpointFolder(place).read({}) is None
    for step in range(12):
        CheckpointFolder(place).write([step, np.full(3, step)])
    assert open_folder(place).names() == ["checkpoint-00000011", "checkpoint-00000012"]
    assert same(CheckpointFolder(place).read({}), [11, np.full(3, 11)])


def test_a_damaged_one_gives_way_to_the_one_before_wherever_it_is(place: str) -> None:
    checkpoints = CheckpointFolder(place)
    for step in range(3):
        checkpoints.write(step)
    damage(place, newest(place))
    with pytest.warns(UserWarning, match=r"00000003 is damaged: .*SHA-256; going on from .*002"):
        assert checkpoints.read({}) == 1
    checkpoints.write(3)
    # The damaged one does not count as one of the last two.
    assert open_folder(place).names() == ["checkpoint-00000002", "checkpoint-00000004"]
    for name in open_folder(place).names():
        damage(place, name)
    with pytest.raises(CheckpointError, match=r"004 is damaged: .*002 is damaged: .*backup"):
        checkpoints.read({})


def test_a_checkpoint_is_read_by_numpy_alone(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path).write(NEW)
    (file,) = tmp_path.iterdir()
    with file.open("rb") as stream:
        header = json.loads(stream.readline())
        payload = stream.read()
    assert header["format"] == 8
    assert header["bytes"] == len(payload)
    assert header["sha256"] == hashlib.sha256(payload + b"format 8").hexdigest()
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["array-0"], NEW["point"])
        assert json.loads(bytes(arrays["tree"]))["dict"][0] == ["step", 2]


def test_a_thousand_damaged_files_give_the_state_before_or_a_clear_error(tmp_path: Path) -> None:
    older, newer = both(tmp_path)
    intact = {file: file.read_bytes() for file in (older, newer)}
    rng = np.random.default_rng(0)
    for trial in range(1000):
        newer.write_bytes(damaged(intact[newer], rng))
        with pytest.warns(UserWarning, match=f"{newer.name} is damaged") as caught:
            assert same(CheckpointFolder(tmp_path).read({}), OLD), trial
        assert len(caught) == 1
        older.write_bytes(damaged(intact[older], rng))
        with pytest.raises(CheckpointError, match="no checkpoint that is whole"):
            CheckpointFolder(tmp_path).read({})
        older.write_bytes(intact[older])


def forged(payload: bytes, version: int = 8) -> bytes:
    """Return a file that anyone can make, with a SHA-256 that is right."""
    sha256 = hashlib.sha256(payload + f"format {version}".encode()).hexdigest()
    header = {"format": version, "sha256": sha256, "bytes": len(payload)}
    return json.dumps(header).encode() + b"\n" + payload


def npy(values: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", compression) as file:
        warnings.simplefilter("ignore")  # of names that occur twice
        for name, content in members:
            file.writestr(name, content)
    return stream.getvalue()


def tree(value: Any) -> tuple[str, bytes]:
    text = value if isinstance(value, str) else json.dumps(value)
    return "tree.npy", npy(np.frombuffer(text.encode(), np.uint8))


class Bomb:
    """Leaves a folder behind where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def npy_of_shape(shape: tuple[int, ...], dtype: str = "<f8") -> bytes:
    stream = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + bytes(64)


ONE = {"array": "a"}
ZEROS = ("a.npy", npy(np.zeros(3)))
FORGERIES = {
    "no archive": b"PK",
    "an array": npy(np.zeros(3)),
    "a pickle": b"\x80\x04N.",
    "no tree": archive(ZEROS),
    "a pickled member": archive(tree(ONE), ("a.npy", npy(np.array([Bomb()], object)))),
    "a pickled tree": archive(("tree.npy", npy(np.array([Bomb()], object)))),
    "a member that is no array": archive(tree(ONE), ("a.npy", b"import os")),
    "a member of another name": archive(tree(ONE), ZEROS, ("../evil.py", b"import os")),
    "an array of no use": archive(tree(ONE), ZEROS, ("b.npy", npy(np.zeros(3)))),
    "a member that occurs twice": archive(tree(ONE), ZEROS, ZEROS),
    "a member that occurs twice by another name": archive(tree(ONE), ZEROS, ("a", ZEROS[1])),
    "a compressed member": archive(tree(ONE), ZEROS, compression=zipfile.ZIP_DEFLATED),
    "more rows than bytes": archive(tree(ONE), ("a.npy", npy_of_shape((10**9, 10)))),
    "more rows than memory": archive(tree(ONE), ("a.npy", npy_of_shape((2**50, 2**10)))),
    "a row longer than memory": archive(tree(ONE), ("a.npy", npy_of_shape((2,), "<U500000000"))),
    "rows of nothing": archive(tree(ONE), ("a.npy", npy_of_shape((2**62,), "|S0"))),
    "a negative shape": archive(tree(ONE), ("a.npy", npy_of_shape((-1,)))),
    "an unknown class": archive(tree({"record": ["os.system", [["command", "mkdir exploded"]]]})),
    "a NaN in JSON": archive(tree("[NaN]")),
    "no JSON": archive(tree("__import__('os').mkdir('exploded')")),
    "JSON of any depth": archive(tree("[" * 100_000 + "]" * 100_000)),
    "no text": archive(("tree.npy", npy(np.full(3, 255, np.uint8)))),
    "a tree of floats": archive(("tree.npy", npy(np.zeros(3)))),
}


@pytest.mark.parametrize("payload", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payload: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    both(tmp_path / "run")[1].write_bytes(forged(payload))
    with pytest.raises(CheckpointError, match="00000002 is whole, but holds what"):
        CheckpointFolder(tmp_path / "run").read({})
    assert os.listdir() == ["run"]


def test_the_size_of_overlapping_members_is_looked_at_first(tmp_path: Path) -> None:
    content = archive(tree(ONE), ZEROS, ("b.npy", ZEROS[1]))
    size = np.array(len(ZEROS[1]), "<u4").tobytes()
    assert content.count(size) >= 4  # in both headers of the member, packed and unpacked
    both(tmp_path)[1].write_bytes(forged(content.replace(size, b"\xf0\xff\xff\x7f")))
    with pytest.raises(CheckpointError, match="members overlap"):
        CheckpointFolder(tmp_path).read({})


@pytest.mark.parametrize("header", [b"", b"\n", b"[]\n", b"{}\n", b"\xff\n", b"[" * 990 + b"\n"])
def test_a_first_line_of_anything_else_is_damage(tmp_path: Path, header: bytes) -> None:
    both(tmp_path)[1].write_bytes(header)
    with pytest.warns(UserWarning, match="its first line cannot be read"):
        assert same(CheckpointFolder(tmp_path).read({}), OLD)


@pytest.mark.parametrize("version", [7, 9])
def test_another_format_is_no_damage(tmp_path: Path, version: int) -> None:
    newer = both(tmp_path)[1]
    newer.write_bytes(forged(b"of another time", version))
    complaint = rf"00000002 has format {version}.*the version that wrote it"
    with pytest.raises(CheckpointError, match=complaint):
        CheckpointFolder(tmp_path).read({})
    newer.write_bytes(forged(b"of the future", 8).replace(b'"format": 8', b'"format": 9'))
    with pytest.warns(UserWarning, match="SHA-256"):
        assert same(CheckpointFolder(tmp_path).read({}), OLD)


def test_a_checkpoint_of_other_classes_is_no_damage(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path).write(OLD)
    CheckpointFolder(tmp_path).write(state_of("adam"))
    with pytest.raises(CheckpointError, match=r"unknown class 'MiniBatchState'.*version"):
        CheckpointFolder(tmp_path).read({})


def test_nothing_is_written_among_other_things(place: str) -> None:
    open_folder(place).write("thesis.tex", b"years of work")
    complaint = r"holds 'thesis\.tex' and no checkpoint"
    with pytest.raises(DataError, match=complaint):
        CheckpointFolder(place).write(1)
    with pytest.raises(DataError, match=complaint):
        CheckpointFolder(place).read({})
    assert open_folder(place).names() == ["thesis.tex"]


def test_other_things_among_checkpoints_are_left_alone(tmp_path: Path) -> None:
    both(tmp_path)
    (tmp_path / "README").touch()
    (tmp_path / "checkpoint-of-mine").touch()
    (tmp_path / "checkpoint-500").mkdir()  # as another library calls its folders
    for step in range(3):
        CheckpointFolder(tmp_path).write(step)
    assert CheckpointFolder(tmp_path).read({}) == 2
    assert {"README", "checkpoint-of-mine", "checkpoint-500"} < set(os.listdir(tmp_path))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(DataError, match="is a file"):
            CheckpointFolder(place).read({})
        with pytest.raises(DataError, match="is a file"):
            CheckpointFolder(place).write(OLD)


def test_what_killed_writers_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-00000001.partial-0123abcd").write_bytes(bytes(100))
    assert CheckpointFolder(tmp_path).read({}) is None
    CheckpointFolder(tmp_path).write(OLD)
    assert os.listdir(tmp_path) == ["checkpoint-00000001"]


# A file size that the system does not allow is as good as a full disk: some of it is written.
WRITE_TOO_MUCH = """
import resource, sys
import numpy as np
from dsoftmax.storage.checkpoint_file import CheckpointFolder
checkpoints = CheckpointFolder(sys.argv[1])
checkpoints.write(1)
checkpoints.write(2)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    checkpoints.write(np.zeros(100_000))
except OSError as error:
    print(type(error).__name__, error.errno)
"""


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITE_TOO_MUCH, tmp_path], capture_output=True, text=True
    )
    assert done.stdout.startswith("OSError"), done.stderr
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-00000001", "checkpoint-00000002"]
    assert CheckpointFolder(tmp_path).read({}) == 2


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    files = both(tmp_path)

    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match="No space left"):
            CheckpointFolder(tmp_path).write(3)
    assert sorted(tmp_path.iterdir()) == files
    assert same(CheckpointFolder(tmp_path).read({}), NEW)


def test_an_outage_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    both(tmp_path)

    def fail(name: str) -> bytes:
        raise TimeoutError("the disk is away")

    monkeypatch.setattr(checkpoints._folder, "read", fail)
    with pytest.raises(TimeoutError):
        checkpoints.read({})


def test_older_ones_that_cannot_be_removed_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both(tmp_path)
    checkpoints = CheckpointFolder(tmp_path)

    def fail(name: str) -> None:
        raise PermissionError("no deletes")

    monkeypatch.setattr(checkpoints._folder, "remove", fail)
    with pytest.warns(UserWarning, match="cannot be removed"):
        checkpoints.write(3)
    assert checkpoints.read({}) == 3


def interrupted_at(line: int) -> Any:
    """Return a trace function that raises KeyboardInterrupt at so many lines of ours."""
    left = iter(range(line))

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if Path(frame.f_code.co_filename).name not in {"checkpoint_file.py", "atomic_folder.py"}:
            return None
        if event == "line" and next(left, None) is None:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    return trace


# A file can be open, and not yet in the hands of the `with` that closes it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_line_leaves_a_whole_state(tmp_path: Path) -> None:
    before = sys.gettrace()
    for line in range(10_000):
        folder = tmp_path / str(line)
        both(folder)
        (folder / "checkpoint-00000003.partial-0123abcd").touch()
        sys.settrace(interrupted_at(line))
        try:
            CheckpointFolder(folder).write(3)
            break
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        found = CheckpointFolder(folder).read({})
        assert same(found, NEW) or found == 3
        CheckpointFolder(folder).write(4)
        assert CheckpointFolder(folder).read({}) == 4
        assert len(os.listdir(folder)) == 2
    assert line > 40
    assert CheckpointFolder(folder).read({}) == 3


# Forks a writer for every line that it reads, which then writes as fast as it can.
WRITERS = """
import os, sys
import numpy as np
from dsoftmax.storage.checkpoint_file import CheckpointFolder
for line in sys.stdin:
    writer = os.fork()
    if writer == 0:
        checkpoints, step = CheckpointFolder(sys.argv[1]), int(line)
        while True:
            checkpoints.write({"step": step, "point": np.full(20_000, step)})
            step += 1
    print(writer, flush=True)
    os.waitpid(writer, 0)
"""


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", WRITERS, tmp_path / "run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def step_of(folder: Path) -> int:
    found = CheckpointFolder(folder).read({})
    if found is None:
        return 0
    assert same(found["point"], np.full(20_000, found["step"]))
    return int(found["step"])


@pytest.mark.parametrize("kills", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_a_writer_killed_at_any_moment_leaves_a_whole_state(
    tmp_path: Path, writers: subprocess.Popen[str], kills: int
) -> None:
    assert writers.stdin is not None
    assert writers.stdout is not None
    rng = np.random.default_rng(0)
    step = 0
    for _ in range(kills):
        print(step + 1, file=writers.stdin, flush=True)
        writer = int(writers.stdout.readline())
        time.sleep(rng.uniform(0, 0.05))
        os.kill(writer, signal.SIGKILL)
        print(step + 1, file=writers.stdin, flush=True)  # the answer says that it has ended
        os.kill(int(writers.stdout.readline()), signal.SIGKILL)
        found = step_of(tmp_path / "run")
        assert found >= step
        step = found
    CheckpointFolder(tmp_path / "run").write({"step": step + 1})  # who is not killed tidies up
    assert len(os.listdir(tmp_path / "run")) == 2


def test_an_interrupt_while_a_state_is_packed_is_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path / "run")
    folder.write({"step": 1})

    def interrupted(*arrays: Any, **named: Any) -> None:
        """Do as `np.savez` does when the interrupt comes before a member is closed."""
        try:
            raise KeyboardInterrupt
        finally:
            raise ValueError("Can't close the ZIP file while there is an open writing handle on it")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", interrupted)
        with pytest.raises(KeyboardInterrupt):
            folder.write({"step": 2})
    assert folder.read({}) == {"step": 1}
