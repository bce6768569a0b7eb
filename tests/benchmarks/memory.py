"""Peak memory of a worker: the same for any number of chunks, and not far below the plan.

    python -m tests.benchmarks.memory

prints the peaks on 1, 10 and 50 times the memory of the worker, which takes some minutes. The rows
are the same in all chunks, so that the disk needs little; decoded, they take what others do.

    python -m tests.benchmarks.memory shapes [PART OF A NAME ...]

prints peak and plan for many shapes of data, settings and commands, in ten minutes or so.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence

import dask
import numpy as np
import zarr

from dsoftmax import SoftmaxRegression, plan_fit
from dsoftmax.cli.demo import peak_memory
from dsoftmax.runtime.connect import local_workers
from tests.benchmarks.measure import Result
from tests.benchmarks.memory_shapes import SHAPES, measured

CHUNK, FEATURES, LIMIT = 8192, 784, 400 << 20
FEW, AS_MUCH, MANY = 13, 65, 650  # chunks: about a fifth of the limit, the limit, 10 times
SIZES = (1, 10, 50)


def build(folder: str, chunks: int) -> str:
    """Write rows that take next to no place on the disk, y in chunks of the same size for all."""
    group = zarr.open_group(f"{folder}/{chunks}", mode="w")
    shape = (chunks * CHUNK, FEATURES)
    X = group.create_array("X", shape=shape, chunks=(CHUNK, FEATURES), dtype="u1")
    labels = (np.arange(CHUNK) % 10).astype("u1")
    rows = (labels[:, None] + np.arange(FEATURES) % 7).astype("u1")
    for start in range(0, chunks * CHUNK, CHUNK):
        X[start : start + CHUNK] = rows
    group.create_array("y", data=np.tile(labels, chunks), chunks=(FEW * CHUNK,))
    return f"{folder}/{chunks}"


def peak(path: str, *, cached: bool) -> tuple[int, int]:
    """Return the peak of a new worker that makes two passes, and what was planned."""
    model = SoftmaxRegression(solver="lbfgs", max_iter=2, tol=0)
    settings = {} if cached else {"dsoftmax.cache": 0}
    with dask.config.set(settings), local_workers(1, str(LIMIT)) as client:
        plan = plan_fit(f"{path}/X", f"{path}/y", model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(f"{path}/X", f"{path}/y")
        (found,) = client.run(peak_memory).values()
    return found, plan.peak_memory


def measure() -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder:
        few, as_much, many = (build(folder, chunks) for chunks in (FEW, AS_MUCH, MANY))
        pairs = [[peak(path, cached=False)[0] for path in (many, few)] for _ in range(3)]
        yield _result(
            f"memory, {MANY} / {FEW} chunks, no cache",
            [most / least for most, least in pairs],
            1.05,
            f"{pairs[-1][0] >> 20} MiB",
        )
        for name, path in (("1x", as_much), ("10x", many)):
            got, planned = peak(path, cached=True)
            note = f"{got >> 20} of {planned >> 20} MiB"
            yield _result(f"memory / plan, cached, {name} the memory", [got / planned], 1.0, note)


def _result(name: str, ratios: list[float], goal: float, note: str) -> Result:
    ratios = sorted(ratios)
    middle = ratios[len(ratios) // 2]
    return Result(name, middle, ratios[0], ratios[-1], goal, at_most=True, note=note)


def main() -> None:
    """Print the peaks of a worker that makes two passes over more and more data."""
    print(f"a worker of {LIMIT >> 20} MiB, chunks of {CHUNK * FEATURES / 2**20:.1f} MiB")
    for times in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            path = build(folder, -(-times * LIMIT // (CHUNK * FEATURES)))
            for cached in (True, False):
                got, planned = peak(path, cached=cached)
                print(
                    f"{times:>3}x the memory, {'cached' if cached else 'no cache':<9}"
                    f"{got >> 20:>5} of {planned >> 20} MiB planned  {got / planned:.3f}",
                    flush=True,
                )


def print_shapes(parts: Sequence[str]) -> None:
    """Print peak and plan of the shapes whose names have any of some parts."""
    print(f"{'MiB':<46}{'idle':>6}{'peak':>6}{'plan':>6}{'ratio':>7}  above idle")
    for name, shape in SHAPES.items():
        if parts and not any(part in name for part in parts):
            continue
        idle, got, planned = measured(shape)
        sizes = "".join(f"{size >> 20:>6}" for size in (idle, got, planned))
        above = (got - idle) / max(planned - idle, 1)
        print(f"{name:<46}{sizes}{got / planned:>7.2f}  {above:.2f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["shapes"]:
        print_shapes(sys.argv[2:])
    else:
        main()
