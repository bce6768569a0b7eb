"""What the attributes of a stored array say of its numbers, by the CF conventions.

Arrays are decoded as xarray decodes them: `_FillValue` and `missing_value` mark missing values,
`scale_factor` and `add_offset` unpack numbers, `_Unsigned` and `dtype: bool` say how to read the
bytes. Source: NetCDF Climate and Forecast (CF) Metadata Conventions, sections 2.5.1 and 8.1.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from dsoftmax.errors import DataError, quoted
from dsoftmax.objective.kernel import compute_dtype
from dsoftmax.objective.packing import Packing
from dsoftmax.typing import Array

_FILLS = ("_FillValue", "missing_value")
_PACKING = ("scale_factor", "add_offset")
_ENCODING = (*_FILLS, *_PACKING, "_Unsigned", "dtype")
_TIME = re.compile(r"^\s*\w+ since \s*-?\d")
XARRAY_DIMS = "_ARRAY_DIMENSIONS"  # of arrays of format 2 that xarray has written


@dataclass(frozen=True)
class CFEncoding:
    """How the stored numbers of an array are to be read.

    Attributes
    ----------
    dtype : of the stored numbers, once their bytes are read as the attributes say
    fill_values : stored numbers, or strings, that mean a missing value
    packing : what the other stored numbers stand for, or None for themselves
    """

    dtype: np.dtype[Any]
    fill_values: tuple[Any, ...] = ()
    packing: Packing | None = None

    def __str__(self) -> str:
        facts = [f"read as {self.dtype}"]
        if self.packing is not None:
            # All digits: a fit records this, and another scale is other data.
            scale, offset = self.packing.scale_factor, self.packing.add_offset
            facts.append(f"scale_factor {scale!r}, add_offset {offset!r}")
        if self.fill_values:
            facts.append(f"missing where {_listed(self.fill_values)}")
        return "; ".join(facts)

    def to_dict(self) -> dict[str, Any]:
        """Return it as numbers and strings, for JSON."""
        found: dict[str, Any] = {
            "dtype": str(self.dtype),
            "fill_values": [_plain(fill) for fill in self.fill_values],
        }
        if self.packing is not None:
            found |= {name: getattr(self.packing, name) for name in _PACKING}
        return found

    def as_read(self, stored: Array) -> Array:
        """Return stored numbers with their bytes read as the attributes say."""
        if self.dtype.kind not in "biu" or self.dtype.kind == stored.dtype.kind:
            return stored
        return stored.view(self.dtype.newbyteorder(stored.dtype.byteorder))

    def missing_in(self, stored: Array) -> Array | None:
        """Return which of some stored numbers mean a missing value, or None if none does."""
        found: Array | None = None
        for fill in self.fill_values:
            if _may_hold(stored, fill) and (where := np.asarray(stored == fill)).any():
                found = where if found is None else found | where
        return found

    def decode(self, stored: Array) -> Array:
        """Return what stored numbers stand for: a masked array if some are missing."""
        values = stored = self.as_read(stored)
        missing = self.missing_in(stored)
        if self.packing is not None:
            values = self.packing.unpack(stored, None, np.empty(stored.shape))
        return values if missing is None else np.ma.masked_array(values, missing)


def cf_encoding(
    name: str, array: zarr.Array[Any], *, may_be_times: bool = False
) -> CFEncoding | None:
    """Return what the attributes of an array say of its numbers, or None if they say nothing.

    Of times, which only coordinates may be, it is what their units count.

    Raises
    ------
    DataError
        If an attribute is not as the conventions have it, or the numbers are times.
    """
    attributes, dtype = dict(array.attrs), np.dtype(array.dtype)
    if not may_be_times:
        _require_no_times(name, attributes)
    return _encoding(name, attributes, dtype, _stored_fills(attributes, array))


def cf_encoding_of_attributes(
    name: str, attributes: Mapping[str, Any], dtype: np.dtype[Any]
) -> CFEncoding | None:
    """Return what attributes beside an array in memory say of its numbers.

    xarray takes these attributes away when it decodes, so those that are left are of stored
    numbers. Floats with a scale may be unpacked already, by arithmetic that keeps attributes.

    Raises
    ------
    DataError
        As `cf_encoding`, and for floats with a scale or an offset.
    """
    _require_no_times(name, attributes)
    fills = [(key, attributes[key]) for key in _FILLS if key in attributes]
    found = _encoding(name, attributes, dtype, fills)
    if found is not None and found.packing is not None and dtype.kind == "f":
        raise DataError(
            f"{name} has floats, and the attributes scale_factor or add_offset of packed numbers; "
            "whether it has been unpacked is not known. If it has, remove them: "
            "X.drop_attrs(), or pass open_data(decode=False)"
        )
    return found


def _require_no_times(name: str, attributes: Mapping[str, Any]) -> None:
    if isinstance(units := attributes.get("units"), str) and _TIME.match(units):
        raise DataError(
            f"{name} holds times ({quoted(units)}); expected numbers or labels. Convert them "
            "first, or read the stored numbers with open_data(decode=False)"
        )


def _encoding(
    name: str, attributes: Mapping[str, Any], dtype: np.dtype[Any], stored: list[tuple[str, Any]]
) -> CFEncoding | None:
    read_as = _read_as(name, attributes, dtype)
    fills = tuple(dict.fromkeys(_fill_values(name, stored, dtype, read_as)))
    packing = _packing(name, attributes, read_as)
    if not fills and packing is None and read_as == dtype:
        return None
    return CFEncoding(read_as, fills, packing)


def carried_attributes(array: zarr.Array[Any]) -> dict[str, Any]:
    """Return the attributes that say what the numbers of an array are, for a copy of format 3."""
    attributes = {key: array.attrs[key] for key in _ENCODING if key in array.attrs}
    fills = _stored_fills(attributes, array)
    if any(key == "fill_value" for key, _ in fills):  # which format 3 does not take for one
        others = [item for _, value in fills[:-1] for item in _items(value)]
        attributes["_FillValue"] = fills[-1][1]
        if others:
            attributes["missing_value"] = others
    if "_FillValue" in attributes:
        attributes["_FillValue"] = _for_json(attributes["_FillValue"], np.dtype(array.dtype))
    return attributes


def _for_json(fill: Any, dtype: np.dtype[Any]) -> Any:
    """Return a fill value as xarray has it in format 3."""
    if dtype.kind != "f" or isinstance(fill, str | list):
        return fill.item() if isinstance(fill, np.generic) else fill
    return base64.standard_b64encode(struct.pack("<d", float(fill))).decode()


def _may_hold(stored: Array, value: Any) -> bool:
    """Return whether an array may hold a value, by its extremes: a comparison takes far longer."""
    if stored.dtype.kind not in "biuf" or stored.size == 0:
        return True
    if value < 0:
        return not (value < stored.min() or value > stored.max())
    return not (value > stored.max() or value < stored.min())


def dtype_for(stored: npt.DTypeLike, encoding: CFEncoding | None) -> np.dtype[np.floating]:
    """Return what to compute in: float32 for what it holds exactly or is stored in it."""
    packing = None if encoding is None else encoding.packing
    if packing is not None and not packing.is_modest:
        return np.dtype(np.float64)
    return compute_dtype(stored)


def _read_as(name: str, attributes: Mapping[str, Any], dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype to read the bytes of an array as."""
    if attributes.get("dtype") == "bool" and dtype.itemsize == 1:
        return np.dtype(bool)
    unsigned = attributes.get("_Unsigned")
    if unsigned is None or dtype.kind not in "iu":
        return dtype
    if str(unsigned).lower() not in ("true", "false"):
        raise _bad(name, "_Unsigned", unsigned, '"true" or "false"')
    kind = "u" if str(unsigned).lower() == "true" else "i"
    return np.dtype(f"{kind}{dtype.itemsize}").newbyteorder(dtype.byteorder)


