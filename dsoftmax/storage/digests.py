"""Digests of arrays, by which the same data are recognised."""

from __future__ import annotations

import hashlib

import numpy as np

from dsoftmax.typing import Array


def array_digest(*arrays: Array) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of dtype, shape and bytes of some arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
