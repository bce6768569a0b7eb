from __future__ import annotations

import copy
import json
import struct
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, Flag, IntEnum
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from dsoftmax import CheckpointError
from dsoftmax.storage.records import STORABLE, flatten, restore
from tests.storage.states import SOLVERS, same, state_of


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


class Switch(Flag):
    A = 1
    B = 2


class Couple(NamedTuple):
    left: Any
    right: Any


@dataclass(frozen=True)
class Box:
    content: Any
    colour: Colour = Colour.RED


@dataclass
class Derived:
    size: int
    double: int = field(init=False, default=0)


BOXES = {kind.__name__: kind for kind in (Box, Colour, Couple, Level)}


def round_trip(value: Any, kinds: dict[str, type] = BOXES) -> Any:
    tree, arrays = flatten(value)
    text = json.dumps(tree, allow_nan=False)
    return restore(json.loads(text), arrays, kinds)


floats = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0])
dtypes = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(endianness="?"),
    npst.unsigned_integer_dtypes(endianness="?"),
    npst.floating_dtypes(endianness="?"),
    npst.byte_string_dtypes(endianness="?"),
    npst.unicode_string_dtypes(endianness="?"),
)
arrays = npst.arrays(dtypes, npst.array_shapes(min_dims=0, min_side=0, max_side=4))
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    floats,
    st.floats(),
    st.text(),
    arrays,
    arrays.map(np.asfortranarray),
    dtypes,
    st.sampled_from([*Colour, *Level]),
    npst.arrays(
        st.one_of(npst.integer_dtypes(), npst.floating_dtypes(), npst.boolean_dtypes()), ()
    ).map(lambda array: array[()]),
)
keys = st.text() | st.tuples(st.integers(), st.integers()) | st.just(())
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
        st.builds(Couple, inner, inner),
        st.builds(Box, inner, st.sampled_from(Colour)),
    ),
    max_leaves=8,
)


@settings(max_examples=150)
@given(values)
@example([float("nan"), float("inf"), -float("inf"), -0.0, 0.1, 5e-324, 1 << 20_000, -(1 << 63)])
@example({"float": {"array": 1}, "": ["é", "\ud800", "\0"], (0, 1): (), (): {}})
@example(np.frombuffer(struct.pack("<2Q", 0x7FF0000000000001, 0xFFF8DEADBEEF0000)))
@example(np.asfortranarray(np.arange(6.0).reshape(2, 3)))
@example(np.array(["a", "bc\0d"], ">U9"))
def test_every_bit_and_every_type_comes_back(value: Any) -> None:
    assert same(round_trip(value), value)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("steps", [0, 1, 6])
def test_the_state_of_a_solver_comes_back(name: str, steps: int) -> None:
    state = state_of(name, steps)
    assert same(round_trip(state, STORABLE), state)


def test_arrays_are_neither_copied_nor_held_twice() -> None:
    array = np.arange(3.0)
    _, arrays = flatten([array, {"again": array}])
    assert [id(held) for held in arrays.values()] == [id(array)]


def test_a_string_scalar_comes_back_as_a_string() -> None:
    assert same(round_trip([np.str_("yes")]), ["yes"])


