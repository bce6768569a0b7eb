from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsoftmax.data.label_counts import LabelCounts, count_labels, label_counts
from dsoftmax.errors import DataError
from dsoftmax.objective.reduction import Chunk
from dsoftmax.typing import Array


def counted(y: Array, weight: Array | None = None, start: int = 0) -> LabelCounts:
    return count_labels(Chunk(np.empty((len(y), 0)), y, weight, start))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "f4", "f8", "U3"])
@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=40), data=st.data())
def test_counts_are_those_of_numpy_for_any_cut(
    weighted: bool, dtype: str, labels: list[int], data: st.DataObject
) -> None:
    y = np.array(labels).astype(dtype)
    weight = np.linspace(0, 2, len(y)) if weighted else None
    cut = data.draw(st.integers(1, len(y)))
    total = counted(y[:cut], None if weight is None else weight[:cut])
    if cut < len(y):
        rest = counted(y[cut:], None if weight is None else weight[cut:])
        total = label_counts.combine(total, rest)
    expected, counts = np.unique(y, return_counts=True)
    np.testing.assert_array_equal(total.labels, expected)
    np.testing.assert_array_equal(total.counts, counts)
    w = np.ones(len(y)) if weight is None else weight
    np.testing.assert_allclose(total.weight, [w[y == k].sum() for k in expected], atol=1e-15)
    assert total.counts.dtype == np.int64
    assert total.weight.dtype == np.float64
    assert total.labels.dtype == y.dtype


def test_expanded_counts_all_codes() -> None:
    counts = counted(np.array([3, 1, 3]), np.array([0.5, 2.0, 1.0])).expanded(5)
    np.testing.assert_array_equal(counts.labels, range(5))
    np.testing.assert_array_equal(counts.counts, [0, 1, 0, 2, 0])
    np.testing.assert_array_equal(counts.weight, [0, 2.0, 0, 1.5, 0])


@pytest.mark.parametrize("bad", [0.5, np.nan, -1e-9, np.inf])
def test_a_label_that_is_no_whole_number_is_refused_with_its_row(bad: float) -> None:
    with pytest.raises(DataError, match=rf"{bad} at row 1002\b.*labels must be integers"):
        counted(np.array([0.0, 1.0, bad, 0.25]), start=1000)
