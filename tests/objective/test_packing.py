"""Packed rows give what their unpacked ones give."""

from __future__ import annotations

import numpy as np
import pytest

from dsoftmax.objective.kernel import loss_gradient, raw_blocks
from dsoftmax.objective.packing import Packing
from dsoftmax.objective.reduction import Chunk
from dsoftmax.objective.scaling import moments

PACKINGS = [Packing(1e-4, -0.1), Packing(0.01, 300.0), Packing(-2.0, 0.0), Packing(1.0, -1e6)]
DTYPES = ["i1", "u1", "i2", "u2", "i4", "i8", "f2", "f4", "f8"]


def packed(dtype: str, packing: Packing, rows: int = 300, d: int = 7) -> tuple[Chunk, Chunk]:
    """Return a chunk of packed rows, and the same unpacked in float64."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 100, (rows, d)).astype(dtype)
    y, weight = rng.integers(0, 3, rows), rng.uniform(0, 2, rows)
    wide = X.astype(np.float64) * packing.scale_factor + packing.add_offset
    return Chunk(X, y, weight, 0, packing=packing), Chunk(wide, y, weight, 0)


@pytest.mark.parametrize("packing", PACKINGS, ids=str)
@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("kernel", ["f4", "f8"])
@pytest.mark.parametrize("shifted", [False, True])
def test_loss_and_gradient_are_those_of_the_unpacked_rows(
    packing: Packing, stored: str, kernel: str, shifted: bool
) -> None:
    chunk, expected = packed(stored, packing)
    # Far offsets need a shift, as they do without packing: see `kernel_shift`.
    shift = expected.X.mean(axis=0) if shifted or abs(packing.add_offset) > 100 else None
    unit = abs(packing.scale_factor) * 100
    points = np.random.default_rng(1).normal(size=(2, 8, 3))
    points[:, :-1] /= unit
    exact = loss_gradient(expected, points, shift)
    dtype = np.dtype(kernel)
    found = loss_gradient(
        chunk, points.astype(dtype), None if shift is None else shift.astype(dtype)
    )
    if shift is not None:  # rounded to the dtype of the kernel, it is another shift
        exact = loss_gradient(expected, points, shift.astype(dtype).astype(np.float64))
    tolerance = 1e-5 if kernel == "f4" else 1e-11
    np.testing.assert_allclose(found.loss, exact.loss, rtol=tolerance)
    scale = np.abs(exact.gradient).max(axis=(0, 2), keepdims=True)
    np.testing.assert_allclose(found.gradient / scale, exact.gradient / scale, atol=tolerance)


@pytest.mark.parametrize("packing", PACKINGS, ids=str)
@pytest.mark.parametrize("stored", DTYPES)
def test_moments_are_those_of_the_unpacked_rows(packing: Packing, stored: str) -> None:
    chunk, expected = packed(stored, packing)
    wide = np.dtype(np.float64)
    found, exact = moments(chunk, 3, wide), moments(expected, 3, wide)
    np.testing.assert_allclose(found.mean, exact.mean, rtol=1e-12)
    np.testing.assert_allclose(found.m2, exact.m2, rtol=1e-9)
    np.testing.assert_allclose(found.class_offset, exact.class_offset, atol=1e-9 * exact.m2.max())


def test_an_offset_is_subtracted_and_a_scale_alone_costs_nothing() -> None:
    X, points = np.ones((4, 2), np.int16), np.ones((1, 3, 1), np.float32)
    assert Packing(0.5).in_stored_units(points, None, X.dtype).shift is None
    units = Packing(0.5, -1.0).in_stored_units(points, None, X.dtype)
    assert units.shift is not None
    assert units.shift.tolist() == 2.0
    ((_, block, raw),) = raw_blocks(X, points, packing=Packing(0.5, -1.0))
    assert block.tolist() == [[-1.0, -1.0]] * 4
    assert raw.ravel().tolist() == [2 * (0.5 - 1) + 1] * 4
