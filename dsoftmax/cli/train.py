"""`dsoftmax train`: a Zarr store in, a model out."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from dsoftmax.cli.model_options import estimator_of, is_search, model_options, search_options
from dsoftmax.cli.options import (
    PlacePath,
    Reading,
    active_cluster,
    cluster_options,
    data_option,
    data_options,
)
from dsoftmax.cli.plan import plan_run
from dsoftmax.cli.run_file import config_option, described_run, model_parameters
from dsoftmax.cli.run_folder import LogLines, RunFolder, environment, log_and_print, write_log
from dsoftmax.errors import DataError, OutageError
from dsoftmax.events import CandidatesJudged, Event

if TYPE_CHECKING:
    from dsoftmax.cli.model_options import Estimator
    from dsoftmax.estimators.classifier_cv import SoftmaxRegressionCV
    from dsoftmax.events import Callback

_TEMPORARY_FAILURE = 75  # EX_TEMPFAIL of sysexits.h: run it again


@click.command()
@click.argument("data")
@click.argument("model", required=False)
@config_option
@data_options
@model_options
@search_options
@click.option(
    "--checkpoint", metavar="PLACE", help="Folder or URL to keep the state in, and go on from."
)
@click.option(
    "--run-folder",
    type=PlacePath(file_okay=False, path_type=Path),
    help="Keep model, history, plan, log, configuration and checkpoint in this folder.",
)
@click.option(
    "--validation",
    metavar="STORE",
    help="Zarr group of other rows, like DATA, to evaluate the model on after every pass, or to "
    "choose one of --alphas by.",
)
@data_option(
    "--skip-bad-chunks",
    "max_bad_chunks",
    metavar="N",
    type=click.IntRange(min=1),
    help="Leave out up to N chunks that cannot be read.",
)
@click.option("--overwrite", is_flag=True, help="Replace the Zarr store that is at MODEL.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and refuse what cannot work.")
@click.option(
    "--plot",
    type=PlacePath(dir_okay=False, path_type=Path),
    help="Draw the run; with --alphas, what each of them comes to.",
)
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print events as lines of JSON.")
@click.option("--log", type=PlacePath(dir_okay=False), help="Append events to a file, as --json.")
@cluster_options
def train(
    data: str,
    model: str | None,
    checkpoint: str | None,
    run_folder: Path | None,
    validation: str | None,
    overwrite: bool,
    dry_run: bool,
    plot: Path | None,
    quiet: bool,
    as_json: bool,
    log: str | None,
) -> None:
    """Train on the Zarr group DATA and write the model to MODEL.

    DATA holds the arrays X (rows, features) and y (rows,), as `dsoftmax ingest` writes them. They
    are streamed, and may be larger than memory. With --checkpoint or --run-folder, a run that was
    stopped by SIGTERM or Ctrl-C, or by an outage, ends with exit code 75, and goes on when it is
    run again. With --run-folder, MODEL is model.zarr in there by default. With --alphas, the
    strength of the penalty is chosen in the passes of one run, and MODEL is the winner.
    """
    folder = None if run_folder is None else RunFolder(run_folder)
    model = model or (folder.model if folder else None)
    checkpoint = checkpoint or (folder.checkpoint if folder else None)
    if model is None:
        raise click.UsageError("Missing argument 'MODEL', or --run-folder instead.")
    quiet = quiet or as_json  # standard output is for the events alone
    json_lines = tuple(target for target in (log, sys.stdout if as_json else None) if target)
    run = _Run(data, validation, model, checkpoint, folder, overwrite, plot, quiet, json_lines)
    with _sigterm_interrupts():
        run.require_possible()
        if dry_run:
            click.echo(str(plan_run(data, validation, checkpoint)))
        else:
            run.run()


@dataclass
class _CandidateTable:
    """A callback that remembers the candidates of a search, to print them when it has ended."""

    last: CandidatesJudged | None = None

    def on_event(self, event: Event) -> None:
        if isinstance(event, CandidatesJudged):
            self.last = event

    def text(self, model: SoftmaxRegressionCV) -> str:
        """Return a row for each candidate of the fitted search."""
        ratios = f"{'l1_ratio':>10}" if len(model.l1_ratios_) > 1 else ""
        head = f"{'alpha':>10}{ratios}{'loss':>12}{'+-':>10}{'accuracy':>10}{'at minimum':>12}"
        return "\n".join([head, *self._rows(model)])

    def _rows(self, model: SoftmaxRegressionCV) -> Iterator[str]:
        assert self.last is not None, "every search emits its candidates"
        columns = (
            self.last.alphas,
            self.last.l1_ratios,
            self.last.losses,
            self.last.errors,
            self.last.accuracies,
            self.last.ruled_out,
            model.converged_.sum(axis=0).ravel().tolist(),
        )
        for row in zip(*columns, strict=True):
            alpha, ratio, loss, error, accuracy, ruled_out, n_converged = row
            is_chosen = (alpha, ratio) == (model.alpha_, model.l1_ratio_)
            note = "  chosen" if is_chosen else "  ruled out" if ruled_out else ""
            share = f"{ratio:>10.3g}" if len(model.l1_ratios_) > 1 else ""
            converged = f"{n_converged} of {len(model.converged_)}"
            numbers = f"{loss:>12.6f}{error:>10.6f}{accuracy:>10.4f}"
            yield f"{alpha:>10.3g}{share}{numbers}{converged:>12}{note}"


@dataclass(frozen=True)
class _Run:
    """A fit from stores to a store, as the options of `train` describe it.

    Attributes
    ----------
    data, validation : paths or URLs of groups of rows
    model, checkpoint : paths or URLs to write to; None for no checkpoint
    folder : of the run, or None
    overwrite : whether to replace an earlier model
    plot : where to draw the run, or None
    quiet : whether to print nothing on standard error and output
    json_lines : files and streams that get the events as lines of JSON
    """

    data: str
    validation: str | None
    model: str
    checkpoint: str | None
    folder: RunFolder | None
    overwrite: bool
    plot: Path | None
    quiet: bool
    json_lines: tuple[str | TextIO, ...]
    candidates: _CandidateTable = field(default_factory=_CandidateTable)

    def require_possible(self) -> None:
        """Raise DataError if an output cannot be written where it should be."""
        from dsoftmax.diagnostics.style import check_plot
        from dsoftmax.storage import urls, zarr_nodes

        zarr_nodes.require_free(self.model, self.overwrite)
        zarr_nodes.require_apart(self.model, self.data, self.validation, self.checkpoint)
        state = None if self.checkpoint is None else urls.locate(self.checkpoint)
        if isinstance(state, Path):
            zarr_nodes.require_writable(state.resolve())
        if self.plot is not None:
            check_plot(self.plot)
            if not self.plot.absolute().parent.is_dir():
                raise DataError(f"{self.plot.absolute().parent} is no folder to draw {self.plot}")

    def run(self) -> None:
        """Fit, and write all outputs; the exit code says how the fit ended."""
        with self._logging(), _resumable(self.checkpoint):
            self._write(self._fit())

    def _logging(self) -> AbstractContextManager[None]:
        if self.folder is None:
            return nullcontext()
        self.folder.begin(described_run())
        return self.folder.log_to_file(to_stderr=self._log_replaces_progress and not self.quiet)

    @property
    def _log_replaces_progress(self) -> bool:
        """Whether standard error shows the log: in a batch job, which has no terminal."""
        return self.folder is not None and not sys.stderr.isatty()

    def _fit(self) -> Estimator:
        from sklearn.exceptions import ConvergenceWarning

        from dsoftmax.estimators.plan import plan_fit

        write_log(f"run on {environment()}")
        reading = Reading.from_options()
        # It comes before the cluster, so that wrong parameters need not wait for workers.
        estimator = estimator_of(
            model_parameters(),
            self.data,
            self.validation,
            self.checkpoint,
            self._callbacks(),
            verbose=0 if self.quiet or self._log_replaces_progress else 1,
        )
        with active_cluster(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the progress says why it ended
            source = reading.open(self.data)
            if self.folder is not None:
                self.folder.plan(str(plan_fit(source, model=estimator)))
            return estimator.fit(source, X_val=reading.open_validation(self.validation))

    def _callbacks(self) -> list[Callback]:
        from dsoftmax.diagnostics import JsonLines
        from dsoftmax.diagnostics.progress import Progress

        callbacks: list[Callback] = [JsonLines(target) for target in self.json_lines]
        if self.folder is not None:
            callbacks.append(Progress(LogLines(), live=False))
        return [*callbacks, self.candidates]

    def _write(self, estimator: Estimator) -> None:
        from dsoftmax.solvers.base import Status

        if self.folder is not None:
            self.folder.end(described_run(), estimator.seed_, estimator.history_)
        interrupted = estimator.stop_reason_ == Status.INTERRUPTED.value
        if interrupted and self.checkpoint is not None:
            raise _to_be_resumed(self.checkpoint)
        # Without a checkpoint, an interrupted fit leaves the model that it has so far.
        estimator.save(self.model, overwrite=self.overwrite)
        if self.plot is not None:
            _draw(estimator, self.plot)
        if is_search(model_parameters()):
            write_log(table := self.candidates.text(estimator))
            if not (self.quiet or self._log_replaces_progress):
                click.echo(table)
        if not self.quiet:
            click.echo(f"model: {self.model}")
        if interrupted:
            raise click.exceptions.Exit(1)


def _draw(estimator: Estimator, path: Path) -> None:
    from dsoftmax.diagnostics import plot_history
    from dsoftmax.estimators.classifier_cv import SoftmaxRegressionCV

    if isinstance(estimator, SoftmaxRegressionCV):
        estimator.plot_path().savefig(path)
    else:
        plot_history(estimator, path)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Have SIGTERM do what Ctrl-C does."""
    # Batch systems and containers stop a job by SIGTERM, with some seconds to write a checkpoint.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _resumable(checkpoint: str | None) -> Iterator[None]:
    """With a checkpoint, end interruptions and outages by the exit code that says: run it again."""
    try:
        yield
    except (KeyboardInterrupt, OutageError) as error:
        if checkpoint is None:
            raise
        raise _to_be_resumed(checkpoint, str(error)) from error


def _to_be_resumed(checkpoint: str, reason: str = "") -> click.exceptions.Exit:
    """Print how to go on, and return what ends the command."""
    if reason:
        log_and_print(f"Error: {reason}")
    log_and_print(f"stopped early; run this again to go on from {checkpoint}")
    return click.exceptions.Exit(_TEMPORARY_FAILURE)
