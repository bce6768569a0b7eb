"""What `dsoftmax train` does, from the first check to the exit code."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from dsoftmax.cli.cluster import active_cluster
from dsoftmax.cli.runfile import described_run
from dsoftmax.cli.runfolder import LogLines, RunFolder, environment, say, tell
from dsoftmax.cli.search import estimator_of, is_search
from dsoftmax.cli.standing import Standing
from dsoftmax.errors import DataError, OutageError

if TYPE_CHECKING:
    from dsoftmax.cli.search import Estimator
    from dsoftmax.data.source import Source
    from dsoftmax.estimators.plan import Plan
    from dsoftmax.events import Callback

_TEMPORARY_FAILURE = 75  # EX_TEMPFAIL of sysexits.h: run it again


@dataclass(frozen=True)
class Job:
    """A fit from files to files.

    Attributes
    ----------
    data : path or URL of the group
    source : opens it
    validation : path or URL of a group of validation rows, or None
    judges : opens it
    parameters : of the estimator
    model, checkpoint : where they go; None for no checkpoint
    folder : of the run, or None
    overwrite : whether to replace the model that is there
    plot : where to draw the run, or None
    quiet : whether to be silent on standard error and output
    events : files and streams that the events go to, as lines of JSON
    standing : hears how the candidates of a search stand
    """

    data: str
    source: Callable[[], Source]
    validation: str | None
    judges: Callable[[], Source | None]
    parameters: dict[str, Any]
    model: str
    checkpoint: str | None
    folder: RunFolder | None
    overwrite: bool
    plot: Path | None
    quiet: bool
    events: tuple[str | TextIO, ...] = ()
    standing: Standing = field(default_factory=Standing)

    def require_possible(self) -> None:
        """Raise DataError if what is written cannot go where it should."""
        from dsoftmax.diagnostics.plot import check_plot
        from dsoftmax.storage.urls import locate
        from dsoftmax.storage.zarr_nodes import require_apart, require_free, require_writable

        require_free(self.model, self.overwrite)
        require_apart(self.model, self.data, self.validation, self.checkpoint)
        state = None if self.checkpoint is None else locate(self.checkpoint)
        if isinstance(state, Path):
            require_writable(state.resolve())
        if self.plot is not None:
            check_plot(self.plot)
            if not self.plot.absolute().parent.is_dir():
                raise DataError(f"{self.plot.absolute().parent} is no folder to draw {self.plot}")

    def plan(self) -> Plan:
        """Return the plan of the fit on the cluster that the options name."""
        from dsoftmax.estimators.plan import plan_fit
        from dsoftmax.training.validation import open_validation

        with active_cluster():
            source = self.source()
            open_validation(source, self.judges())
            return plan_fit(source, model=self._estimator(()))

    def run(self) -> None:
        """Fit, and write all that is asked for; the exit code says how it ended."""
        with self._log(), _resumable(self.checkpoint):
            estimator = self._fit()
            self._write(estimator)

    def _log(self) -> AbstractContextManager[None]:
        if self.folder is None:
            return nullcontext()
        self.folder.begin(described_run())
        return self.folder.log(to_stderr=self._in_batch and not self.quiet)

    @property
    def _in_batch(self) -> bool:
        """Whether the log takes the place of the progress on standard error."""
        return self.folder is not None and not sys.stderr.isatty()

    def _fit(self) -> Estimator:
        """Fit on the cluster that the options name."""
        from sklearn.exceptions import ConvergenceWarning

        from dsoftmax.estimators.plan import plan_fit

        say(f"run on {environment()}")
        estimator = self._estimator(self._watching(), 0 if self.quiet or self._in_batch else 1)
        with active_cluster(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the progress says why it ended
            source = self.source()
            if self.folder is not None:
                self.folder.plan(str(plan_fit(source, model=estimator)))
            return estimator.fit(source, X_val=self.judges())

    def _watching(self) -> list[Callback]:
        from dsoftmax.diagnostics.jsonlines import JsonLines
        from dsoftmax.diagnostics.progress import Progress

        callbacks: list[Callback] = [JsonLines(to) for to in self.events]
        if self.folder is not None:
            callbacks.append(Progress(LogLines(), live=False))
        return [*callbacks, self.standing]

    def _estimator(self, callbacks: Sequence[Callback], verbose: int = 0) -> Estimator:
        return estimator_of(
            self.parameters, self.data, self.validation, self.checkpoint, callbacks, verbose
        )

    def _write(self, estimator: Estimator) -> None:
        from dsoftmax.solvers.base import Status

        if self.folder is not None:
            self.folder.end(described_run(), estimator.seed_, estimator.history_)
        interrupted = estimator.stop_reason_ == Status.INTERRUPTED.value
        if interrupted and self.checkpoint is not None:
            raise _to_be_resumed(self.checkpoint)
        estimator.save(self.model, overwrite=self.overwrite)
        if self.plot is not None:
            _draw(estimator, self.plot)
        self._show_standing(estimator)
        if not self.quiet:
            click.echo(f"model: {self.model}")
        if interrupted:
            raise click.exceptions.Exit(1)

    def _show_standing(self, estimator: Estimator) -> None:
        """Say how the candidates of a search have ended."""
        if is_search(self.parameters):
            say(table := self.standing.table(estimator))
            if not (self.quiet or self._in_batch):
                click.echo(table)


def _draw(estimator: Estimator, path: Path) -> None:
    from dsoftmax.diagnostics.plot import plot_history
    from dsoftmax.estimators.classifier_cv import SoftmaxRegressionCV

    if isinstance(estimator, SoftmaxRegressionCV):
        estimator.plot_path().savefig(path)
    else:
        plot_history(estimator, path)


@contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGTERM do what Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _resumable(checkpoint: str | None) -> Iterator[None]:
    """With a checkpoint, interruptions and outages are temporary."""
    try:
        yield
    except (KeyboardInterrupt, OutageError) as error:
        if checkpoint is None:
            raise
        raise _to_be_resumed(checkpoint, str(error)) from error


def _to_be_resumed(checkpoint: str, reason: str = "") -> click.exceptions.Exit:
    """Say how to go on."""
    if reason:
        tell(f"Error: {reason}")
    tell(f"stopped early; run this again to go on from {checkpoint}")
    return click.exceptions.Exit(_TEMPORARY_FAILURE)
