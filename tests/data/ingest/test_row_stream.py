from __future__ import annotations

import numpy as np
import pytest

from dsoftmax.data.ingest.row_stream import ArraySpec, Rechunker, RowStream, rechunked
from dsoftmax.errors import DataError


@pytest.mark.parametrize("sizes", [[1] * 10, [10], [3, 7], [0, 4, 0, 6], [9, 1], []])
@pytest.mark.parametrize("rows", [1, 3, 5, 10, 11])
def test_a_stream_cut_anew_keeps_every_row_in_order(sizes: list[int], rows: int) -> None:
    whole = np.arange(2 * sum(sizes)).reshape(-1, 2)
    pieces = list(rechunked(np.split(whole, np.cumsum(sizes)[:-1]) if sizes else [], rows))
    assert [len(piece) for piece in pieces[:-1]] == [rows] * (len(pieces) - 1)
    if sizes:
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
    else:
        assert pieces == []


def test_what_waits_for_its_piece_keeps_nothing_else_in_memory() -> None:
    rechunker, large = Rechunker(100), np.zeros((10_000, 3))
    assert list(rechunker.push(large[:1, :1])) == []
    (piece,) = rechunker.rest()
    assert not np.shares_memory(piece, large)


@pytest.mark.parametrize("found", [2, 4])
def test_a_source_that_changes_while_it_is_read_is_refused(found: int) -> None:
    specs = {"X": ArraySpec((3, 1), np.dtype("u1"))}
    rows = RowStream("a.csv", specs, lambda: iter([{"X": np.zeros((found, 1), "u1")}]))
    with pytest.raises(DataError, match=rf"a\.csv had 3 rows when it was opened, and {found}"):
        list(rows)
