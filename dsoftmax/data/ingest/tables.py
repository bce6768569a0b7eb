"""Columns of CSV and Parquet files, read by pyarrow, as rows of X and y."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsoftmax.data.ingest.row_stream import ArraySpec, Block, Names, RowStream, block_rows
from dsoftmax.errors import DataError, DsoftmaxError, quoted, shortened
from dsoftmax.storage.regular_files import require_regular
from dsoftmax.typing import Array

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

Batches = Callable[[], Iterable["pa.RecordBatch"]]
_MOST_SHOWN = 20


@dataclass(frozen=True)
class Columns:
    """The columns of a table that make X and y.

    Attributes
    ----------
    table : for messages
    features, label : names
    dtype, label_dtype : of X and y
    """

    table: str
    features: tuple[str, ...]
    label: str
    dtype: np.dtype[Any]
    label_dtype: np.dtype[Any]

    @property
    def names(self) -> list[str]:
        """All columns that have to be read."""
        return [*self.features, self.label]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of X."""
        return len(self.features) * self.dtype.itemsize

    def rows(self, count: int, batches: Batches) -> RowStream:
        """Return the rows of the table, given their number and a function that reads them."""
        if count == 0:
            raise DataError(f"{self.table} has no rows; expected at least one")
        X = ArraySpec((count, len(self.features)), self.dtype)
        y = ArraySpec((count,), self.label_dtype)
        blocks = partial(self._read_blocks, batches)
        return RowStream(self.table, {"X": X, "y": y}, blocks, self.features)

    def _read_blocks(self, batches: Batches) -> Iterator[Block]:
        start = 0
        for batch in batches():
            X = np.empty((len(batch), len(self.features)), self.dtype)
            for index, name in enumerate(self.features):
                X[:, index] = self._values(batch, name, start)
            y = self._values(batch, self.label, start)
            yield {"X": X, "y": y.astype(self.label_dtype, copy=False)}
            start += len(batch)

    def _values(self, batch: pa.RecordBatch, name: str, start: int) -> Array:
        import pyarrow as pa

        column = batch.column(name)
        if isinstance(column, pa.DictionaryArray):
            column = column.dictionary_decode()
        if column.null_count:
            row = start + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise DataError(
                f"{self.table}: column {quoted(name)} has no value at row {row}; expected "
                "one in every row: fill it in, or leave out the row or the column"
            )
        values: Array = column.to_numpy(zero_copy_only=False)
        return values


def require_pyarrow() -> None:
    """Raise DsoftmaxError if pyarrow, which is optional, is not installed."""
    if find_spec("pyarrow") is None:
        raise DsoftmaxError("CSV and Parquet need pyarrow: pip install dsoftmax[tables]")


def choose_columns(table: str, schema: pa.Schema, x: Names, y: str | None) -> Columns:
    """Return which columns of a table make X and y.

    Parameters
    ----------
    table : str
        For messages.
    schema : pyarrow.Schema
    x : sequence of str, or str of names with commas between them, optional
        The columns of X; by default all but y.
    y : str
        The column of labels.

    Raises
    ------
    DataError
        If a column is not there, there twice, or of a type that cannot be used.
    """
    if x is None:
        x = [name for name in schema.names if name != y]
        _refuse_index(table, schema, x)
    features = tuple(x.split(",") if isinstance(x, str) else x)
    _check_names(table, schema.names, features, y)
    dtypes = [_checked_dtype(table, schema.field(name), name == y) for name in (*features, y)]
    return Columns(table, features, str(y), np.result_type(*dtypes[:-1]), dtypes[-1])


def _refuse_index(table: str, schema: pa.Schema, features: list[str]) -> None:
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    for name in features:
        if name in index:
            raise DataError(
                f"{table}: column {quoted(name)} is the index that pandas saved with the "
                "table; expected features: name the columns of x, or save it with index=False"
            )


