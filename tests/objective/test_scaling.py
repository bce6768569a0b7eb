from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsoftmax.objective.first_read import partial_moments
from dsoftmax.objective.kernel import block_length, compute_dtype
from dsoftmax.objective.reduction import Chunk
from dsoftmax.objective.scaling import Coordinates, Moments, kernel_shift, moments
from dsoftmax.objective.units import unusual_exponent
from dsoftmax.typing import Array

F4, F8 = np.dtype("f4"), np.dtype("f8")


def of(
    X: Array,
    y: Array | None = None,
    weight: Array | None = None,
    K: int = 3,
    dtype: np.dtype[np.floating] | None = None,
) -> Moments:
    codes = np.zeros(len(X), np.int64) if y is None else y
    return moments(Chunk(X, codes, weight, 0), K, dtype or compute_dtype(X.dtype))


def variance(X: Array, weight: Array | None = None) -> Array:
    exact = X.astype(np.longdouble)
    mean = np.average(exact, axis=0, weights=weight)
    return np.average((exact - mean) ** 2, axis=0, weights=weight).astype(float)


def check(got: Moments, X: Array, y: Array, weight: Array | None, tolerance: float) -> None:
    """Compare with NumPy; class 2 of the three is empty."""
    exact, w = X.astype(np.float64), np.ones(len(X)) if weight is None else weight
    mean, sd = np.average(exact, axis=0, weights=w), np.sqrt(variance(X, w))
    np.testing.assert_allclose(got.weight, w.sum(), rtol=1e-14)
    np.testing.assert_allclose(got.class_weight, np.bincount(y, w, 3), rtol=1e-14)
    unit = np.where(sd > 0, sd, 1)
    np.testing.assert_allclose((got.mean - mean) / unit, 0, atol=tolerance / 10)
    np.testing.assert_allclose(got.variance, sd**2, rtol=tolerance, atol=1e-25)
    offset = np.stack([(w[y == k, None] * (exact[y == k] - mean)).sum(axis=0) for k in range(3)])
    error = (got.class_offset - offset) / unit
    np.testing.assert_allclose(error, 0, atol=tolerance / 10 * w.sum())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 4097, 9000])
@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "f2", "f4", "i4", "i8", "f8"])
def test_moments_are_those_of_numpy(dtype: str, rows: int, weighted: bool) -> None:
    rng = np.random.default_rng(rows)
    X = (rng.integers(0, 4, (rows, 3)) * (1, 1, 0)).astype(dtype)
    y, weight = rng.integers(0, 2, rows), rng.random(rows) + 0.01 if weighted else None
    check(of(X, y, weight), X, y, weight, 1e-12 if compute_dtype(dtype) == F8 else 1e-4)


