from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.registry import known_implementations

from dsoftmax import DataError
from dsoftmax.storage.atomic_folder import open_folder


def test_a_file_is_whole_and_found_by_its_name_wherever_it_is(place: str) -> None:
    folder = open_folder(place)
    assert folder.names() == []
    folder.write("dsoftmax-lease.json", b"a", memoryview(b"bc"))
    folder.write("checkpoint-1", b"")
    assert folder.names() == ["checkpoint-1", "dsoftmax-lease.json"]
    assert open_folder(place).read("dsoftmax-lease.json") == b"abc"
    folder.write("dsoftmax-lease.json", b"d")
    assert folder.read("dsoftmax-lease.json") == b"d"
    for _ in range(2):
        folder.remove("dsoftmax-lease.json")
    assert folder.names() == ["checkpoint-1"]
    with pytest.raises(FileNotFoundError):
        folder.read("dsoftmax-lease.json")


def test_a_file_is_created_once_wherever_it_is(place: str) -> None:
    open_folder(place).create("dsoftmax-lease.json", b"first")
    with pytest.raises(FileExistsError):
        open_folder(place).create("dsoftmax-lease.json", b"second")
    assert open_folder(place).read("dsoftmax-lease.json") == b"first"


def test_one_of_many_creates_a_file(tmp_path: Path) -> None:
    for trial in range(20):
        start, won = threading.Barrier(8), []

        def compete(taker: int, name: str, start: Any, won: list[int]) -> None:
            start.wait()
            try:
                open_folder(tmp_path).create(name, str(taker).encode())
                won.append(taker)
            except FileExistsError:
                pass

        threads = [
            threading.Thread(target=compete, args=(taker, str(trial), start, won))
            for taker in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [str(taker) for taker in won] == [(tmp_path / str(trial)).read_text()]


def test_a_file_is_created_once_on_a_disk_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    test_a_file_is_created_once_wherever_it_is(str(tmp_path))
    assert os.listdir(tmp_path) == ["dsoftmax-lease.json"]


def test_a_link_that_a_network_disk_asked_for_twice_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    open_folder(tmp_path).create("a", b"ours")
    assert (tmp_path / "a").read_bytes() == b"ours"


def test_a_partial_file_that_is_taken_for_a_leftover_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, removed = os.link, []

    def clean(source: Path, target: Path) -> None:
        if not removed:
            removed.append(source)
            source.unlink()
        link(source, target)

    monkeypatch.setattr(os, "link", clean)
    open_folder(tmp_path).create("a", b"ours")
    assert removed
    assert (tmp_path / "a").read_bytes() == b"ours"


def test_a_link_to_nowhere_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(tmp_path / "nowhere")
    for attempt in (open_folder(tmp_path / "run").create, open_folder(tmp_path / "run").write):
        with pytest.raises(NotADirectoryError):
            attempt("a", b"")


def test_an_object_store_decides_who_created_an_object(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_folder(f"{s3}/conditional")
    folder.create("dsoftmax-lease.json", b"first")
    # As if the other one had come between the look and the put.
    monkeypatch.setattr(fsspec.filesystem("s3"), "exists", lambda path: False)
    with pytest.raises(FileExistsError):
        folder.create("dsoftmax-lease.json", b"second")
    assert folder.read("dsoftmax-lease.json") == b"first"
    folder.create("dsoftmax-lease.json", b"first")  # a put that was sent twice has been ours


def test_what_others_do_in_an_object_store_is_seen(s3: str) -> None:
    url = f"{s3}/others"
    folder, name = open_folder(url), "dsoftmax-lease.json"
    others = fsspec.filesystem("s3", skip_instance_cache=True)
    others.pipe_file(f"{url}/{name}", b"theirs")
    assert folder.names() == [name]
    others.rm_file(f"{url}/{name}")
    folder.create(name, b"ours")
    others.rm_file(f"{url}/{name}")
    assert folder.names() == []


def test_a_store_without_conditional_puts_is_checked_before_and_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = open_folder("memory://unconditional")
    files = fsspec.filesystem("memory")
    put = files.pipe_file

    def pipe_file(path: str, value: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            raise TypeError("unexpected keyword argument 'mode'")
        put(path, value)

    monkeypatch.setattr(files, "pipe_file", pipe_file)
    folder.create("dsoftmax-lease.json", b"first")
    with pytest.raises(FileExistsError):
        folder.create("dsoftmax-lease.json", b"second")

    def overtaken(path: str, value: bytes, mode: str = "overwrite") -> None:
        put(path, b"another")

    monkeypatch.setattr(files, "pipe_file", overtaken)
    with pytest.raises(FileExistsError):
        folder.create("checkpoint-1", b"ours")


def test_what_a_driver_raises_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise RuntimeError("no credentials")

    folder = open_folder("memory://drivers")
    for method in ("pipe_file", "cat_file", "ls", "exists", "rm_file"):
        monkeypatch.setattr(fsspec.filesystem("memory"), method, fail)
    message = r"memory://drivers: RuntimeError: no credentials"
    for attempt in (
        folder.names,
        lambda: folder.read("a"),
        lambda: folder.write("a", b""),
        lambda: folder.create("a", b""),
        lambda: folder.remove("a"),
    ):
        with pytest.raises(OSError, match=message):
            attempt()


def test_a_url_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="nowhere://a cannot be opened: Protocol not known"):
        open_folder("nowhere://a")
    absent = {"class": "absent_driver.Files", "err": "install absent_driver"}
    monkeypatch.setitem(known_implementations, "absent", absent)
    with pytest.raises(DataError, match="absent://a cannot be opened: install absent_driver"):
        open_folder("absent://a")


def test_a_file_that_was_not_written_to_the_end_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_folder(tmp_path)

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        folder.write("a", b"content")
    assert folder.names() == []


def test_a_folder_of_which_the_disk_makes_no_names_durable_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    open_folder(tmp_path / "new").write("a", b"content")
    assert open_folder(tmp_path / "new").read("a") == b"content"


def test_a_home_folder_and_a_file_url_are_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    open_folder("~/run").write("a", b"content")
    assert open_folder(f"file://{tmp_path}/run").read("a") == b"content"


def test_a_folder_stays_where_it_was_when_the_working_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = open_folder("run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folder.write("a", b"content")
    assert (tmp_path / "run" / "a").read_bytes() == b"content"


def test_a_file_is_durable_before_it_has_its_name_and_the_name_is_when_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(handle: int) -> None:
        calls.append("fsync folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "fsync file")
        fsync(handle)

    def recorded_replace(old: Path, new: Path) -> None:
        calls.append("replace")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    open_folder(tmp_path).write("checkpoint-00000001", b"content")
    assert calls == ["fsync file", "replace", "fsync folder"]