def _check_names(
    table: str, all_names: list[str], features: tuple[str, ...], y: str | None
) -> None:
    shown = ", ".join(all_names[:_MOST_SHOWN]) + (", ..." if len(all_names) > _MOST_SHOWN else "")
    wanted = [*features, y]
    held, asked = Counter(all_names), Counter(wanted)
    missing = [name for name in wanted if name not in held]
    if missing or not features:
        got = f"x={shortened(list(features))}, y={quoted(y)}"
        raise DataError(
            f"{table} has the columns {shortened(shown)}; got {got}, expected names of "
            "these: y of the labels, and x of one feature or more"
        )
    repeated = [name for name in wanted if held[str(name)] > 1 or asked[name] > 1]
    if repeated:
        raise DataError(
            f"{table}: the column {quoted(repeated[0])} is there twice, or asked for "
            "twice; expected every name once: rename it, or name it once in x and y together"
        )


def _checked_dtype(table: str, field: pa.Field, is_label: bool) -> np.dtype[Any]:
    dtype = _dtype(field.type)
    if dtype is None or (dtype.kind == "T" and not is_label):
        expected, remedy = "numbers or booleans", "convert it, or name the columns of x"
        if is_label:
            expected, remedy = "integers, strings or booleans", "convert it"
        raise DataError(
            f"{table}: column {quoted(field.name)} is of type {shortened(field.type)}; "
            f"expected {expected}: {remedy}"
        )
    return dtype


def _dtype(kind: pa.DataType) -> np.dtype[Any] | None:
    """Return what NumPy's arrays of a type have, or None if it cannot be used."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        dtype: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
        return dtype
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return np.dtypes.StringDType()
    return None


_BLOCK_BYTES = 2**20


def open_csv(path: Path, x: Names, y: str | None) -> RowStream:
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
    with _opened_csv(path) as reader:
        schema = reader.schema
    columns = choose_columns(str(path), schema, x, y)
    count = sum(map(len, _read_csv_batches(path, schema.names, [columns.label])))
    return columns.rows(count, partial(_read_csv_batches, path, schema.names, columns.names))


def _read_csv_batches(
    path: Path, all_names: Sequence[str], names: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    with _opened_csv(path, all_names, names) as reader:
        yield from reader


@contextmanager
def _opened_csv(
    path: Path, all_names: Sequence[str] = (), names: Sequence[str] = ()
) -> Iterator[pacsv.CSVStreamingReader]:
    """Open a CSV file to read some columns of it; an error names the wrong line or value."""
    import pyarrow as pa
    import pyarrow.csv as pacsv

    # Threads would be a fourth faster, but lose the number of the row that is wrong.
    read_options = pacsv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
    convert_options = pacsv.ConvertOptions(
        include_columns=list(names),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    require_regular(path)
    try:
        with pacsv.open_csv(path, read_options, convert_options=convert_options) as reader:
            yield reader
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        # pyarrow counts the columns of the file from 0, and its rows from 1, the header.
        name_of = lambda match: f"column {quoted(all_names[int(match[1])])}"  # noqa: E731
        what = re.sub(r"In CSV column #(\d+)", name_of, str(error))
        what = re.sub(r"Row #(\d+)", lambda match: f"row {int(match[1]) - 2}", what)
        raise DataError(
            f"{path}: {shortened(what)}; expected as many fields in every line as the header has, "
            "and values of the type that those of the first MiB have: mend that line, or give the "
            "columns their types in a Parquet file"
        ) from error


# Without a buffer pyarrow reads entire row groups: 920 MB where this takes 340. `pyarrow.dataset`,
# with the same buffer and no read-ahead, still takes twice the memory.
_BUFFER_BYTES = 2**16


def open_parquet(path: Path, x: Names, y: str | None) -> RowStream:
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
        with _opened_parquet(file) as opened:
            chosen = choose_columns(str(path), opened.schema_arrow, x, y)
            count += opened.metadata.num_rows
        columns = columns or chosen
        if chosen != columns:
            raise DataError(f"{file} has other columns than {files[0]}: write them alike")
    if columns is None:
        raise DataError(f"{path} holds no file named .parquet")
    return columns.rows(count, partial(_read_parquet_batches, files, columns))


def _read_parquet_batches(files: list[Path], columns: Columns) -> Iterator[pa.RecordBatch]:
    for file in files:
        with _opened_parquet(file) as opened:
            yield from opened.iter_batches(block_rows(columns.row_bytes), columns=columns.names)


@contextmanager
def _opened_parquet(file: Path) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    require_regular(file)
    try:
        with pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False) as opened:
            yield opened
    except (FileNotFoundError, DsoftmaxError):
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read as Parquet: {shortened(error)}; copy it again"
        ) from error
