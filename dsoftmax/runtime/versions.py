"""Whether the workers run the same software as the client."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from dsoftmax.errors import DsoftmaxError

# What travels between the processes, or decides about the numbers that do.
_PACKAGES = ("dsoftmax", "numpy", "zarr", "dask", "distributed", "cloudpickle", "msgpack")
_MOST_SHOWN = 5

Versions = Mapping[str, str]


def require_same_versions(client: Any) -> None:
    """Raise DsoftmaxError if a worker has another Python or other packages than this process.

    The third part of Python's version may differ.
    """
    own = _reporter()()[1]
    found = client.run(_reporter(), on_error="ignore")
    problems = [
        f"the worker {address} on {host} has {differences}"
        for address, (host, theirs) in sorted(found.items())
        if (differences := _differences(own, theirs))
    ]
    if problems:
        more = f"; and {len(problems) - _MOST_SHOWN} more" if len(problems) > _MOST_SHOWN else ""
        raise DsoftmaxError(
            f"{'; '.join(problems[:_MOST_SHOWN])}{more}: install the versions of "
            f"{socket.gethostname()} there, or those here"
        )


def _differences(own: Versions, theirs: Versions) -> str:
    return ", ".join(
        f"{name} {theirs[name]} (here {own[name]})" for name in own if own[name] != theirs[name]
    )


def _reporter() -> Any:
    """Return a function that tells host and versions, and travels by value.

    Were it of this module, workers without dsoftmax could not even say that they lack it.
    """
    packages = _PACKAGES

    def report() -> tuple[str, dict[str, str]]:
        import socket
        import sys
        from importlib.metadata import PackageNotFoundError, version

        found = {"Python": "{}.{}".format(*sys.version_info)}
        for name in packages:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = "not installed"
        return socket.gethostname(), found

    return report
