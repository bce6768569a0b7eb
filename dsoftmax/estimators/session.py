"""Where an estimator's fit runs, and who is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

# The states of searches, so that a fit knows the checkpoint of one for what it is.
import dsoftmax.model_selection.state  # noqa: F401
from dsoftmax.data.source import Source
from dsoftmax.data.store_changes import require_unchanged, warn_of_absent_chunks
from dsoftmax.diagnostics.progress import Progress
from dsoftmax.diagnostics.scheduler_report import reporting
from dsoftmax.events import Callback
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.select import executor_for
from dsoftmax.runtime.threads import ThreadExecutor
from dsoftmax.runtime.working_set import metrics_demand
from dsoftmax.training.checkpoint import is_over as is_over
from dsoftmax.training.params import FitParams
from dsoftmax.training.validation import ValidationSet


@contextmanager
def session(
    estimator: Any, params: FitParams, source: Source, validation_source: Source | None
) -> Iterator[tuple[Executor, ValidationSet | None, list[Callback]]]:
    """Yield what reduces the rows, and those that judge; and the callbacks, the cluster's first.

    No cluster is started for a run that is over, of which this process only looks at the data.

    Parameters
    ----------
    estimator : what is fitted
    params : of the fit
    source : rows to learn from
    validation_source : rows to judge by that are no part of them, or None
    """
    require_unchanged(source, validation_source, at_start=True)
    warn_of_absent_chunks(source, validation_source, stacklevel=4)
    with ExitStack() as stack:
        over = is_over(estimator.checkpoint, params.max_iter) and not source.futures
        executor = stack.enter_context(ThreadExecutor() if over else executor_for(source))
        reports = stack.enter_context(reporting(executor.client, executor.run_key))
        validation = None
        if validation_source is not None:
            judging = executor
            if not over:
                demand = metrics_demand(validation_source, 2)
                judging = stack.enter_context(executor_for(validation_source, demand))
            validation = ValidationSet(validation_source, judging)
        progress = [Progress()] if estimator.verbose else []
        yield executor, validation, [*reports, *estimator.callbacks, *progress]
