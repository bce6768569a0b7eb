import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsoftmax.loss import block_length
from dsoftmax.panels import by_column, by_row, panel_length


@given(
    d=st.integers(1, 10**5), columns=st.integers(1, 300), itemsize=st.sampled_from([4, 8])
)  # fmt: skip
def test_full_blocks_are_whole_panels_that_blas_takes_as_they_lie(
    d: int, columns: int, itemsize: int
) -> None:
    length = block_length(d, columns, itemsize)
    panel = panel_length(d, columns, length)
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
