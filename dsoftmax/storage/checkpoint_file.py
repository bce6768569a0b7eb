"""A folder of checkpoints: each is one file, written atomically and verified when it is read.

A file is a line of JSON, {"format": 8, "sha256": ..., "bytes": ...}, and the bytes of an
uncompressed .npz, so that NumPy alone reads it. The member "tree" is JSON, the others are
the arrays that it names (see `dsoftmax.storage.records`). The SHA-256 is that of the .npz followed
by the text "format 8": no bit of a file can flip unseen, whatever the format.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from dsoftmax.errors import CheckpointError, shortened
from dsoftmax.storage.atomic_folder import dsoftmax_files, open_folder
from dsoftmax.storage.digests import sha256
from dsoftmax.storage.records import flatten, restore
from dsoftmax.typing import Array

_FORMAT = 8
_KEPT = 2
_START = "checkpoint-"
_NAME = re.compile(rf"{_START}\d{{8,}}")
_HEADER_BYTES = 1000  # more than any header has
_TREE = "tree"


class CheckpointFolder:
    """The checkpoints of one run: the last two, numbered.

    Parameters
    ----------
    place : path or URL of a folder that is new, empty, or holds checkpoints
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self._folder = open_folder(place)
        self._damaged: set[str] = set()

    def write(self, value: Any) -> int:
        """Write the next checkpoint, and then remove all but the last two that are whole.

        Parameters
        ----------
        value : anything that `dsoftmax.storage.records.flatten` takes

        Returns
        -------
        size in bytes

        Raises
        ------
        OSError
            If it cannot be written: what was there before is there still.
        DataError
            If the folder holds other things and no checkpoint.
        """
        payload = _pack(value)
        header = _header(payload)
        names = dsoftmax_files(self._folder)
        before = _checkpoints(names)
        self._remove_leftovers(set(names) - set(before))
        name = f"{_START}{_number(before[-1]) + 1 if before else 1:08d}"
        self._folder.write(name, header, payload)
        self._tidy([*before, name])
        return len(header) + len(payload)

    def read(self, kinds: Mapping[str, type]) -> Any | None:
        """Return what the newest checkpoint that is whole holds, or None if there is none at all.

        Parameters
        ----------
        kinds : the classes that may be built, by name

        Raises
        ------
        CheckpointError
            If all are damaged, or the newest that is whole cannot be read by this version.
        DataError
            If the folder holds other things and no checkpoint.
        """
        faults: dict[str, str] = {}
        for name in reversed(_checkpoints(dsoftmax_files(self._folder))):
            try:
                payload, version = _verified(self._read(name))
            except _DamageError as error:
                faults[name] = str(error)
                continue
            value = self._restore(name, payload, version, kinds)
            self._damaged.update(faults)
            if faults:
                warnings.warn(
                    f"{self._folder.place}: {_listed(faults)}; going on from {name} instead",
                    stacklevel=2,
                )
            return value
        if faults:
            raise CheckpointError(
                f"{self._folder.place} has no checkpoint that is whole: {_listed(faults)}; bring "
                "one back from a backup, or remove them to start from the beginning"
            )
        return None

    def _read(self, name: str) -> bytes:
        try:
            return self._folder.read(name)
        except FileNotFoundError as error:
            raise _DamageError("it is gone") from error
        except OSError as error:
            if error.errno != errno.EIO:  # the network, say, or the permissions: no damage
                raise
            raise _DamageError(f"the disk cannot read it ({error})") from error

    def _restore(
        self, name: str, payload: io.BytesIO, version: int, kinds: Mapping[str, type]
    ) -> Any:
        place = f"{self._folder.place}/{name}"
        if version != _FORMAT:
            raise CheckpointError(
                f"{place} has format {version}, and this version of dsoftmax reads {_FORMAT}; go "
                "on with the version that wrote it"
            )
        try:
            return restore(*_unpack(payload), kinds)
        except Exception as error:  # NumPy and zipfile raise anything on a file made by hand
            why = shortened(error)
            raise CheckpointError(
                f"{place} is whole, but holds what this version of dsoftmax cannot read ({why}); "
                "go on with the version that wrote it, or remove it to do without"
            ) from error

    def _remove_leftovers(self, names: set[str]) -> None:
        """Remove the partial files of killed processes."""
        for name in names:
            if name.startswith(_START):
                self._folder.remove(name)

    def _tidy(self, names: list[str]) -> None:
        whole = [name for name in names if name not in self._damaged]
        try:
            for name in sorted(set(names) - set(whole[-_KEPT:])):
                self._folder.remove(name)
        except OSError as error:
            warnings.warn(
                f"{self._folder.place}: older checkpoints cannot be removed ({error}), and will "
                "pile up",
                stacklevel=3,
            )


class _DamageError(Exception):
    """Why a file is not as it was written."""


def _checkpoints(names: list[str]) -> list[str]:
    return sorted(filter(_NAME.fullmatch, names), key=_number)


def _number(name: str) -> int:
    return int(name.removeprefix(_START))


def _listed(faults: Mapping[str, str]) -> str:
    return "; ".join(f"{name} is damaged: {why}" for name, why in faults.items())


def _pack(value: Any) -> memoryview:
    tree, arrays = flatten(value)
    text = json.dumps(tree, allow_nan=False, separators=(",", ":")).encode()
    members: dict[str, Any] = {_TREE: np.frombuffer(text, np.uint8), **arrays}
    stream = io.BytesIO()
    # Not compressed: float64 values hardly shrink, and a checkpoint must be quick to write.
    try:
        np.savez(stream, **members)
    except ValueError as error:
        # zipfile raises this where an interrupt has kept it from closing a member.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    return stream.getbuffer()


def _unpack(stream: io.BytesIO) -> tuple[Any, dict[str, Array]]:
    with np.load(stream, allow_pickle=False) as archive:
        members = archive.zip.infolist()
        # What zipfile makes of a small file can be any size, and hide one member by another.
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it is compressed")
        if sum(member.file_size for member in members) > len(stream.getbuffer()):
            raise ValueError("its members overlap")
        if len(set(archive.files)) != len(members):
            raise ValueError("a member occurs twice")
        arrays = {name: archive[name] for name in archive.files}
    if sum(array.size for array in arrays.values()) > len(stream.getbuffer()):
        raise ValueError("it has more entries than bytes")
    text = bytes(arrays.pop(_TREE))
    return json.loads(text, parse_constant=_refuse_constant), arrays


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _digest(payload: memoryview, version: int) -> str:
    return sha256(payload, f"format {version}")


def _header(payload: memoryview) -> bytes:
    facts = {"format": _FORMAT, "sha256": _digest(payload, _FORMAT), "bytes": len(payload)}
    return json.dumps(facts).encode() + b"\n"


def _verified(content: bytes) -> tuple[io.BytesIO, int]:
    """Return the payload as a stream that stands at its beginning, and the format."""
    end = content.find(b"\n", 0, _HEADER_BYTES) + 1
    try:
        header = json.loads(content[:end])
        version, sha256, size = header["format"], header["sha256"], header["bytes"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _DamageError("its first line cannot be read") from error
    payload = memoryview(content)[end:]
    if len(payload) != size:
        raise _DamageError(f"it has {len(payload)} of its {size} bytes")
    if _digest(payload, version) != sha256:
        raise _DamageError("its content does not match its SHA-256")
    stream = io.BytesIO(content)  # shares the bytes, where one of the payload alone would copy
    stream.seek(end)
    return stream, version
