"""A real web server of a folder that wants a password or a token."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import zarr

SECRET = "wJ4l-s3cret.of_the~tests"
_BASIC = base64.b64encode(f"user:{SECRET}".encode()).decode()
# However it is written: as it is, percent-encoded, in a header.
SPELLINGS = (SECRET, quote(SECRET, safe=""), _BASIC, _BASIC.rstrip("="))


@dataclass
class Site:
    """A folder on the web.

    Attributes
    ----------
    folder : what is served
    address : host and port
    statuses : what is answered, by the end of a path
    """

    folder: Path
    address: str = ""
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def by_password(self) -> str:
        """The URL of the folder with a password."""
        return f"http://user:{SECRET}@{self.address}"

    @property
    def by_token(self) -> str:
        """The URL of the folder with a token; what comes after it is a path in the folder."""
        return f"http://{self.address}/?token={SECRET}"


def spelled(content: str | bytes) -> bool:
    """Return whether a text or the bytes of a file have the secret in any spelling."""
    text = content.encode() if isinstance(content, str) else content
    return any(spelling.encode() in text for spelling in SPELLINGS)


def leaks(folder: Path) -> list[Path]:
    """Return the files below a folder whose content or name has the secret."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    return [file for file in files if spelled(file.read_bytes()) or spelled(str(file))]


def _write_data(folder: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    X = rng.normal(size=(90, 3)).astype("f4") + 2 * np.eye(3, dtype="f4")[y]
    group = zarr.open_group(folder / "data.zarr", mode="w")
    group.create_array("X", data=X, chunks=(30, 3))
    group.create_array("y", data=y, chunks=(90,))
    group.create_array("Xi", data=X, chunks=(30, 3), attributes={"scale_factor": "a"})
    column = group.create_group("column", attributes={"encoding-type": "categorical"})
    column.create_array("codes", data=np.zeros(80, "i1"))
    column.create_array("categories", data=np.arange(3))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        path, by_token = self._path()
        file = self.site.folder / path.strip("/")
        if not by_token and self.headers.get("Authorization") != f"Basic {_BASIC}":
            self._answer(401)
        elif (status := self._status(path)) is not None:
            self._answer(status)
        elif file.is_dir():
            names = (f"{name}{'/' * (file / name).is_dir()}" for name in os.listdir(file))
            self._answer(200, "".join(f'<a href="{name}">{name}</a>\n' for name in names).encode())
        else:
            self._answer(200, file.read_bytes()) if file.exists() else self._answer(404)

    do_HEAD = do_GET  # noqa: N815  # as http.server calls it

    def do_PUT(self) -> None:
        path, _ = self._path()
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if (status := self._status(path)) is not None:
            return self._answer(status)
        file = self.site.folder / path.strip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return self._answer(201)

    def _status(self, path: str) -> int | None:
        found = (status for end, status in self.site.statuses.items() if path.endswith(end))
        return next(found, None)

    def _path(self) -> tuple[str, bool]:
        first, _, rest = unquote(self.path).partition(f"?token={SECRET}")
        return rest or first, bool(rest)

    def _answer(self, status: int, content: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[Site]:
    """Serve a folder on loopback, with the group data.zarr of 90 rows in three chunks."""
    _write_data(folder)
    site = Site(folder)
    handler = type("Handler", (_Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    site.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
