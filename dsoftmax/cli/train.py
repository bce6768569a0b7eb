"""`dsoftmax train`: a Zarr store in, a model out."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from dsoftmax.cli import signals
from dsoftmax.cli.candidate_table import CandidateTable
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
from dsoftmax.cli.run_folder import (
    LogLines,
    PlanFile,
    RunFolder,
    environment,
    log_and_print,
    write_log,
)
from dsoftmax.errors import CheckpointError, OutageError
from dsoftmax.events import Event, RowsDone, StepEnded
from dsoftmax.storage.credentials import public_url

if TYPE_CHECKING:
    from dsoftmax.cli.model_options import Estimator
    from dsoftmax.data.source import Source
    from dsoftmax.events import Callback


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
    type=PlacePath(file_okay=False),
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
    run_folder: str | None,
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
    if "://" in (run_folder or ""):
        raise click.UsageError(f"--run-folder is {run_folder}; expected a folder of this machine")
    folder = None if run_folder is None else RunFolder(Path(run_folder))
    model = model or (folder.model if folder else None)
    checkpoint = checkpoint or (folder.checkpoint if folder else None)
    if model is None:
        raise click.UsageError("Missing argument 'MODEL', or --run-folder instead.")
    quiet = quiet or as_json  # standard output is for the events alone
    json_lines = tuple(target for target in (log, sys.stdout if as_json else None) if target)
    run = _Run(data, validation, model, checkpoint, folder, overwrite, plot, quiet, json_lines)
    run.require_possible()
    if dry_run:
        click.echo(str(plan_run(data, validation, checkpoint)))
    else:
        run.run()


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
    candidates: CandidateTable = field(default_factory=CandidateTable)

    def require_possible(self) -> None:
        """Raise DataError if an output cannot be written where it should be."""
        from dsoftmax.diagnostics.style import check_plot
        from dsoftmax.storage import urls, zarr_nodes

        if not self.is_over:  # else it may have written its model
            zarr_nodes.require_free(self.model, self.overwrite)
        urls.require_lasting(self.model, self.checkpoint)
        zarr_nodes.require_apart(self.model, self.data, self.validation, self.checkpoint)
        state = None if self.checkpoint is None else urls.locate(self.checkpoint)
        if isinstance(state, Path):
            zarr_nodes.require_writable(state.resolve())
        if self.plot is not None:
            check_plot(self.plot)

    @cached_property
    def is_over(self) -> bool:
        """Whether the checkpoint is that of a run that is over: nothing has to be started.

        Raises
        ------
        DataError
            If the estimator cannot have the parameters.
        """
        from dsoftmax.estimators.session import is_over
        from dsoftmax.model_selection.path import resolve_search
        from dsoftmax.training.params import resolve

        given = self.estimator.get_params(deep=False)
        searches = is_search(model_parameters())
        params = resolve_search(given)[0] if searches else resolve(given, None)
        return is_over(self.checkpoint, params.max_iter)

    def run(self) -> None:
        """Fit, and write all outputs; the exit code says how the fit ended."""
        # Before the folder, in which wrong options leave nothing, and the cluster.
        reading = Reading.from_options()
        source, validation = reading.open(self.data), reading.open_validation(self.validation)
        with self._logging(), _resumable(self.checkpoint):
            self._write(self._fitted(source, validation))

    def _logging(self) -> AbstractContextManager[None]:
        if self.folder is None:
            return nullcontext()
        self.folder.begin(described_run())
        return self.folder.log_to_file(to_stderr=self._log_replaces_progress and not self.quiet)

    @property
    def _log_replaces_progress(self) -> bool:
        """Whether standard error shows the log: in a batch job, which has no terminal."""
        return self.folder is not None and not sys.stderr.isatty()

    @cached_property
    def estimator(self) -> Estimator:
        """What is fitted."""
        quiet = self.quiet or self._log_replaces_progress
        return estimator_of(
            model_parameters(),
            self.data,
            self.validation,
            self.checkpoint,
            self._callbacks(),
            verbose=0 if quiet else 1,
        )

    def _fitted(self, source: Source, validation: Source | None) -> Estimator:
        from sklearn.exceptions import ConvergenceWarning

        write_log(f"run on {environment()}")
        with nullcontext() if self.is_over else active_cluster(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the progress says why it ended
            estimator = self.estimator
            if self.folder is not None and not self.is_over:
                plan = PlanFile(self.folder, source, estimator)
                estimator.callbacks = [*estimator.callbacks, plan]
            return estimator.fit(source, X_val=validation)

    def _callbacks(self) -> list[Callback]:
        from dsoftmax.diagnostics import JsonLines
        from dsoftmax.diagnostics.progress import Progress

        callbacks: list[Callback] = [JsonLines(target) for target in self.json_lines]
        if self.folder is not None:
            callbacks.append(Progress(LogLines(), live=False))
        return [*callbacks, self.candidates, _InterruptsAgain()]

    def _write(self, estimator: Estimator) -> None:
        from dsoftmax.solvers.base import Status

        if self.folder is not None:
            self.folder.end(described_run(), estimator.seed_, estimator.history_)
        interrupted = estimator.stop_reason_ == Status.INTERRUPTED.value
        if interrupted and self.checkpoint is not None:
            raise _to_be_resumed(self.checkpoint)
        # Without a checkpoint, an interrupted fit leaves the model that it has so far.
        if not (self.is_over and _is_saved(estimator, self.model)):
            estimator.save(self.model, overwrite=self.overwrite)
        if self.plot is not None:
            _draw(estimator, self.plot)
        if is_search(model_parameters()):
            write_log(table := self.candidates.text(estimator))
            if not (self.quiet or self._log_replaces_progress):
                click.echo(table)
        if not self.quiet:
            click.echo(f"model: {public_url(self.model)}")
        if interrupted:
            raise click.exceptions.Exit(signals.exit_code())


class _InterruptsAgain:
    """A callback that interrupts a fit which goes on although a signal has interrupted it."""

    def on_event(self, event: Event) -> None:
        if isinstance(event, RowsDone | StepEnded):  # of a fit that has stopped, there are none
            signals.raise_if_lost()


def _is_saved(estimator: Estimator, path: str) -> bool:
    """Return whether a model is at a path already."""
    import numpy as np

    from dsoftmax.storage.model_file import read_record

    try:
        saved = read_record(path).arrays
    except CheckpointError:
        return False
    arrays = {name: getattr(estimator, name) for name in ("coef_", "intercept_", "classes_")}
    return all(np.array_equal(saved[name], array) for name, array in arrays.items())


def _draw(estimator: Estimator, path: Path) -> None:
    from dsoftmax.diagnostics import plot_history
    from dsoftmax.estimators.classifier_cv import SoftmaxRegressionCV

    if isinstance(estimator, SoftmaxRegressionCV):
        estimator.plot_path().savefig(path)
    else:
        plot_history(estimator, path)


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
    log_and_print(f"stopped early; run this again to go on from {public_url(checkpoint)}")
    return click.exceptions.Exit(signals.TEMPORARY_FAILURE)
