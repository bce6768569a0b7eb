"""Digests of what fits find, to the bit: the same before and after a change that is to change none.

    python -m tests.benchmarks.digests --out before.txt
    python -m tests.benchmarks.digests --against before.txt

before and after the change; the second one exits with 1 if a bit differs.
Each line is a fit of `tests/benchmarks/fittable.py`: its name, and digests (of SHA-256) of the
parts of what it found. Each fit that differs is named, with the parts that do; those that fail have
the part "raised". `--only GROUP ...` runs, and compares, some groups of the table alone.

The bits are those of one machine and environment: another CPU or BLAS rounds differently. Modules
may move, since only what `dsoftmax` exports is imported.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dask
import numpy as np

Line = dict[str, str]
_DIGITS = 12


def encoded(value: Any) -> Iterator[bytes]:
    """Yield bytes that only an equal value has, whichever type of number or text it has."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        yield f"array {value.dtype.str} {value.shape} ".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, np.ndarray):
        yield f"texts {value.shape} {value.tolist()} ".encode()
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield f"{key}: ".encode()
            yield from encoded(value[key])
        yield b"end "
    elif isinstance(value, list | tuple):
        yield f"{len(value)} items ".encode()
        for item in value:
            yield from encoded(item)
    elif isinstance(value, float | np.floating):
        yield f"{float(value).hex()} ".encode()
    elif isinstance(value, bool | np.bool | int | np.integer):
        yield f"{int(value)} ".encode()
    elif value is None or isinstance(value, str):
        yield f"{value!r} ".encode()
    else:
        raise TypeError(f"no digest is known of a {type(value).__name__}")


def digest(value: Any) -> str:
    found = hashlib.sha256()
    for piece in encoded(value):
        found.update(piece)
    return found.hexdigest()[:_DIGITS]


def line_of(fit: Callable[[], Mapping[str, Any]]) -> Line:
    """Return the digests of what a fit finds, or of what it raises."""
    try:
        return {part: digest(value) for part, value in fit().items()}
    except Exception as error:
        traceback.print_exc()
        return {"raised": digest(type(error).__name__)}


def run(groups: Mapping[str, Any], folder: Path) -> dict[str, Line]:
    """Run the fits of some groups; print and return the line of each, by its name."""
    lines: dict[str, Line] = {}
    for group, fits in groups.items():
        own = folder / group
        own.mkdir()
        try:
            for name, fit in fits(own):
                full = f"{group}/{name}"
                assert full not in lines, f"{full} is there twice"
                lines[full] = line_of(fit)
                print(as_text(full, lines[full]), flush=True)
        except Exception as error:  # between two fits
            traceback.print_exc()
            lines[f"{group}/all"] = {"raised": digest(type(error).__name__)}
    return lines


def as_text(name: str, line: Line) -> str:
    return " ".join([f"{name:<28}", *(f"{part}={digits}" for part, digits in line.items())])


def read(file: Path) -> dict[str, Line]:
    """Return the lines of a file, by name."""
    rows = [line.split() for line in file.read_text().splitlines()]
    return {name: dict(part.split("=") for part in parts) for name, *parts in rows}


def differences(before: Mapping[str, Line], after: Mapping[str, Line]) -> Iterator[str]:
    """Yield a sentence for each fit that is not what it was."""
    for name, old in before.items():
        new = after.get(name)
        if new is None:
            yield f"{name} is missing"
            continue
        changed = [part for part in {**old, **new} if old.get(part) != new.get(part)]
        if changed:
            yield f"{name} differs in {', '.join(changed)}"
    yield from (f"{name} is new" for name in after if name not in before)


def main() -> int:
    from tests.benchmarks.fittable import GROUPS  # not needed by workers, which import this module

    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.digests")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="GROUP")
    arguments = parser.parse_args()
    before = None if arguments.against is None else read(arguments.against)
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, dask.config.set({"dsoftmax.retry-delay": 0.001}):
        lines = run({group: GROUPS[group] for group in arguments.only}, Path(folder))
    if arguments.out is not None:
        arguments.out.write_text("".join(f"{as_text(*item)}\n" for item in lines.items()))
    told = [f"{name} has failed" for name, line in lines.items() if "raised" in line]
    if before is not None:
        own = {n: line for n, line in before.items() if n.partition("/")[0] in arguments.only}
        told += differences(own, lines)
    verdict = "" if before is None else ", the same as before" if not told else ", NOT as before"
    seconds = time.perf_counter() - started
    print(*told, f"{len(lines)} fits in {seconds:.0f} s{verdict}", sep="\n", file=sys.stderr)
    return int(bool(told))


if __name__ == "__main__":
    sys.exit(main())
