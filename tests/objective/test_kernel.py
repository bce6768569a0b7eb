from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

from dsoftmax.objective import kernel
from dsoftmax.objective.kernel import block_length, compute_dtype, loss_gradient, narrow, raw_blocks
from dsoftmax.objective.reduction import Chunk
from dsoftmax.objective.softmax import log_probabilities, probabilities, softmax_residual
from tests.objective.textbook import close, oracle, problem

SHAPES = [(1, 1, 2), (1, 3, 3), (5, 1, 7), (4097, 3, 2), (4097, 3, 3), (70, 2, 10)]
DTYPES = ["?", "u1", "i2", "f2", "f4", "i4", "i8", "f8"]


@pytest.mark.parametrize(("rows", "d", "K"), SHAPES)
def test_gradient_is_the_finite_difference_of_the_loss(rows: int, d: int, K: int) -> None:
    chunk, points = problem(rows, d, K, classes=max(K - 1, 1))
    gradient, step = loss_gradient(chunk, points).gradient, 1e-5
    numeric = np.empty_like(gradient)
    for place in np.ndindex(*points.shape):
        nudge = np.zeros_like(points)
        nudge[place] = step
        up, down = (loss_gradient(chunk, points + sign * nudge).loss[0] for sign in (1, -1))
        numeric[place] = (up - down) / (2 * step)
    close(gradient, numeric, 1e-6)


@pytest.mark.parametrize("models", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "d", "K"), SHAPES)
def test_loss_and_gradient_are_those_of_the_textbook(
    rows: int, d: int, K: int, dtype: str, models: int
) -> None:
    chunk, points = problem(rows, d, K, dtype=dtype, models=models)
    sums, (kernel, gradient) = loss_gradient(chunk, points), oracle(chunk, points)
    tolerance = 1e-12 if compute_dtype(dtype) == np.float64 else 3e-6
    close(sums.loss, kernel, tolerance)
    close(sums.gradient, gradient, tolerance)
    assert sums.loss.dtype == sums.gradient.dtype == np.float64
    np.testing.assert_array_equal(sums.weight, rows)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("?", "f4"),
        ("u1", "f4"),
        ("i2", "f4"),
        ("u2", "f4"),
        ("f2", "f4"),
        ("f4", "f4"),
        (">f4", "f4"),
        ("i4", "f8"),
        ("u4", "f8"),
        ("i8", "f8"),
        ("f8", "f8"),
        (">f8", "f8"),
    ],
)
def test_the_kernel_computes_in_a_dtype_that_holds_the_data(dtype: str, expected: str) -> None:
    assert compute_dtype(dtype) == np.dtype(expected)