def _fill_values(
    name: str, fills: list[tuple[str, Any]], stored: np.dtype[Any], dtype: np.dtype[Any]
) -> Iterator[Any]:
    """Yield the values that mean a missing one, as they compare with stored ones.

    A NaN is left out: floats that are NaN are missing anyway.
    """
    for key, value in fills:
        for item in _items(value):
            fill = _fill_value(name, key, item, stored, dtype)
            if not (isinstance(fill, float) and np.isnan(fill)):
                yield fill


def _stored_fills(attributes: Mapping[str, Any], array: zarr.Array[Any]) -> list[tuple[str, Any]]:
    """Return what is stored as a fill value, by its name; that of the Zarr array comes last."""
    stored = [(key, attributes[key]) for key in _FILLS if key in attributes]
    if array.metadata.zarr_format == 2 and XARRAY_DIMS in array.attrs:
        # There xarray keeps `_FillValue` as the fill value of the Zarr array.
        stored += [("fill_value", array.fill_value)] * (array.fill_value is not None)
    return stored


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _fill_value(
    name: str, key: str, value: Any, stored: np.dtype[Any], dtype: np.dtype[Any]
) -> Any:
    """Return a fill value as Python has it: a number for numbers, else a string."""
    if dtype.kind == "S":
        return _bytes(key, value)
    if dtype.kind not in "biuf":
        return str(value)
    if isinstance(value, str):
        value = _number(name, key, value)
    if isinstance(value, bool | np.bool):
        value = int(value)
    if not isinstance(value, int | float | np.number):
        raise _bad(name, key, value, "a number")
    if dtype.kind == "f":
        # Floats are compared as they are stored: 1e20 is another number in float32.
        with np.errstate(over="ignore"):
            return float(dtype.type(value))
    number = float(value) if isinstance(value, float | np.floating) else int(value)
    if stored != dtype:  # `_Unsigned` is about it too
        size = 2 ** (8 * dtype.itemsize)
        if dtype.kind == "u" and number < 0:
            number += size
        if dtype.kind == "i" and number >= size // 2:
            number -= size
    return int(number) if np.isfinite(number) and number == np.floor(number) else number


