"""`dsoftmax demo`: training on more data than the workers have memory, in about a minute."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from dsoftmax.cli import demo_data
from dsoftmax.cli.data import in_bytes
from dsoftmax.errors import DsoftmaxError
from dsoftmax.solvers import SOLVERS

# What is slow to import is imported where it is used: workers load this module too.
if TYPE_CHECKING:
    from dsoftmax.cli.demo_data import Digits
    from dsoftmax.estimators.classifier import SoftmaxRegression

_TIMES_MEMORY = 2
_PASSES = {"sgd": 3}
_PASSES_OF_OTHERS = 12
_ALPHA = 10.0  # of pixels from 0 to 255; the best of 0.01, 1, 10 and 100 on digits left out
_TOL = 0.02  # from there on the test accuracy hardly changes


@dataclass(frozen=True)
class _Plan:
    """What the options amount to."""

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


_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option(
    "--size", metavar="SIZE", callback=in_bytes, help="Of the data.  [default: twice the memory]"
)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option(
    "--memory-limit", metavar="SIZE", callback=in_bytes, default="400MiB", show_default=True
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
    plan = _Plan(
        blocks=demo_data.count_blocks(size or _TIMES_MEMORY * workers * memory_limit),
        workers=workers,
        memory_limit=memory_limit,
        solver=solver,
        max_iter=max_iter or _PASSES.get(solver, _PASSES_OF_OTHERS),
        seed=seed,
        model=(output or Path()) / "demo-model.zarr",
        plot=plot,
    )
    with _cleaning_up_on_signals(), _workplace(output, keep) as folder:
        _run(plan, folder / "digits.zarr")


@contextmanager
def _cleaning_up_on_signals() -> Iterator[None]:
    """Let a signal that would end this process raise SystemExit, as Ctrl-C raises an exception."""

    def end(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _workplace(output: Path | None, keep: bool) -> Iterator[Path]:
    """Yield the folder for the data, and remove it again unless it is to stay."""
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        yield output
        return
    folder = Path(tempfile.mkdtemp(prefix="dsoftmax-demo-"))
    try:
        yield folder
    finally:
        if keep:
            _say("kept", str(folder))
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _run(plan: _Plan, store: Path) -> None:
    from dsoftmax.runtime.local_cluster import local_cluster

    started = time.perf_counter()
    _refuse_early(plan, store)
    train, test = demo_data.load_split(plan.seed)
    _introduce(plan, train, test)
    with local_cluster(plan.workers, plan.memory_limit) as cluster, cluster.get_client() as client:
        _build(plan, train, store, client)
        model = _fit(plan, store)
        peaks = client.run(peak_memory).values()
    _report_memory(peaks, plan.memory_limit)
    _report_accuracy(model, train, test)
    _save(model, plan)
    _say("time", f"{time.perf_counter() - started:.0f} s")


def _refuse_early(plan: _Plan, store: Path) -> None:
    """Raise what would otherwise be raised after a minute."""
    for place in (store, plan.model):
        demo_data.require_replaceable(place)
    if plan.plot is not None:
        from dsoftmax.diagnostics.style import check_plot

        check_plot(plan.plot)
    for folder in {plan.model.parent, (plan.plot or plan.model).parent}:
        if not os.access(folder, os.W_OK):
            raise DsoftmaxError(f"{folder.absolute()} is no folder that can be written to")
    free = shutil.disk_usage(store.parent).free
    if free < plan.size:
        raise DsoftmaxError(
            f"{store.parent} has {_mib(free)} left on its disk, and the demo may need "
            f"{_mib(plan.size)}: choose a --size, or a folder elsewhere with --output"
        )


def _introduce(plan: _Plan, train: Digits, test: Digits) -> None:
    times = plan.size / (plan.workers * plan.memory_limit)
    _say("workers", f"{plan.workers} processes with {_mib(plan.memory_limit)} of memory each")
    _say(
        "data",
        f"{_mib(plan.size)}, {times:.1f} times their memory: {plan.rows:,} rows, made from",
        f"{len(train.X):,} handwritten digits of scikit-learn by small shifts and noise;",
        f"{len(test.X)} others are kept for the test",
    )


def _build(plan: _Plan, train: Digits, store: Path, client: Any) -> None:
    from dsoftmax.runtime.cluster import ClusterExecutor

    started = time.perf_counter()
    bar = click.progressbar(length=plan.blocks, label=f"{'building':<9}")
    with ClusterExecutor(client) as executor, bar:
        demo_data.enlarge(
            train, store, plan.blocks, plan.seed, executor, overwrite=True, progress=bar.update
        )
    seconds = time.perf_counter() - started
    _say("store", f"{store}: {_mib(demo_data.stored_bytes(store))} compressed, in {seconds:.1f} s")
    click.echo()


def _fit(plan: _Plan, store: Path) -> SoftmaxRegression:
    from sklearn.exceptions import ConvergenceWarning

    from dsoftmax.diagnostics.progress import Progress
    from dsoftmax.estimators.classifier import SoftmaxRegression
    from dsoftmax.solvers.base import Status

    model = SoftmaxRegression(
        alpha=_ALPHA,
        tol=_TOL,
        solver=plan.solver,
        max_iter=plan.max_iter,
        random_state=plan.seed,
        callbacks=[Progress(sys.stdout)],
    )
    with warnings.catch_warnings():
        # The table ends with the reason, and a budget that is spent is how this fit should end.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(f"{store}/X", f"{store}/y")
    if model.stop_reason_ == Status.INTERRUPTED.value:
        raise KeyboardInterrupt
    return model


def peak_memory() -> int:
    """Return the most memory that this process has had, in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux, where the other way would give a child its parent's peak
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


def _save(model: SoftmaxRegression, plan: _Plan) -> None:
    model.save(plan.model, overwrite=True)
    demo_data.mark(plan.model)
    _say("model", f'{plan.model}: load it with dsoftmax.load_model("{plan.model}")')
    if plan.plot is not None:
        from dsoftmax.diagnostics import plot_history

        plot_history(model, plan.plot)
        _say("plot", str(plan.plot))


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _say(label: str, *lines: str) -> None:
    for line in lines:
        click.echo(f"{label:<10}{line}")
        label = ""
