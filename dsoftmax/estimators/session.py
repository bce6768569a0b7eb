"""Where an estimator's fit runs, and who is told of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

# The states of searches, so that a fit knows the checkpoint of one for what it is.
import dsoftmax.model_selection.state  # noqa: F401
from dsoftmax.data.source import Source
from dsoftmax.data.store_changes import require_unchanged, warn_of_absent_chunks
from dsoftmax.diagnostics.progress import Progress
from dsoftmax.diagnostics.scheduler_report import reporting
from dsoftmax.events import Callback
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.select import executor_for
from dsoftmax.runtime.working_set import metrics_demand
from dsoftmax.training.validation import ValidationSet


@contextmanager
def session(
    source: Source, validation_source: Source | None, callbacks: Sequence[Callback], verbose: int
) -> Iterator[tuple[Executor, ValidationSet | None, list[Callback]]]:
    """Yield what reduces the rows, and those that judge; and the callbacks, the cluster's first.

    Parameters
    ----------
    source : rows to learn from
    validation_source : rows to judge by that are no part of them, or None
    callbacks : who is told besides
    verbose : whether progress is printed
    """
    require_unchanged(source, validation_source, at_start=True)
    warn_of_absent_chunks(source, validation_source, stacklevel=4)
    with ExitStack() as stack:
        executor = stack.enter_context(executor_for(source))
        reports = stack.enter_context(reporting(executor.client, executor.run_key))
        validation = None
        if validation_source is not None:
            judges = executor_for(validation_source, metrics_demand(validation_source, 2))
            validation = ValidationSet(validation_source, stack.enter_context(judges))
        yield executor, validation, [*reports, *callbacks, *([Progress()] if verbose else [])]
