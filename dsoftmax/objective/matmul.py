"""Products of a block of rows with few columns, in panels of rows that BLAS does not copy.

With few columns BLAS spends as long on copying the rows together as on multiplying them. OpenBLAS
has kernels for AVX-512 that do not copy matrices within the bounds used here: all products of 784
features and 10 columns then take 0.6 of the time. Elsewhere panels cost a tenth more, and a block
is multiplied at once. So the panels depend on the BLAS kernel, with which results round
differently anyway.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from dsoftmax.typing import Array

_AVX512_KERNELS = {"SkylakeX", "Cooperlake", "SapphireRapids"}  # as OpenBLAS calls them


def blas_of_numpy() -> list[dict[str, Any]]:
    """Return the BLAS libraries of this process; SciPy's own is not what computes here."""
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    bundled = [
        library for library in libraries if "numpy" in str(Path(library["filepath"]).parent).lower()
    ]
    return bundled or libraries


# Within these bounds panels pay, and OpenBLAS multiplies them without a copy.
_MOST_COLUMNS, _LEAST_FEATURES = 16, 128
_MOST_ENTRIES = 1200  # of the product of a panel
_MOST_MULTIPLICATIONS = 1_000_000
_LEAST_ROWS = 32


def panel_length(n_features: int, n_columns: int, length: int) -> int:
    """Return how many rows of a block of `length` to multiply at once: a power of two, or all."""
    return rows_that_fit(n_features, n_columns, length) if _takes_panels() else length


@cache
def _takes_panels() -> bool:
    """Whether the BLAS of NumPy multiplies small matrices without copying them."""
    return bool(kernels_of_numpy() & _AVX512_KERNELS)


@cache
def kernels_of_numpy() -> frozenset[str]:
    """Return the names of the OpenBLAS kernels that compute here; none for another BLAS."""
    return frozenset(
        library["architecture"] for library in blas_of_numpy() if "architecture" in library
    )


def rows_that_fit(n_features: int, n_columns: int, length: int) -> int:
    """Return how many rows of a block make a panel within the bounds: a power of two, or all.

    Examples
    --------
    >>> rows_that_fit(784, 10, length=512), rows_that_fit(784, 100, length=512)
    (64, 512)
    """
    if not 1 < n_columns <= _MOST_COLUMNS or n_features < _LEAST_FEATURES:
        return length
    rows = min(_MOST_ENTRIES // n_columns, _MOST_MULTIPLICATIONS // (n_features * n_columns))
    return min(1 << (rows.bit_length() - 1), length) if rows >= _LEAST_ROWS else length


def is_turned(n_columns: int) -> bool:
    """Whether block @ coef.T, transposed, is faster than coef @ block.T."""
    return n_columns < (256 if _takes_panels() else 64)


def by_row(block: Array, coef: Array, panel: int) -> Array:
    """Return block @ coef.T, (rows, n_columns), in panels of so many rows."""
    if len(block) <= panel:
        return np.asarray(block @ coef.T)
    whole = len(block) // panel * panel
    product = np.empty((len(block), len(coef)), block.dtype)
    panels = block[:whole].reshape(-1, panel, block.shape[1])
    np.matmul(panels, coef.T, out=product[:whole].reshape(-1, panel, len(coef)))
    if whole < len(block):
        np.matmul(block[whole:], coef.T, out=product[whole:])
    return product


def by_column(residual: Array, block: Array, panel: int, out: Array) -> Array:
    """Return residual @ block, (n_columns, n_features), in panels of so many rows of the block.

    Parameters
    ----------
    residual : array of shape (n_columns, rows)
    block : array of shape (rows, n_features)
    panel : rows of a panel
    out : array of shape (at least rows // panel and 1, n_columns, n_features), overwritten
    """
    if len(block) <= panel:
        product: Array = np.matmul(residual, block, out=out[0])
        return product
    whole = len(block) // panel * panel
    panels = block[:whole].reshape(-1, panel, block.shape[1])
    by_panel = residual[:, :whole].reshape(len(residual), -1, panel).transpose(1, 0, 2)
    product = np.matmul(by_panel, panels, out=out[: len(panels)]).sum(axis=0)
    if whole < len(block):
        product += residual[:, whole:] @ block[whole:]
    return product
