"""Rows of Parquet files, read a few pages at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dsoftmax.errors import DataError
from dsoftmax.rows import Names, Rows, block_rows
from dsoftmax.tables import Columns, choose_columns, require_pyarrow

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# Without it, pyarrow reads whole row groups: 920 MB where this takes 340.
_BUFFER_BYTES = 2**16


def open_parquet(path: Path, x: Names, y: str | None) -> Rows:
    """Open Parquet files, having read what they say of themselves.

    Reading takes memory for about 2 MiB of each column, or what it has in a row group if less.

    Parameters
    ----------
    path : Path
        A file, or a folder, of which the files named .parquet are read in the order of their names.
    x : sequence of str, or str of names with commas between them, optional
        The columns of X; by default all but y, in the order of the file.
    y : str
        The column of labels.

    Raises
    ------
    DataError
        If a file is damaged, or the columns are not there or cannot be used.
    DsoftmaxError
        If pyarrow is not installed.
    """
    require_pyarrow()
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    columns, count = None, 0
    for file in files:
        with _opened(file) as opened:
            chosen = choose_columns(str(path), opened.schema_arrow, x, y)
            count += opened.metadata.num_rows
        columns = columns or chosen
        if chosen != columns:
            raise DataError(f"{file} has other columns than {files[0]}: write them alike")
    if columns is None:
        raise DataError(f"{path} holds no file named .parquet")
    return columns.rows(count, partial(_read_batches, files, columns))


def _read_batches(files: list[Path], columns: Columns) -> Iterator[pa.RecordBatch]:
    for file in files:
        with _opened(file) as opened:
            yield from opened.iter_batches(block_rows(columns.row_bytes), columns=columns.names)


@contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False) as opened:
            yield opened
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file} cannot be read: {error}; it is damaged or no Parquet file, copy it again"
        ) from error
