"""The shapes of the arrays in a state that was read: those of the problem that goes on from it.

The digest of a checkpoint tells of damage. Whoever makes one by hand can make the digest, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from dsoftmax.errors import CheckpointError
from dsoftmax.typing import Array

# Lengths of axes by letter: n features, p = n + 1, k columns, c classes, s = p * k. Another letter
# stands for any length, which is the same throughout a record; a digit for itself.
_SHAPES: dict[str, dict[str, str | tuple[str, ...]]] = {
    "AutoState": {"average": "pk", "inverse": "pp", "probe": "pk"},
    "BestModel": {"coefficients": ("nk", "k")},
    "DataStatistics": {"class_weight": "c"},
    "FISTAState": dict.fromkeys(("gradient", "base", "base_gradient", "candidate", "ahead"), "pk"),
    "FitState": {"start": ("nk", "k")},
    "FittedModel": {"coef": "nk", "intercept": "k"},
    "FoldMoments": {"judging": "fc"},
    "HeldOutSums": {"loss": "m", "correct": "m", "weight": "m"},
    "ImportanceSample": {
        "X": "rn",
        "codes": "r",
        "weight": "r",
        "inverse_probability": "r",
        "fold": "r",
    },
    "LBFGSState": {"gradient": "pk", "direction": "pk"},
    "LossSums": {"loss": "m", "gradient": "mpk", "correct": "m", "weight": "m"},
    "LowRankTerm": {"basis": "sr", "weights": "r"},
    "MetricSums": {"ranks": "i", "bins": "j3"},
    "MiniBatchState": {"current": "pk", "memory": "pk"},
    "Moments": {"mean": "n", "m2": "n", "class_weight": "c", "class_offset": "cn", "exponent": "n"},
    "NewtonState": {"gradient": "pk", "root": "pp"},
    "Pair": {"step": "s", "change": "s"},
    "Pairs": {"keys": "i", "weight": "i"},
    "ProgressState": {"sums": "4"},
    "SearchState": {"scores": "m3"},
    "Secant": {"step": "s", "change": "s"},
    "Snapshot": {"point": "pk", "gradient": "pk"},
    "State": {"point": "pk"},
    "Surrogate": {"centre": "pk", "gradient": "pk", "correction": "pk", "root": "pp"},
    "Trial": {"point": "pk"},
    "UnknownLabels": {"labels": "i", "rows": "i", "weight": "i"},
}
# The kinds of dtype of arrays, which are floats by default. Weights that are not given are counts.
_KINDS = dict.fromkeys(("codes", "exponent", "fold", "keys", "rows"), "iu") | {
    "X": "biufUS",
    "labels": "biufUS",
    "weight": "iuf",
}
_FINITE = ("change", "coef", "coefficients", "intercept", "start", "step")
_MOST_COUNTED = 1 << 53


def require_shapes(place: str, state: Any, n_features: int, n_classes: int) -> None:
    """Raise CheckpointError if arrays of a state do not belong to a problem.

    Parameters
    ----------
    place : of the checkpoint, for the message
    state : dataclass or NamedTuple, with others in it
    n_features, n_classes : of the problem
    """
    columns = 1 if n_classes == 2 else n_classes
    sizes = {"n": n_features, "p": n_features + 1, "k": columns, "c": n_classes}
    sizes |= {"s": (n_features + 1) * columns} | {digit: int(digit) for digit in "34"}
    for fault in _faults(state, sizes):
        raise CheckpointError(
            f"{place} is whole, but {fault}; it was not written for this run: remove it, or give "
            "another folder"
        )


def _faults(value: Any, sizes: Mapping[str, int]) -> Iterator[str]:
    if isinstance(value, dict):
        value = tuple(value.values())
    if is_dataclass(value) or hasattr(value, "_fields"):
        yield from _faults_of_record(value, sizes)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _faults(item, sizes)


def _faults_of_record(record: Any, sizes: Mapping[str, int]) -> Iterator[str]:
    kind, lengths = type(record), dict(sizes)
    specs = {
        name: spec for base in kind.__mro__ for name, spec in _SHAPES.get(base.__name__, {}).items()
    }
    names = [field.name for field in fields(record)] if is_dataclass(record) else record._fields
    for name in names:
        value, spec = getattr(record, name), specs.get(name)
        if type(value) is int and not 0 <= value < _MOST_COUNTED:
            yield f"{kind.__name__}.{name} is {value}, which is no count"
        if spec is None or value is None:
            yield from _faults(value, sizes)
            continue
        items = value if isinstance(value, tuple) else (value,)
        each = spec if isinstance(spec, tuple) else (spec,) * len(items)
        for index, (array, letters) in enumerate(zip(items, each, strict=True)):
            # Blocks of rows have lengths of their own.
            axes = [letter if letter in sizes else f"{letter}{index}" for letter in letters]
            fault = _fault(name, array, axes, lengths)
            if fault:
                yield f"{kind.__name__}.{name} {fault}"


def _fault(name: str, array: Array, letters: list[str], lengths: dict[str, int]) -> str | None:
    """Return what is wrong with an array; lengths that were free are known from here on."""
    known = [lengths.get(letter) for letter in letters]
    if array.ndim != len(known) or any(
        length not in (None, found) for length, found in zip(known, array.shape, strict=True)
    ):
        expected = ", ".join("any" if length is None else str(length) for length in known)
        return f"has shape {array.shape}, where ({expected}) was expected"
    lengths.update(zip(letters, array.shape, strict=True))
    if array.dtype.kind not in _KINDS.get(name, "f"):
        return f"is of dtype {array.dtype}"
    if name in _FINITE and not np.isfinite(array).all():
        return "is not finite"
    if name == "codes" and array.size and (array.min() < 0 or array.max() >= lengths["c"]):
        return "has codes that stand for no class"
    return None