class Ordered(OrderedDict[str, int]):
    pass


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"state": Box([1, 2, 3, Couple(0, 1j)])},
            r"\['state'\].content\[3\].right is a .*complex",
        ),
        (Box(Box({(0, 1): {2}})), r"content.content\[\(0, 1\)\] is a builtins.set"),
        ([b"bytes"], r"\[0\] is a builtins.bytes"),
        (object(), "the value is a builtins.object"),
        (Box, "the value is a builtins.type"),
        ([datetime(2026, 1, 1)], "datetime"),
        (np.array([None]), "ndarray .object"),
        (np.array([1j]), "ndarray .complex128"),
        (np.zeros(2, "M8[s]"), "ndarray .datetime64"),
        (np.zeros(2, [("a", int)]), "ndarray"),
        (np.ma.array([1.0]), "MaskedArray"),
        (np.datetime64("2026"), "datetime64"),
        (np.dtype(object), "object"),
        (Ordered(), "Ordered"),
        (Switch.A | Switch.B, "Switch"),
        (Derived(3), "Derived"),
        ({"a": {1: 2}}, r"\['a'\]\[1\] has a key"),
        ({(1, "a"): 2}, "has a key"),
        ({(True,): 2}, "has a key"),
    ],
)
def test_anything_else_is_refused_by_its_type_and_where_it_is(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        flatten(value)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"tuple": [], "dict": []},
        {"unknown": 1},
        {"tuple": "abc"},
        {"tuple": {"tuple": []}},
        {"dict": [["a"]]},
        {"dict": [["a", 1], ["a", 2]]},
        {"dict": [[[1], 1]]},
        {"dict": "ab"},
        {"array": "nothing"},
        {"array": []},
        {"array": {}},
        {"scalar": ["<f8", "00"]},
        {"scalar": ["O", "00" * 8]},
        {"scalar": ["no type", "00"]},
        {"scalar": "<f8"},
        {"float": "zz"},
        {"float": 1},
        {"int": "one"},
        {"int": 1.5},
        {"dtype": "O"},
        {"dtype": ["a", "<f8"]},
        {"dtype": "<M8[s]"},
        {"member": ["Colour", "GREEN"]},
        {"member": ["Box", "RED"]},
        {"member": ["Colour", ["RED"]]},
        {"member": ["Colour"]},
        {"record": ["Colour", []]},
        {"record": ["os.system", [["command", "true"]]]},
        {"record": ["Box", [["content", 1]]]},
        {"record": [["Box"], []]},
        {"record": ["Box", [["content", 1], ["colour", 1], ["more", 1]]]},
        {"record": ["Box", [["content", 1], ["content", 1], ["colour", 1]]]},
        {"record": ["Couple", [[1, 2], [3, 4]]]},
        {"record": ["Strict", [["size", -1]]]},
        object(),
        {1: 2},
        b"bytes",
        (1, 2),
    ],
)
def test_a_malformed_tree_is_refused(tree: Any) -> None:
    @dataclass
    class Strict:
        size: int

        def __post_init__(self) -> None:
            if self.size < 0:
                raise RuntimeError("negative")

    with pytest.raises(CheckpointError, match="no readable record"):
        restore(tree, {}, BOXES | {"Strict": Strict})


def test_arrays_have_to_be_those_of_the_tree() -> None:
    with pytest.raises(CheckpointError, match="nothing refers to"):
        restore(None, {"array-0": np.zeros(1)}, {})
    for wrong in (np.array([object()]), [1.0], np.zeros(1, "M8[s]")):
        with pytest.raises(CheckpointError, match="no array of numbers"):
            restore({"array": "a"}, {"a": wrong}, {})  # type: ignore[dict-item]


def test_a_tree_of_any_depth_is_refused_rather_than_a_crash() -> None:
    tree: Any = None
    for _ in range(100_000):
        tree = [tree]
    with pytest.raises(CheckpointError, match="RecursionError"):
        restore(tree, {}, {})


@settings(max_examples=150)
@given(st.data())
def test_a_tree_with_any_part_replaced_gives_a_value_or_a_clear_error(data: st.DataObject) -> None:
    value = {"a": [1, 2.5, Box(Couple(np.zeros(2), Colour.BLUE))], (0, 1): np.float32(2), "d": -0.0}
    tree, arrays = flatten(value)
    tree = json.loads(json.dumps(tree))
    places: list[tuple[Any, Any]] = []

    def visit(part: Any) -> None:
        for key, item in list(part.items() if isinstance(part, dict) else enumerate(part)):
            places.append((part, key))
            if isinstance(item, dict | list):
                visit(item)

    visit(tree)
    part, key = data.draw(st.sampled_from(places))
    others = [owner[name] for owner, name in places]
    anything = st.sampled_from(others) | st.none() | st.integers() | st.text() | st.floats()
    part[key] = copy.deepcopy(data.draw(anything))
    with suppress(CheckpointError):
        restore(tree, arrays, BOXES)