def _bytes(key: str, value: Any) -> bytes:
    """Return the bytes in an attribute: xarray writes a `_FillValue` of them as base64."""
    if isinstance(value, bytes):
        return bytes(value)
    try:
        if key == "_FillValue":
            return base64.b64decode(str(value), validate=True)
    except binascii.Error:
        pass
    return str(value).encode()


def _number(name: str, key: str, text: str) -> float:
    """Return the number in an attribute: xarray writes those of floats as base64 in format 3."""
    try:
        return float(text)
    except ValueError:
        try:
            return float(struct.unpack("<d", base64.b64decode(text, validate=True))[0])
        except (binascii.Error, struct.error):
            raise _bad(name, key, text, "a number") from None


def _packing(name: str, attributes: Mapping[str, Any], dtype: np.dtype[Any]) -> Packing | None:
    found = {key: attributes[key] for key in _PACKING if attributes.get(key) is not None}
    if not found:
        return None
    if dtype.kind not in "biuf":
        raise DataError(
            f"{name} has the attribute {quoted(next(iter(found)))}, but its dtype is {dtype}; "
            "expected numbers to unpack. Remove the attribute, or pass open_data(decode=False)"
        )
    values = {}
    for key, value in found.items():
        number = value[0] if isinstance(value, list) and len(value) == 1 else value
        try:
            values[key] = float(number)
        except (TypeError, ValueError):
            raise _bad(name, key, value, "a number") from None
        if not np.isfinite(values[key]) or (key == "scale_factor" and values[key] == 0):
            raise _bad(name, key, value, "a finite number, and none of zero for scale_factor")
    packing = Packing(**values)
    return None if packing == Packing() else packing


def _bad(name: str, key: str, value: Any, expected: str) -> DataError:
    return DataError(
        f"{name} has the attribute {key} = {quoted(value)}; expected {expected}. Correct it, or "
        "read the stored numbers with open_data(decode=False)"
    )


def _plain(fill: Any) -> Any:
    return fill.decode(errors="replace") if isinstance(fill, bytes) else fill


def _listed(values: tuple[Any, ...]) -> str:
    return " or ".join(map(repr, values))