@pytest.mark.parametrize("n_features", [1, 130])
@pytest.mark.parametrize("K", [2, 32, 33, 600])
def test_the_sums_of_each_class_are_its_own(K: int, n_features: int) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 255, (700, n_features)).astype("u1"), rng.integers(0, K, 700)
    got, weight = of(X, y, K=K), np.bincount(y, minlength=K)
    sums = got.class_offset + weight[:, None] * got.mean
    exact = np.stack([X[y == k].sum(axis=0, dtype=float) for k in range(K)])
    np.testing.assert_allclose(sums, exact, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("zeros", [0.0, 0.5])
@given(cuts=st.sets(st.integers(1, 199), max_size=10), mean=st.sampled_from([0.0, 1e3, -1e6]))
def test_moments_do_not_depend_on_the_cut_into_chunks(
    zeros: float, cuts: set[int], mean: float
) -> None:
    rng = np.random.default_rng(0)
    X, y = mean + rng.normal(size=(200, 2)), rng.integers(0, 2, 200)
    weight = rng.random(200) * (rng.random(200) >= zeros)
    edges = [0, *sorted(cuts), 200]
    parts = [of(X[a:b], y[a:b], weight[a:b]) for a, b in itertools.pairwise(edges)]
    total = parts[0]
    for part in parts[1:]:
        total += part
    check(total, X, y, weight, 1e-7)


def test_chunks_without_weight_have_no_part() -> None:
    X, nothing = np.array([[1.0], [3.0]]), of(np.array([[1e9]]), weight=np.zeros(1))
    for total in (of(X) + nothing, nothing + of(X)):
        np.testing.assert_allclose(total.mean, 2, rtol=1e-15)
        np.testing.assert_allclose(total.variance, 1, rtol=1e-12)
        np.testing.assert_allclose(total.class_offset, 0, atol=1e-12)
    assert (nothing + nothing).weight == 0
    np.testing.assert_array_equal((nothing + nothing).variance, 0)


@pytest.mark.parametrize("stored", ["f8", "i8"])
@pytest.mark.parametrize("sd", [1.0, 3.7])
def test_a_mean_of_a_million_standard_deviations_keeps_the_variance(stored: str, sd: float) -> None:
    scale = 1.0 if stored == "f8" else 1e3
    X = (scale * np.random.default_rng(0).normal(1e6 * sd, sd, (9000, 2))).astype(stored)
    total = of(X[:5000]) + of(X[5000:])
    np.testing.assert_allclose(total.variance, variance(X), rtol=1e-6)


@pytest.mark.parametrize("mean", [1e2, 1e4])
def test_a_large_mean_in_float32_keeps_the_variance(mean: float) -> None:
    X = np.random.default_rng(0).normal(mean, 1, (9000, 2)).astype("f4")
    np.testing.assert_allclose(of(X).variance, variance(X), rtol=1e-4)


def test_first_rows_without_weight_do_not_spoil_the_variance() -> None:
    rows = block_length(1, 0, 4)
    X = np.random.default_rng(0).normal(1e4, 1, (2 * rows, 1)).astype("f4")
    X[:rows] = 0
    weight = np.repeat([0.0, 1.0], rows)
    np.testing.assert_allclose(of(X, weight=weight).variance, variance(X, weight), rtol=1e-3)


@pytest.mark.parametrize("unit", [1e-30, 1e-15, 1e15, 1e30])
def test_the_variance_of_float32_follows_the_unit_of_the_data(unit: float) -> None:
    X = np.random.default_rng(0).normal(size=(100, 2)).astype("f4") * np.float32(unit)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(of(X).variance, variance(X), rtol=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
@given(
    value=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
    dtype=st.sampled_from([F4, F8]),
    cut=st.integers(1, 299),
)
def test_a_constant_feature_has_variance_exactly_zero(
    weighted: bool, value: float, dtype: np.dtype[np.floating], cut: int
) -> None:
    X = np.full((300, 2), value / 3 if dtype == F8 else value, dtype)
    weight = np.random.default_rng(0).random(300) if weighted else np.ones(300)
    total = of(X[:cut], weight=weight[:cut]) + of(X[cut:], weight=weight[cut:])
    np.testing.assert_array_equal(total.variance, 0)


COEF = np.random.default_rng(0).normal(size=(3, 2))
CENTRE, SCALE = np.array([2.0, -5.0, 0.0]), np.array([0.1, 10.0, 1.0])
SHIFTS = [None, CENTRE, np.array([2.5, -5.0, 1.0])]


@pytest.mark.parametrize("shift", SHIFTS, ids=["none", "centre", "near"])
def test_coordinates_lead_there_and_back(shift: Array | None) -> None:
    coordinates, intercept = Coordinates(CENTRE, SCALE, shift), np.array([3.0, -1.0])
    point = coordinates.from_coefficients(COEF, intercept)
    coef, back = coordinates.to_coefficients(point)
    np.testing.assert_allclose(coef, COEF, rtol=1e-14)
    np.testing.assert_allclose(back, intercept, rtol=1e-13)


@pytest.mark.parametrize("shift", SHIFTS, ids=["none", "centre", "near"])
def test_kernel_and_coefficients_predict_the_same(shift: Array | None) -> None:
    coordinates = Coordinates(CENTRE, SCALE, shift)
    point = np.vstack([COEF, [0.3, 0.7]])
    X = np.random.default_rng(1).normal(CENTRE, 1, (20, 3))
    kernel, (coef, intercept) = coordinates.to_kernel(point), coordinates.to_coefficients(point)
    raw = (X if shift is None else X - shift) @ kernel[:-1] + kernel[-1]
    np.testing.assert_allclose(raw, X @ coef + intercept, rtol=1e-11)
    np.testing.assert_allclose(raw, (X - CENTRE) / SCALE @ point[:-1] + point[-1], rtol=1e-11)


@pytest.mark.parametrize("shift", SHIFTS, ids=["none", "centre", "near"])
def test_the_gradient_follows_the_chain_rule(shift: Array | None) -> None:
    coordinates, factor = Coordinates(CENTRE, SCALE, shift), np.arange(1.0, 9.0).reshape(4, 2)
    point = np.vstack([COEF * 0.1, [0.3, 0.7]])
    gradient = coordinates.gradient(factor * np.cos(factor * coordinates.to_kernel(point)))
    for place in np.ndindex(*point.shape):
        nudge = np.zeros_like(point)
        nudge[place] = 1e-7
        ends = [np.sin(factor * coordinates.to_kernel(point + s * nudge)).sum() for s in (1, -1)]
        np.testing.assert_allclose(gradient[place], (ends[0] - ends[1]) / 2e-7, rtol=1e-6)


@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize(
    ("mean", "sd", "shifted"),
    [
        (0, 0, False),
        (1e-3, 0, True),
        (0, 1, False),
        (7.9, 1, False),
        (-7.9, 1, False),
        (8.1, 1, True),
        (-8.1, 1, True),
        (8.1e-9, 1e-9, True),
        (1e6, 1, True),
    ],
)
def test_the_kernel_shifts_where_some_mean_exceeds_eight_standard_deviations(
    dtype: np.dtype[np.floating], mean: float, sd: float, shifted: bool
) -> None:
    means, variances = np.array([0.0, mean]), np.array([1.0, sd**2])
    shift = kernel_shift(means, variances, dtype)
    assert (shift is not None) == shifted
    if shift is not None:
        assert shift.dtype == dtype
        np.testing.assert_array_equal(shift, means.astype(dtype))


@pytest.mark.parametrize("exponents", [(600, 0), (0, -600), (600, -600), (600, 590)])
def test_moments_in_different_units_add_up_in_the_larger_one(exponents: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    parts, wide = [], []
    for exponent in exponents:
        X = np.ldexp(rng.normal(size=(20, 2)), exponent)
        chunk = Chunk(X, np.arange(20) % 2, None, 0)
        parts.append(partial_moments(chunk, 2, F8))
        wide.append(np.ldexp(X, -max(exponents)))
    total = parts[0] + parts[1]
    together = moments(Chunk(np.concatenate(wide), np.arange(40) % 2, None, 0), 2, F8)
    units = np.full(2, max(exponents))
    same = total.in_units_of(units)
    np.testing.assert_allclose(same.mean, together.mean, rtol=1e-9)
    np.testing.assert_allclose(same.m2, together.m2, rtol=1e-9)
    np.testing.assert_allclose(same.class_offset, together.class_offset, rtol=1e-9)


def test_a_feature_that_is_zero_in_a_chunk_leaves_the_units_of_the_others() -> None:
    X = np.array([[1e-200, 0.0], [3e-200, 0.0]])
    tiny = partial_moments(Chunk(X, np.arange(2), None, 0), 2, F8)
    zero = partial_moments(Chunk(0 * X, np.arange(2), None, 2), 2, F8)
    for total in (tiny + zero, zero + tiny):
        assert total.size[0] == np.frexp(np.sqrt(2.5) * 1e-200)[1]
        assert total.size[1] == 0


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_ordinary_features_have_no_units(dtype: str) -> None:
    X = np.array([[1e-9, 1e9, 0.0, 3.0], [1e-10, -1e8, 0.0, 3.0]], dtype)
    sums = partial_moments(Chunk(X, np.arange(2), None, 0), 2, np.dtype(dtype))
    assert sums.exponent is None
    assert unusual_exponent(sums.size, np.dtype(dtype)) is None
