"""Rows a second of passes and of mini-batches, against the bare loops."""

from __future__ import annotations

import multiprocessing
import operator
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dsoftmax import open_data
from dsoftmax.data.batches import Epoch, lane_count
from dsoftmax.data.source import Source
from dsoftmax.objective.objective import partial_gradient
from dsoftmax.objective.reduction import Reduction
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.connect import local_workers
from dsoftmax.runtime.reduce import Pass, full_pass
from dsoftmax.runtime.select import executor_for
from dsoftmax.runtime.spans import cut_spans
from tests.benchmarks.bare import CLASSES, FEATURES, PROCESSES, bare_pass, build
from tests.benchmarks.measure import Result, compared, in_turn, middle

POINTS = np.zeros((1, FEATURES + 1, CLASSES), "f4")
BATCHES = {65_536: 0.75, 8_192: 0.35}


def gradient() -> Reduction[Any]:
    return Reduction(
        "partial_gradient", partial(partial_gradient, points=POINTS, shift=None), operator.add
    )


def one_pass(executor: Executor, source: Source, *, cached: bool) -> None:
    leaves = full_pass(cut_spans(source.chunks, source.row_bytes))
    cache_name = f"{executor.run_key}-pass" if cached else None
    Pass(executor, source, leaves, cache_name=cache_name).reduce(gradient())


def one_epoch(executor: Executor, source: Source, batch: int) -> None:
    """Compute the gradients of all mini-batches of an epoch, one after the other."""
    spans = cut_spans(source.chunks, source.row_bytes)
    largest = max(stop - start for start, stop in spans) * source.row_bytes
    epoch = Epoch(spans, lane_count(len(spans), largest, batch), batch, seed=0)
    for step in range(epoch.n_steps):
        Pass(
            executor,
            source,
            epoch.batch(step),
            cache_name=f"{executor.run_key}-{batch}",
            batch=True,
            following=epoch.batch(step + 1),
        ).reduce(gradient())


def measure(rows: int) -> tuple[list[Result], float]:
    """Return the results, and the decoded bytes that a pass gets through in a second."""
    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(PROCESSES) as pool,
        local_workers(PROCESSES),
    ):
        build(Path(folder), rows)
        source = open_data(f"{folder}/X", f"{folder}/y").with_classes(np.arange(CLASSES))

        def bare(in_memory: bool) -> None:
            pool.map(bare_pass, [(folder, own, in_memory) for own in range(PROCESSES)], 1)

        with executor_for(source) as executor:
            calls = {
                "bare": partial(bare, False),
                "pass": partial(one_pass, executor, source, cached=False),
                "bare, in memory": partial(bare, True),
                "pass, cached": partial(one_pass, executor, source, cached=True),
                **{f"{size:,}": partial(one_epoch, executor, source, size) for size in BATCHES},
            }
            seconds = in_turn(calls)
    return _results(rows, seconds), rows * FEATURES / middle(seconds)["pass"]


def _results(rows: int, seconds: Any) -> list[Result]:
    typical = middle(seconds)

    def note(name: str, against: str) -> str:
        return f"{typical[name]:.2f} s a pass, bare {typical[against]:.2f} s"

    found = [
        compared(
            "pass / bare loop, rows a second",
            seconds["bare"],
            seconds["pass"],
            0.95,
            note=note("pass", "bare"),
        ),
        compared(
            "cached pass / bare loop in memory",
            seconds["bare, in memory"],
            seconds["pass, cached"],
            0.90,
            note=note("pass, cached", "bare, in memory"),
        ),
    ]
    for size, goal in BATCHES.items():
        taken = seconds[f"{size:,}"]
        step = 1000 * typical[f"{size:,}"] / -(-rows // size)
        found.append(
            compared(
                f"mini-batches of {size:,} / bare loop",
                seconds["bare"],
                taken,
                goal,
                note=f"{step:.0f} ms a step",
            )
        )
    return found
