"""What the processes of a cluster show to other machines."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import psutil


def family(word: str) -> list[psutil.Process]:
    """Return the Python processes with a word in their command line, and all they have started."""
    found = {p.pid: p for p in psutil.process_iter() if _has(p, word)}
    for process in list(found.values()):
        found.update({child.pid: child for child in process.children(recursive=True)})
    # Those of the batch system itself, srun among them, answer for themselves.
    return [process for process in found.values() if "python" in process.exe()]


def _has(process: psutil.Process, word: str) -> bool:
    try:
        return any(word in argument for argument in process.cmdline())
    except psutil.Error:
        return False


def listening(processes: list[psutil.Process]) -> Iterator[tuple[str, int]]:
    """Yield host and port of all the sockets that the processes listen on."""
    for process in processes:
        for connection in process.net_connections("inet"):
            if connection.status == "LISTEN":
                yield connection.laddr.ip, connection.laddr.port


def plain_answer(host: str, port: int) -> bytes:
    """Return what a port answers to a request of a browser, b"" for nothing."""
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    with socket.create_connection((anywhere.get(host, host), port), timeout=60) as connection:
        try:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return connection.recv(100)
        except ConnectionError:
            return b""


def require_only_tls_elsewhere(word: str, least: int) -> None:
    """Fail unless all that a cluster shows to other machines is closed to plain connections.

    `least` is how many ports there are to be, at the least, of each kind.
    """
    ports = set(listening(family(word)))
    elsewhere = {(host, port) for host, port in ports if host not in ("127.0.0.1", "::1")}
    assert len(elsewhere) >= least
    assert len(ports) - len(elsewhere) >= least  # the dashboards, on loopback
    assert {plain_answer(host, port) for host, port in elsewhere} == {b""}