@pytest.mark.parametrize("K", [2, 3, 10])
def test_the_loss_is_that_of_scikit_learn(K: int) -> None:
    chunk, points = problem(300, 4, K)
    ((_, _, raw),) = raw_blocks(chunk.X, points)
    weight = np.random.default_rng(0).random(300)
    expected = log_loss(
        chunk.codes, probabilities(raw[0]).T, sample_weight=weight, labels=range(K), normalize=False
    )
    sums = loss_gradient(chunk._replace(sample_weight=weight), points)
    np.testing.assert_allclose(sums.loss, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_one_column_is_the_softmax_of_two(dtype: str) -> None:
    chunk, points = problem(500, 3, 2, dtype=dtype)
    one = loss_gradient(chunk, points)
    two = loss_gradient(chunk, np.concatenate([np.zeros_like(points), points], axis=2))
    tolerance = 1e-6 if dtype == "f4" else 1e-13
    close(one.loss, two.loss, tolerance)
    close(one.gradient, two.gradient[:, :, 1:], tolerance)
    np.testing.assert_array_equal(one.correct, two.correct)


@pytest.mark.parametrize("K", [2, 3, 10])
@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
def test_a_stack_equals_its_models_alone(dtype: str, K: int) -> None:
    chunk, points = problem(5000, 7, K, dtype=dtype, models=4)
    chunk = chunk._replace(sample_weight=np.random.default_rng(0).random((5000, 4)))
    stack = loss_gradient(chunk, points)
    for m in range(4):
        alone = loss_gradient(
            chunk._replace(sample_weight=chunk.sample_weight[:, m]), points[m : m + 1]
        )
        tolerance = 1e-5 if dtype != "f8" else 1e-12
        for field in ("loss", "gradient", "correct", "weight"):
            close(getattr(stack, field)[m], getattr(alone, field)[0], tolerance)


@given(cuts=st.sets(st.integers(1, 599), max_size=8), K=st.sampled_from([2, 3]))
def test_the_gradient_does_not_depend_on_the_cut_into_chunks(cuts: set[int], K: int) -> None:
    chunk, points = problem(600, 3, K)
    edges = [0, *sorted(cuts), 600]
    parts = [
        loss_gradient(chunk.take(np.arange(*pair)), points) for pair in itertools.pairwise(edges)
    ]
    total, whole = sum(parts[1:], start=parts[0]), loss_gradient(chunk, points)
    close(total.gradient, whole.gradient, 1e-12)
    close(total.loss, whole.loss, 1e-12)
    np.testing.assert_array_equal(total.correct, whole.correct)
    np.testing.assert_array_equal(total.weight, whole.weight)


@pytest.mark.parametrize("largest", [30, 100, 1e4])
@pytest.mark.parametrize("K", [2, 4])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_far_out_raw_predictions_stay_exact(dtype: str, K: int, largest: float) -> None:
    rng = np.random.default_rng(0)
    X = np.diag(rng.integers(-largest, largest, 200)).astype(dtype)  # raw: exact, one per row
    points = rng.integers(-1, 2, (1, 201, K if K > 2 else 1)).astype(dtype)
    points[:, -1] = 0
    chunk = Chunk(X, rng.integers(0, K, 200), None, 0)
    raw = np.einsum("ij,jk->ik", X.astype(np.longdouble), points[0, :-1].astype(np.longdouble))
    if K == 2:
        raw = np.column_stack([np.zeros(200), raw])
    raw -= raw.max(axis=1, keepdims=True)
    total = np.log(np.exp(raw).sum(axis=1))
    exact = total - raw[np.arange(200), chunk.codes]
    sums = loss_gradient(chunk, points)
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(sums.loss, [float(exact.sum())], rtol=2 * eps)
    by_row = np.array(
        [loss_gradient(chunk.take(np.array([i])), points).loss[0] for i in range(200)]
    )
    np.testing.assert_allclose(by_row, exact.astype(float), rtol=4 * eps, atol=2 * eps)
    close(sums.gradient, oracle(chunk, points)[1], 4 * eps)


@pytest.mark.parametrize("columns", [1, 4])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_no_residual_is_subnormal_since_products_with_those_take_long(
    dtype: str, columns: int
) -> None:
    # Nor is its product with a feature, or a weight, of 1e-3.
    raw = np.linspace(-800, 800, 4001 * columns).astype(dtype).reshape(1, columns, -1)
    raw[:, 0] = 0 if columns > 1 else raw[:, 0]
    codes = np.zeros(4001, int)
    softmax_residual(raw, codes, np.empty((1, 4001), dtype), np.empty((1, 4001), bool))
    least = 1e-3 * np.abs(raw[raw != 0]).min()
    assert least >= np.finfo(dtype).tiny


@pytest.mark.parametrize("columns", [1, 3])
def test_what_is_no_number_stays_none(columns: int) -> None:
    raw = np.full((1, columns, 2), np.nan, "f4")
    softmax_residual(raw, np.zeros(2, int), np.empty((1, 2), "f4"), np.empty((1, 2), bool))
    assert np.isnan(raw).all()


@pytest.mark.parametrize("K", [2, 3])
def test_the_tail_of_two_classes_keeps_its_digits(K: int) -> None:
    points = np.zeros((1, 2, 1 if K == 2 else K))
    points[0, 0, -1] = 1.0
    sums = loss_gradient(Chunk(np.array([[30.0]]), np.array([K - 1]), None, 0), points)
    expected = np.log1p((K - 1) * np.exp(-30.0))
    np.testing.assert_allclose(sums.loss, expected, rtol=1e-12 if K == 2 else 1e-2)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("K", [2, 3])
def test_a_whole_weight_is_a_repeated_row_and_a_zero_weight_an_absent_one(
    K: int, dtype: str
) -> None:
    chunk, points = problem(400, 3, K, dtype=dtype)
    weight = np.random.default_rng(0).integers(0, 4, 400)
    weighted = loss_gradient(chunk._replace(sample_weight=weight.astype(float)), points)
    repeated = loss_gradient(chunk.take(np.repeat(np.arange(400), weight)), points)
    for field in ("loss", "gradient", "correct", "weight"):
        close(getattr(weighted, field), getattr(repeated, field), 1e-5 if dtype == "f4" else 1e-12)


def test_all_weights_zero_gives_zero_sums() -> None:
    chunk, points = problem(50, 3, 3, models=2)
    sums = loss_gradient(chunk._replace(sample_weight=np.zeros((50, 2))), points)
    for value in (sums.loss, sums.gradient, sums.correct, sums.weight):
        assert not value.any()


@pytest.mark.parametrize("K", [2, 3])
def test_a_row_is_correct_if_its_class_is_the_most_probable(K: int) -> None:
    chunk, points = problem(500, 3, K)
    ((_, _, raw),) = raw_blocks(chunk.X, points)
    expected = (probabilities(raw[0]).argmax(axis=0) == chunk.codes).sum()
    np.testing.assert_array_equal(loss_gradient(chunk, points).correct, expected)


@given(d=st.integers(1, 10**6), columns=st.integers(1, 10**4), itemsize=st.sampled_from([4, 8]))
def test_block_length_is_a_power_of_two_in_range(d: int, columns: int, itemsize: int) -> None:
    length = block_length(d, columns, itemsize)
    assert length.bit_count() == 1
    assert 64 <= length <= 4096
    assert block_length(2 * d, columns, itemsize) <= length
    row, most = itemsize * (d + 2 * columns), kernel._block_bytes()
    assert length <= max(64, min(8 * columns, 1024)) or length * row <= most
    assert length == 4096 or 2 * length * row > most
    assert length == 64 or length * row <= most or length * columns * itemsize <= 1 << 22


@pytest.mark.parametrize("columns", [1, 3, 255, 256, 300])
@pytest.mark.parametrize("models", [1, 2])
def test_raw_predictions_are_the_product_and_the_intercept(columns: int, models: int) -> None:
    rng = np.random.default_rng(0)
    X, points = rng.normal(size=(70, 5)), rng.normal(size=(models, 6, columns))
    ((_, _, raw),) = raw_blocks(X, points)
    np.testing.assert_allclose(raw, (X @ points[:, :-1] + points[:, -1:]).transpose(0, 2, 1))


def test_blocks_cover_the_rows_once_with_their_raw_predictions() -> None:
    chunk, points = problem(4096 + 4095, 2, 3, models=2)
    seen = []
    for rows, block, raw in raw_blocks(chunk.X, points):
        seen.extend(range(len(chunk.X))[rows])
        np.testing.assert_array_equal(block, chunk.X[rows])
        expected = np.einsum("bd,mdk->mkb", block, points[:, :-1]) + points[:, -1][:, :, None]
        close(raw, expected, 1e-14)
    assert seen == list(range(len(chunk.X)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", [2, 3])
def test_a_shift_is_the_shift_of_the_data(dtype: str, K: int) -> None:
    chunk, points = problem(4097, 3, K, dtype=dtype)
    shift = np.array([0.5, -2.0, 3.25], points.dtype)
    shifted = chunk._replace(X=chunk.X.astype(points.dtype) - shift)
    got, expected = loss_gradient(chunk, points, shift), loss_gradient(shifted, points)
    np.testing.assert_array_equal(got.gradient, expected.gradient)
    np.testing.assert_array_equal(got.loss, expected.loss)


@pytest.mark.parametrize(
    ("stored", "computed"), [("f8", "f4"), ("i8", "f8"), ("i4", "f4"), ("f4", "f4"), ("f8", "f8")]
)
def test_a_shift_keeps_the_digits_of_a_large_mean(stored: str, computed: str) -> None:
    X = (1e6 + np.random.default_rng(0).integers(-8, 8, (300, 2))).astype(stored)
    y, shift = np.arange(300) % 3, np.full(2, 1e6, computed)
    points = np.random.default_rng(1).normal(size=(1, 3, 3)).astype(computed)
    kernel, gradient = oracle(Chunk(X.astype(float) - 1e6, y, None, 0), points)
    sums = loss_gradient(Chunk(X, y, None, 0), points, shift)
    tolerance = 1e-12 if computed == "f8" else 3e-6
    close(sums.loss, kernel, tolerance)
    close(sums.gradient, gradient, tolerance)


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("shift", [None, 3.0])
def test_narrow_converts_as_numpy_does(stored: str, shift: float | None) -> None:
    rows = problem(9, 4, 3, dtype=stored)[0].X
    out = np.empty(rows.shape, np.float32)
    offset = None if shift is None else np.full(4, shift, np.float32)
    assert narrow(rows, offset, out) is out
    np.testing.assert_array_equal(out, (rows.astype(float) - (shift or 0.0)).astype(np.float32))


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
@pytest.mark.parametrize("K", [2, 3])
def test_the_same_bits_come_from_any_place_and_order_in_memory(dtype: str, K: int) -> None:
    chunk, points = problem(4500, 5, K, dtype=dtype, models=2)
    expected = loss_gradient(chunk, points)
    copies = [np.asfortranarray(chunk.X), np.repeat(chunk.X, 2, axis=0)[::2]]
    itemsize = chunk.X.dtype.itemsize
    for offset in range(1, 4):
        buffer = np.empty(chunk.X.nbytes + 4 * itemsize, np.uint8)
        start = offset * itemsize
        moved = buffer[start : start + chunk.X.nbytes].view(dtype).reshape(chunk.X.shape)
        moved[:] = chunk.X
        copies.append(moved)
    for X in [chunk.X, *copies]:
        again = loss_gradient(chunk._replace(X=X), points)
        for field in ("loss", "gradient", "correct", "weight"):
            assert getattr(again, field).tobytes() == getattr(expected, field).tobytes()


@pytest.mark.parametrize("K", [2, 3])
def test_the_arguments_are_left_as_they_are(K: int) -> None:
    chunk, points = problem(100, 3, K)
    chunk = chunk._replace(sample_weight=np.full(100, 2.0))
    for array in (chunk.X, chunk.y, chunk.sample_weight, points):
        array.flags.writeable = False
    loss_gradient(chunk, points, np.ones(3))


def test_a_point_gone_astray_gives_sums_that_are_not_finite_and_no_warning() -> None:
    chunk, points = problem(100, 3, 3, dtype="f4")
    assert not np.isfinite(loss_gradient(chunk, np.sign(points) * np.float32(3e38)).loss).all()


@pytest.mark.parametrize("columns", [1, 2, 3, 100])
@pytest.mark.parametrize("largest", [1.0, 1e4])
def test_probabilities_are_the_softmax(columns: int, largest: float) -> None:
    raw = largest * np.random.default_rng(0).normal(size=(columns, 50))
    kept = raw.copy()
    full = raw if columns > 1 else np.concatenate([np.zeros((1, 50)), raw])
    np.testing.assert_allclose(probabilities(raw), softmax(full, axis=0), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(
        log_probabilities(raw), log_softmax(full, axis=0), rtol=1e-12, atol=1e-15
    )
    np.testing.assert_allclose(probabilities(raw).sum(axis=0), 1, rtol=1e-14)
    np.testing.assert_array_equal(raw, kept)
