import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsoftmax.objective import matmul
from dsoftmax.objective.kernel import block_length, loss_gradient
from dsoftmax.objective.matmul import by_column, by_row, panel_length, rows_that_fit
from dsoftmax.objective.scaling import moments
from tests.objective.textbook import close, oracle, problem


@given(d=st.integers(1, 10**5), columns=st.integers(1, 300), itemsize=st.sampled_from([4, 8]))
def test_full_blocks_are_whole_panels_that_blas_takes_as_they_lie(
    d: int, columns: int, itemsize: int
) -> None:
    length = block_length(d, columns, itemsize)
    panel = rows_that_fit(d, columns, length)
    assert panel_length(d, columns, length) in (panel, length)
    assert length % panel == 0
    assert panel == length or (panel * columns <= 1200 and panel * columns * d <= 1_000_000)


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 128, 200, 512])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_products_in_panels_are_the_products(rows: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    block, coef = rng.normal(size=(rows, 150)).astype(dtype), rng.normal(size=(10, 150))
    residual = rng.normal(size=(10, rows)).astype(dtype)
    out = np.full((max(1, rows // 64), 10, 150), np.nan, dtype)
    tolerance = {"rtol": 0, "atol": 2000 * np.finfo(dtype).eps}
    forth, back = by_row(block, coef.astype(dtype), 64), by_column(residual, block, 64, out)
    np.testing.assert_allclose(forth, block @ coef.astype(dtype).T, **tolerance)
    np.testing.assert_allclose(back, residual @ block, **tolerance)
    assert forth.dtype == back.dtype == dtype


def test_the_bits_do_not_depend_on_where_the_rows_lie_in_memory() -> None:
    rng = np.random.default_rng(0)
    block, coef = rng.normal(size=(512, 784)).astype("f4"), rng.normal(size=(10, 784)).astype("f4")
    residual, out = np.ascontiguousarray(coef[:, :512]), np.empty((8, 10, 784), "f4")
    expected = by_row(block, coef, 64).tobytes(), by_column(residual, block, 64, out).tobytes()
    for offset in range(1, 17):
        moved = np.empty(block.size + offset, "f4")[offset:].reshape(block.shape)
        moved[:] = block
        assert by_row(moved, coef, 64).tobytes() == expected[0]
        assert by_column(residual, moved, 64, out).tobytes() == expected[1]


@pytest.mark.parametrize(("rows", "d", "K"), [(1, 200, 10), (1500, 200, 10), (700, 150, 100)])
@pytest.mark.parametrize("takes_panels", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "f8"])
def test_loss_gradient_and_moments_are_the_same_however_a_block_is_multiplied(
    rows: int, d: int, K: int, dtype: str, takes_panels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matmul, "_takes_panels", lambda: takes_panels)
    length = block_length(d, K, 8 if dtype == "f8" else 4)
    assert (panel_length(d, K, length) < length) == (takes_panels and K == 10)
    chunk, points = problem(rows, d, K, dtype=dtype)
    sums, (loss, gradient) = loss_gradient(chunk, points / 10), oracle(chunk, points / 10)
    tolerance = 1e-11 if dtype == "f8" else 1e-5
    close(sums.loss, loss, tolerance)
    close(sums.gradient, gradient, tolerance)
    total = np.stack([chunk.X[chunk.codes == k].sum(axis=0, dtype="f8") for k in range(K)])
    found = moments(chunk, K, points.dtype)
    close(found.class_offset + np.outer(found.class_weight, found.mean), total, tolerance)
