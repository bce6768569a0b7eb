"""`dsoftmax train`: a Zarr store in, a model out."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dsoftmax.cli.cluster import active_cluster, cluster_options
from dsoftmax.cli.data import data_options, opened
from dsoftmax.errors import OutageError

if TYPE_CHECKING:
    from dsoftmax.estimator import SoftmaxRegression
    from dsoftmax.sources import Source


_TEMPORARY_FAILURE = 75  # EX_TEMPFAIL of sysexits.h: run it again


class _NumberOrAuto(click.ParamType):  # type: ignore[type-arg]
    """A number, or the word "auto"."""

    name = "number or auto"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind = kind

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        if value == "auto":
            return "auto"
        try:
            return self.kind(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor 'auto'", param, ctx)


@click.command()
@click.argument("data")
@click.argument("model")
@data_options
@click.option("--alpha", default=1e-4, show_default=True, help="Strength of the penalty.")
@click.option("--l1-ratio", default=0.0, show_default=True, help="Share of the L1 penalty, 0 to 1.")
@click.option("--standardize", is_flag=True, help="Penalise standardised features.")
@click.option("--no-intercept", is_flag=True, help="Fit no intercepts.")
@click.option("--balanced", is_flag=True, help="Make all classes weigh the same.")
@click.option("--solver", default="auto", show_default=True, help="auto, lbfgs, sgd or adam.")
@click.option("--max-iter", default=100, show_default=True, help="Budget in passes over the data.")
@click.option("--tol", default=1e-4, show_default=True, help="When to stop before that.")
@click.option("--batch-size", type=_NumberOrAuto(int), default="auto", show_default=True)
@click.option("--learning-rate", type=_NumberOrAuto(float), default="auto", show_default=True)
@click.option("--momentum", default=0.9, show_default=True, help="Nesterov's, of sgd.")
@click.option("--seed", type=int, help="Of the shuffles of mini-batches.")
@click.option(
    "--checkpoint", metavar="PLACE", help="Folder or URL to keep the state in, and go on from."
)
@click.option(
    "--skip-bad-chunks",
    "most_bad",
    metavar="N",
    type=click.IntRange(min=1),
    help="Leave out up to N chunks that cannot be read.",
)
@click.option("--overwrite", is_flag=True, help="Replace the Zarr store that is at MODEL.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the run.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print events as lines of JSON.")
@click.option("--log", type=click.Path(dir_okay=False), help="Append events to a file, as --json.")
@cluster_options
def train(
    data: str,
    model: str,
    x: str,
    y: str,
    sample_weight: str | None,
    ignore_label: str | None,
    drop_missing: bool,
    dtype: str | None,
    alpha: float,
    l1_ratio: float,
    standardize: bool,
    no_intercept: bool,
    balanced: bool,
    solver: str,
    max_iter: int,
    tol: float,
    batch_size: int | str,
    learning_rate: float | str,
    momentum: float,
    seed: int | None,
    checkpoint: str | None,
    most_bad: int | None,
    overwrite: bool,
    plot: Path | None,
    quiet: bool,
    as_json: bool,
    log: str | None,
) -> None:
    """Train on the Zarr group DATA and write the model to MODEL.

    DATA holds the arrays X (rows, features) and y (rows,), as `dsoftmax ingest` writes them. They
    are streamed, and may be larger than memory. With --checkpoint, a run that was stopped by
    SIGTERM or Ctrl-C, or by an outage, ends with exit code 75, and goes on when it is run again.
    """
    with _resumable(checkpoint):
        from dsoftmax.diagnostics.jsonlines import JsonLines
        from dsoftmax.diagnostics.plot import check_plot, plot_history
        from dsoftmax.estimator import SoftmaxRegression
        from dsoftmax.solvers.base import Status
        from dsoftmax.stores import require_apart, require_free

        require_free(model, overwrite)
        require_apart(model, data, checkpoint)
        if plot is not None:
            check_plot(plot)
        estimator = SoftmaxRegression(
            alpha=alpha,
            l1_ratio=l1_ratio,
            standardize=standardize,
            fit_intercept=not no_intercept,
            class_weight="balanced" if balanced else None,
            solver=solver,
            max_iter=max_iter,
            tol=tol,
            batch_size=batch_size,
            learning_rate=learning_rate,
            momentum=momentum,
            random_state=seed,
            checkpoint=checkpoint,
            callbacks=[JsonLines(to) for to in (log, sys.stdout if as_json else None) if to],
            verbose=0 if quiet or as_json else 1,
        )
        reading = (data, x, y, sample_weight, ignore_label, drop_missing, dtype, most_bad)
        _fit(estimator, lambda: opened(*reading))
        interrupted = estimator.stop_reason_ == Status.INTERRUPTED.value
        if interrupted and checkpoint is not None:
            raise _to_be_resumed(checkpoint)
        estimator.save(model, overwrite=overwrite)
        if plot is not None:
            plot_history(estimator, plot)
        if not (quiet or as_json):
            click.echo(f"model: {model}")
        if interrupted:
            raise click.exceptions.Exit(1)


def _fit(estimator: SoftmaxRegression, source: Callable[[], Source]) -> None:
    """Fit on the cluster that the options name."""
    from sklearn.exceptions import ConvergenceWarning

    with active_cluster(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the progress says why it ended
        estimator.fit(source())


@contextmanager
def _resumable(checkpoint: str | None) -> Iterator[None]:
    """Have SIGTERM do what Ctrl-C does; with a checkpoint, both and outages are temporary."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except (KeyboardInterrupt, OutageError) as error:
        if checkpoint is None:
            raise
        raise _to_be_resumed(checkpoint, str(error)) from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _to_be_resumed(checkpoint: str, reason: str = "") -> click.exceptions.Exit:
    """Say how to go on."""
    if reason:
        click.echo(f"Error: {reason}", err=True)
    click.echo(f"stopped early; run this again to go on from {checkpoint}", err=True)
    return click.exceptions.Exit(_TEMPORARY_FAILURE)
