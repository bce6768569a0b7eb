"""`dsoftmax demo`: training on more data than the workers have memory, in about a minute."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsoftmax.cli import demo_data
from dsoftmax.cli.options import PlacePath, n_bytes, worker_bytes
from dsoftmax.errors import DsoftmaxError
from dsoftmax.solvers import SOLVERS
from dsoftmax.storage.atomic_folder import missing_folders, remove_empty

# Slow imports are inside of functions: workers import this module for `peak_memory`.
if TYPE_CHECKING:
    from dsoftmax.cli.demo_data import Digits
    from dsoftmax.estimators.classifier import SoftmaxRegression

_TIMES_MEMORY = 2
_PASSES = {"sgd": 3}
_DEFAULT_PASSES = 12
_ALPHA = 10.0  # for pixels from 0 to 255; the best of 0.01, 1, 10 and 100 on held-out digits
_TOL = 0.02  # a smaller one hardly changes the test accuracy


@dataclass(frozen=True)
class _Setup:
    """What the options ask for."""

    blocks: int
    workers: int
    memory_limit: int
    solver: str
    max_iter: int
    seed: int
    model: Path
    plot: Path | None

    @property
    def rows(self) -> int:
        return self.blocks * demo_data.BLOCK_ROWS

    @property
    def size(self) -> int:
        return self.blocks * demo_data.BLOCK_BYTES


_FILE = PlacePath(dir_okay=False, path_type=Path)
_FOLDER = PlacePath(file_okay=False, path_type=Path)


@click.command()
@click.option(
    "--size", metavar="SIZE", type=n_bytes, help="Of the data.  [default: twice the memory]"
)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option(
    "--memory-limit", metavar="SIZE", type=worker_bytes, default="400MiB", show_default=True
)
@click.option(
    "--solver", type=click.Choice(["auto", *sorted(SOLVERS)]), default="auto", show_default=True
)
@click.option("--max-iter", type=click.IntRange(min=1), help="Passes over the data, at most.")
@click.option("--keep", is_flag=True, help="Do not remove the data at the end.")
@click.option("--output", type=_FOLDER, help="Put data and model into this folder, to stay.")
@click.option("--plot", type=_FILE, help="Draw how it went: a .png, .pdf or .svg file.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def demo(
    size: int | None,
    workers: int,
    memory_limit: int,
    solver: str,
    max_iter: int | None,
    keep: bool,
    output: Path | None,
    plot: Path | None,
    seed: int,
) -> None:
    """Train on twice as much data as the workers have memory, in about a minute.

    The handwritten digits that come with scikit-learn are enlarged to millions of rows in a
    temporary Zarr store, and Dask workers on this machine train on them. The model is saved to
    the current folder.
    """
    setup = _Setup(
        blocks=demo_data.count_blocks(size or _TIMES_MEMORY * workers * memory_limit),
        workers=workers,
        memory_limit=memory_limit,
        solver=solver,
        max_iter=max_iter or _PASSES.get(solver, _DEFAULT_PASSES),
        seed=seed,
        model=(output or Path()) / "demo-model.zarr",
        plot=plot,
    )
    with _data_folder(output, keep) as folder:
        _run(setup, folder / "digits.zarr")


@contextmanager
def _data_folder(output: Path | None, keep: bool) -> Iterator[Path]:
    """Yield the folder for the data, and remove it again unless the user wants it."""
    if output is not None:
        missing = missing_folders(output)
        output.mkdir(parents=True, exist_ok=True)
        try:
            yield output
        finally:
            remove_empty(missing)
        return
    folder = Path(tempfile.mkdtemp(prefix="dsoftmax-demo-"))
    try:
        yield folder
    finally:
        if keep:
            _say("kept", str(folder))
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _run(setup: _Setup, store: Path) -> None:
    from dsoftmax.runtime.local_cluster import local_cluster

    started = time.perf_counter()
    _require_possible(setup, store)
    train, test = demo_data.load_split(setup.seed)
    _describe(setup, train, test)
    with (
        local_cluster(setup.workers, setup.memory_limit) as cluster,
        cluster.get_client() as client,
    ):
        _build(setup, train, store, client)
        model = _fit(setup, store)
        peaks = client.run(peak_memory).values()
    _report_memory(peaks, setup.memory_limit)
    _report_accuracy(model, train, test)
    _save(model, setup)
    _say("time", f"{time.perf_counter() - started:.0f} s")


def _require_possible(setup: _Setup, store: Path) -> None:
    """Raise errors at once that would otherwise come after a minute."""
    for path in (store, setup.model):
        demo_data.require_replaceable(path)
    if setup.plot is not None:
        from dsoftmax.diagnostics.style import check_plot

        check_plot(setup.plot)
    for folder in {setup.model.parent, (setup.plot or setup.model).parent}:
        if not os.access(folder, os.W_OK):
            raise DsoftmaxError(f"{folder.absolute()} is no folder that can be written to")
    free = shutil.disk_usage(store.parent).free
    if free < setup.size:
        raise DsoftmaxError(
            f"{store.parent} has {_mib(free)} left on its disk, and the demo may need "
            f"{_mib(setup.size)}: choose a --size, or a folder elsewhere with --output"
        )


def _describe(setup: _Setup, train: Digits, test: Digits) -> None:
    times = setup.size / (setup.workers * setup.memory_limit)
    _say("workers", f"{setup.workers} processes with {_mib(setup.memory_limit)} of memory each")
    _say(
        "data",
        f"{_mib(setup.size)}, {times:.1f} times their memory: {setup.rows:,} rows, made from",
        f"{len(train.X):,} handwritten digits of scikit-learn by small shifts and noise;",
        f"{len(test.X)} others are kept for the test",
    )


def _build(setup: _Setup, train: Digits, store: Path, client: Any) -> None:
    from dsoftmax.runtime.cluster import ClusterExecutor

    started = time.perf_counter()
    bar = click.progressbar(length=setup.blocks, label=f"{'building':<9}")
    with ClusterExecutor(client) as executor, bar:
        demo_data.enlarge(
            train, store, setup.blocks, setup.seed, executor, overwrite=True, progress=bar.update
        )
    seconds = time.perf_counter() - started
    _say("store", f"{store}: {_mib(demo_data.stored_bytes(store))} compressed, in {seconds:.1f} s")
    click.echo()


def _fit(setup: _Setup, store: Path) -> SoftmaxRegression:
    from sklearn.exceptions import ConvergenceWarning

    from dsoftmax.diagnostics.progress import Progress
    from dsoftmax.estimators.classifier import SoftmaxRegression
    from dsoftmax.solvers.base import Status

    model = SoftmaxRegression(
        alpha=_ALPHA,
        tol=_TOL,
        solver=setup.solver,
        max_iter=setup.max_iter,
        random_state=setup.seed,
        callbacks=[Progress(sys.stdout)],
    )
    with warnings.catch_warnings():
        # This fit is meant to spend its budget, and the table says so.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(f"{store}/X", f"{store}/y")
    if model.stop_reason_ == Status.INTERRUPTED.value:
        raise KeyboardInterrupt
    return model


def peak_memory() -> int:
    """Return the peak memory of this process, in bytes."""
    # Not by getrusage, which on Linux gives a child process the peak of its parent.
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _report_memory(peaks: Iterable[int], limit: int) -> None:
    click.echo()
    lines = [
        f"worker {number}: {_mib(peak)} at its peak, of {_mib(limit)}"
        for number, peak in enumerate(peaks, start=1)
    ]
    _say("memory", *lines)


def _report_accuracy(model: SoftmaxRegression, train: Digits, test: Digits) -> None:
    from sklearn.linear_model import LogisticRegression

    accuracy = model.score(demo_data.scaled(test.X), test.y)
    plain = LogisticRegression(max_iter=1000).fit(train.X, train.y)
    _say(
        "accuracy",
        f"{accuracy:.4f} on the {len(test.X)} digits kept for the test",
        f"{plain.score(test.X, test.y):.4f} by scikit-learn, in memory, from the "
        f"{len(train.X):,} digits as they are",
    )


def _save(model: SoftmaxRegression, setup: _Setup) -> None:
    model.save(setup.model, overwrite=True)
    demo_data.mark(setup.model)
    _say("model", f'{setup.model}: load it with dsoftmax.load_model("{setup.model}")')
    if setup.plot is not None:
        from dsoftmax.diagnostics import plot_history

        plot_history(model, setup.plot)
        _say("plot", str(setup.plot))


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _say(label: str, *lines: str) -> None:
    for line in lines:
        click.echo(f"{label:<10}{line}")
        label = ""
