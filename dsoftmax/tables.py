"""Columns of tables, as pyarrow reads them, on their way to X and y."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from dsoftmax.errors import DataError, DsoftmaxError
from dsoftmax.reduction import Array
from dsoftmax.rows import Block, Form, Names, Rows

if TYPE_CHECKING:
    import pyarrow as pa

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

    def rows(self, count: int, batches: Batches) -> Rows:
        """Return the rows of the table, given their number and what begins to read them."""
        if count == 0:
            raise DataError(f"{self.table} has no rows; expected at least one")
        X = Form((count, len(self.features)), self.dtype)
        y = Form((count,), self.label_dtype)
        blocks = partial(self._read_blocks, batches)
        return Rows(self.table, {"X": X, "y": y}, blocks, self.features)

    def _read_blocks(self, batches: Batches) -> Iterator[Block]:
        start = 0
        for batch in batches():
            X = np.empty((len(batch), len(self.features)), self.dtype)
            for place, name in enumerate(self.features):
                X[:, place] = self._values(batch, name, start)
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
                f"{self.table}: column {name!r} has no value at row {row}; expected one in every "
                "row: fill it in, or leave out the row or the column"
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
                f"{table}: column {name!r} is the index that pandas saved with the table; expected "
                "features: name the columns of x, or save it with index=False"
            )


def _check_names(table: str, held: list[str], features: tuple[str, ...], y: str | None) -> None:
    shown = ", ".join(held[:_MOST_SHOWN]) + (", ..." if len(held) > _MOST_SHOWN else "")
    wanted = [*features, y]
    missing = [name for name in wanted if name not in held]
    if missing or not features:
        raise DataError(
            f"{table} has the columns {shown}; got x={list(features)}, y={y!r}, expected names of "
            "these: y of the labels, and x of one feature or more"
        )
    twice = [name for name in wanted if held.count(str(name)) > 1 or wanted.count(name) > 1]
    if twice:
        raise DataError(
            f"{table}: the column {twice[0]!r} is there twice, or asked for twice; expected every "
            "name once: rename it, or name it once in x and y together"
        )


def _checked_dtype(table: str, field: pa.Field, is_label: bool) -> np.dtype[Any]:
    dtype = _dtype(field.type)
    if dtype is None or (dtype.kind == "T" and not is_label):
        expected, remedy = "numbers or booleans", "convert it, or name the columns of x"
        if is_label:
            expected, remedy = "integers, strings or booleans", "convert it"
        raise DataError(
            f"{table}: column {field.name!r} is of type {field.type}; expected {expected}: {remedy}"
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
