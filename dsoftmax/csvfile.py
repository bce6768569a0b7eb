"""Rows of CSV files, read a block of text at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dsoftmax.errors import DataError
from dsoftmax.rows import Names, Rows
from dsoftmax.tables import choose_columns, require_pyarrow

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.csv as pacsv

_BLOCK_BYTES = 2**20
_FIRST_ROW = 2  # as pyarrow counts, the header being row 1


def open_csv(path: Path, x: Names, y: str | None) -> Rows:
    """Open a CSV file with a header, having read it once to count its rows.

    Counting takes a fifth of the time of reading, since only the labels are converted. It tells
    the size of everything, and finds lines of a wrong length, before anything is written. A
    column has the type that the first MiB of the file suggests. An empty field is a missing value;
    "nan" is a number, and NA a string.

    Parameters
    ----------
    path : Path
    x : sequence of str, or str of names with commas between them, optional
        The columns of X; by default all but y, in the order of the file.
    y : str
        The column of labels.

    Raises
    ------
    DataError
        If the file is damaged, or the columns are not there or cannot be used.
    DsoftmaxError
        If pyarrow is not installed.
    """
    require_pyarrow()
    with _refused(path, ()), _reader(path, ()) as reader:
        schema = reader.schema
    columns = choose_columns(str(path), schema, x, y)
    count = sum(map(len, _read_batches(path, schema.names, [columns.label])))
    return columns.rows(count, partial(_read_batches, path, schema.names, columns.names))


def _read_batches(
    path: Path, held: Sequence[str], names: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    with _refused(path, held), _reader(path, names) as reader:
        yield from reader


def _reader(path: Path, names: Sequence[str]) -> pacsv.CSVStreamingReader:
    import pyarrow.csv as pacsv

    return pacsv.open_csv(
        path,
        # Threads would be a fourth faster, but lose the number of the row that is wrong.
        read_options=pacsv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
        convert_options=pacsv.ConvertOptions(
            include_columns=list(names),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


@contextmanager
def _refused(path: Path, held: Sequence[str]) -> Iterator[None]:
    """Turn what pyarrow says of a wrong line or value into a `DataError` that names it."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        place = re.sub(r"In CSV column #(\d+)", lambda m: f"column {held[int(m[1])]!r}", str(error))
        place = re.sub(r"Row #(\d+)", lambda m: f"row {int(m[1]) - _FIRST_ROW}", place)
        raise DataError(
            f"{path}: {place}; expected as many fields in every line as the header has, and "
            f"values of the type that those of the first MiB have: mend that line, or give the "
            "columns their types in a Parquet file"
        ) from error
