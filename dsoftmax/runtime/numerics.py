"""What the bits of a result depend on besides the data: the arithmetic of a process."""

from __future__ import annotations

import platform
from functools import cache
from socket import gethostname
from typing import Any

import numpy as np

from dsoftmax import __version__
from dsoftmax.panels import blas_of_numpy


@cache
def numerics() -> str:
    """Return the BLAS kernel, NumPy's vector instructions, and the versions, as one line.

    Two processes with the same line round alike; another CPU or BLAS may not.
    """
    blas = sorted({_described(library) for library in blas_of_numpy()})
    versions = [f"numpy {np.__version__}", f"dsoftmax {__version__}"]
    parts = [platform.machine(), *blas, _vector_instructions(), *versions]
    return "; ".join(filter(None, parts))


def _described(library: dict[str, Any]) -> str:
    kernel = library.get("architecture", "")
    return f"{library['internal_api']} {library['version']} {kernel}".strip()


def _vector_instructions() -> str:
    """Return the widest vector instructions that NumPy has found on this CPU."""
    found = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    return " ".join(found[-1:])


def worker_name() -> str:
    """Return the address of the Dask worker that runs this, or the host of this process."""
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:
        return gethostname()
