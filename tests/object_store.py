"""A real S3 server on loopback."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import dask
import s3fs
from moto.server import ThreadedMotoServer

SECRET = "wJalrXUtnFEMI-secret-of-the-tests"


class Bucket(NamedTuple):
    """An empty bucket, and what opens it."""

    url: str
    options: dict[str, Any]


@contextmanager
def serve() -> Iterator[str]:
    """Run the server, and yield its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def new_bucket(endpoint: str) -> Iterator[Bucket]:
    """Make a bucket that this process can open, as the Dask setting says."""
    options = {"endpoint_url": endpoint, "key": "key-of-the-tests", "secret": SECRET}
    name = f"bucket-{uuid4().hex[:8]}"
    s3fs.S3FileSystem(**options).mkdir(name)
    with dask.config.set({"dsoftmax.storage-options": {"s3": options}}):
        yield Bucket(f"s3://{name}", options)
