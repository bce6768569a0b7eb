"""Values as JSON and arrays, and back: what a checkpoint holds, with nothing pickled.

A value is None, a bool, int, float, str, a NumPy scalar, array or dtype, or a list, tuple,
dict, dataclass, NamedTuple or Enum of such values. Every bit of every number comes back.
JSON holds what it has a word for as itself, and all else as an object of one tag::

    {"float": "000000000000f87f"}             the bytes of a NaN or an infinity
    {"int": "0x1fffffffffffffff"}             an int of more than 64 bits
    {"scalar": ["<f4", "0000803f"]}           a NumPy scalar
    {"array": "array-0"}                      an array, by its name
    {"dtype": "<f8"}                          a NumPy dtype
    {"tuple": [1, 2]}, {"dict": [["a", 1]]}   a dict as pairs, in its order
    {"record": ["Pair", [["rho", 1.0]]]}      a dataclass or NamedTuple, by field
    {"member": ["Status", "RUNNING"]}         an Enum
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, TypeVar

import numpy as np

from dsoftmax.errors import CheckpointError, quoted, shortened
from dsoftmax.storage.field_types import declared_types, is_of_type
from dsoftmax.typing import Array

T = TypeVar("T")

_NUMBERS = "biuf"
_STORABLE = "biufUS"  # kinds of NumPy dtypes of which a file can hold every bit


STORABLE: dict[str, type] = {}  # the classes that a checkpoint may hold, by name


def storable(kind: type[T]) -> type[T]:
    """Let `restore` build a class: the decorator of all that a checkpoint holds."""
    known = STORABLE.setdefault(kind.__name__, kind)
    if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
        raise TypeError(f"two storable classes are named {kind.__name__}")
    STORABLE[kind.__name__] = kind  # the newer one, of a module that is loaded again
    return kind


def flatten(value: Any) -> tuple[Any, dict[str, Array]]:
    """Return a value as a tree that strict JSON can hold, and the arrays that it names.

    Parameters
    ----------
    value : see the module; an array that occurs twice is named twice and held once

    Returns
    -------
    the tree, and the arrays by name: the very arrays, not copies

    Raises
    ------
    TypeError
        If there is anything else in it; the message names the type and where it is.
    """
    writer = _Writer()
    tree = writer.tree(value, "")
    return tree, writer.arrays


def restore(tree: Any, arrays: Mapping[str, Array], kinds: Mapping[str, type]) -> Any:
    """Return the value that `flatten` was given.

    A NumPy string scalar comes back as a str of the same characters, everything else with the
    type that it had; an array with the memory order that it is given with.

    Parameters
    ----------
    tree, arrays : what `flatten` returned
    kinds : the only classes that may be built, by name

    Raises
    ------
    CheckpointError
        If the tree is anything that `flatten` would not return, the arrays are not those that
        it names, or a class is not among the kinds or takes no such fields.
    """
    reader = _Reader(arrays, kinds)
    try:
        value = reader.value(tree)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a malformed tree, or a class given its fields, raises
        raise CheckpointError(
            f"no readable record: {type(error).__name__}: {shortened(error)}"
        ) from error
    if reader.used != set(arrays):
        raise CheckpointError("no readable record: it holds arrays that nothing refers to")
    return value


def strict_json(value: Any) -> Any:
    """Return a value as strict JSON, which other programs read; `restore` cannot read it.

    NumPy's values become Python's, the keys of a dict strings, and a NaN or an infinity None.
    """
    if isinstance(value, Mapping):
        return {str(key): strict_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return strict_json(value.tolist())
    if isinstance(value, str | int | None):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


class _Writer:
    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._names: dict[int, str] = {}

    def tree(self, value: Any, path: str) -> Any:
        if value is None or type(value) in (bool, str):
            return value
        if type(value) in (int, float):
            return _number(value)
        if type(value) in (list, tuple):
            items = [self.tree(item, f"{path}[{index}]") for index, item in enumerate(value)]
            return items if type(value) is list else {"tuple": items}
        if type(value) is dict:
            return {"dict": [self._pair(key, item, path) for key, item in value.items()]}
        if isinstance(value, Enum) and value.name in type(value).__members__:
            return {"member": [type(value).__name__, value.name]}
        if isinstance(value, np.ndarray | np.generic | np.dtype):
            return self._numpy(value, path)
        return {"record": [type(value).__name__, self._fields(value, path)]}

    def _pair(self, key: Any, item: Any, path: str) -> Any:
        where = f"{path}[{quoted(key)}]"
        if type(key) is str:
            return [key, self.tree(item, where)]
        if type(key) is tuple and all(type(part) is int for part in key):
            return [self.tree(key, where), self.tree(item, where)]
        raise TypeError(f"{where} has a key that is neither a str nor a tuple of ints")

    def _numpy(self, value: Any, path: str) -> Any:
        if isinstance(value, np.str_):
            return str(value)
        if type(value) is np.ndarray and value.dtype.kind in _STORABLE:
            name = self._names.setdefault(id(value), f"array-{len(self.arrays)}")
            self.arrays[name] = value
            return {"array": name}
        if isinstance(value, np.generic) and value.dtype.kind in _NUMBERS:
            return {"scalar": [value.dtype.str, value.tobytes().hex()]}
        if isinstance(value, np.dtype) and value.kind in _STORABLE:
            return {"dtype": value.str}
        kind = value if isinstance(value, np.dtype) else getattr(value, "dtype", "")
        raise _unsupported(value, path, f" ({kind})")

    def _fields(self, value: Any, path: str) -> list[Any]:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            # A field that __init__ does not take could be written down, but not restored.
            names = [field.name if field.init else "" for field in dataclasses.fields(value)]
        else:
            names = list(_named_tuple_fields(type(value)) or [""])
        if "" in names:
            raise _unsupported(value, path)
        prefix = f"{path}." if path else ""
        return [[name, self.tree(getattr(value, name), f"{prefix}{name}")] for name in names]


class _Reader:
    def __init__(self, arrays: Mapping[str, Array], kinds: Mapping[str, type]) -> None:
        self.used: set[str] = set()
        self._arrays = arrays
        self._kinds = kinds
        self._tags: dict[str, Callable[[Any], Any]] = {
            "float": _unusual_float,
            "int": _large_int,
            "scalar": _scalar,
            "dtype": _dtype,
            "array": self._array,
            "tuple": self._tuple,
            "dict": self._dict,
            "record": self._record,
            "member": self._member,
        }

    def value(self, tree: Any) -> Any:
        if isinstance(tree, list):
            return [self.value(item) for item in tree]
        if isinstance(tree, dict):
            ((tag, content),) = tree.items()
            return self._tags[tag](content)
        if tree is None or isinstance(tree, bool | int | float | str):
            return tree
        raise CheckpointError(f"no readable record: it holds a {type(tree).__name__}")

    def _array(self, name: Any) -> Array:
        array = self._arrays[name]
        if type(array) is not np.ndarray or array.dtype.kind not in _STORABLE:
            raise CheckpointError(f"no readable record: {name} is no array of numbers or strings")
        self.used.add(name)
        return array

    def _tuple(self, items: Any) -> tuple[Any, ...]:
        return tuple(self.value(_checked(items, list)))

    def _dict(self, pairs: Any) -> dict[Any, Any]:
        return _unique([(self.value(key), self.value(item)) for key, item in _checked(pairs, list)])

    def _kind(self, name: Any) -> type:
        if name not in self._kinds:
            raise CheckpointError(
                f"no readable record: it asks for the unknown class {quoted(name)}"
            )
        return self._kinds[name]

    def _record(self, content: Any) -> Any:
        name, pairs = content
        kind = self._kind(name)
        given = _unique([(_checked(key, str), self.value(item)) for key, item in pairs])
        if dataclasses.is_dataclass(kind):
            expected = {field.name for field in dataclasses.fields(kind)}
        else:
            expected = set(_named_tuple_fields(kind))
        if not expected or set(given) != expected:
            raise CheckpointError(
                f"no readable record: {name} has the fields {shortened(sorted(given))}, and this "
                f"version expects {sorted(expected)}"
            )
        types = declared_types(kind)
        for field, item in given.items():
            if not is_of_type(item, types[field]):
                raise CheckpointError(
                    f"no readable record: {name}.{field} holds a {type(item).__name__}, or one of "
                    f"wrong items; expected {shortened(types[field])}"
                )
        return kind(**given)

    def _member(self, content: Any) -> Any:
        name, member = content
        kind = self._kind(name)
        if not issubclass(kind, Enum):
            raise CheckpointError(f"no readable record: {name} is no Enum")
        return kind[member]


def _number(value: Any) -> Any:
    if isinstance(value, float):
        # JSON has no word for these, and only bytes keep a NaN's payload.
        return value if np.isfinite(value) else {"float": struct.pack("<d", value).hex()}
    # Python reads a decimal number of more than 4300 digits only when told to.
    return value if value.bit_length() < 64 else {"int": hex(value)}


def _named_tuple_fields(kind: type) -> tuple[str, ...]:
    return tuple(getattr(kind, "_fields", ())) if issubclass(kind, tuple) else ()


def _unsupported(value: Any, path: str, detail: str = "") -> TypeError:
    kind = type(value)
    return TypeError(
        f"{path or 'the value'} is a {kind.__module__}.{kind.__qualname__}{detail}, which a "
        "record cannot hold"
    )


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise CheckpointError(f"no readable record: {type(value).__name__} for {kind.__name__}")
    return value


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise CheckpointError("no readable record: a name occurs twice")
    return result


def _unusual_float(content: Any) -> float:
    value: float = struct.unpack("<d", bytes.fromhex(content))[0]
    return value


def _large_int(content: Any) -> int:
    return int(content, 16)


def _dtype(content: Any) -> Any:
    dtype = np.dtype(_checked(content, str))
    if dtype.kind not in _STORABLE:
        raise CheckpointError(
            f"no readable record: {quoted(content)} is no dtype of numbers or strings"
        )
    return dtype


def _scalar(content: Any) -> Any:
    dtype, digits = content
    (value,) = np.frombuffer(bytes.fromhex(digits), _dtype(dtype))
    return value
