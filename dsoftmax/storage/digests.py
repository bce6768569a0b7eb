"""Digests, by which the same content is recognised and damage is noticed."""

from __future__ import annotations

import hashlib

import numpy as np

from dsoftmax.typing import Array


def sha256(*parts: str | bytes | memoryview | Array) -> str:
    """Return the SHA-256 of text, bytes, and of dtype, shape and values of arrays, in a row."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str} {part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def short_digest(*parts: str | bytes | memoryview | Array) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of some parts."""
    return sha256(*parts)[:16]
