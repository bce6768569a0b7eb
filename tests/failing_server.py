"""A real web server on loopback that answers some paths with an error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@contextmanager
def serving(folder: Path, failures: dict[str, int]) -> Iterator[str]:
    """Serve a folder, and yield its URL.

    Parameters
    ----------
    folder : what is served
    failures : statuses, by a part of the path; 0 to hang up. It may change meanwhile
    """

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def do_GET(self) -> None:
            for part, status in failures.items():
                if part in self.path:
                    self.close_connection = status == 0
                    if status:
                        self.send_response(status)
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                    return
            super().do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
