"""What a fit will cost, worked out from metadata, before anything is started or read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dask.utils import format_bytes

from dsoftmax.data.opening import open_data
from dsoftmax.data.source import Source
from dsoftmax.errors import DataError
from dsoftmax.model_selection.memory import Cost, cost_of, search_demand
from dsoftmax.model_selection.path import Options, resolve_search
from dsoftmax.runtime.memory import (
    PAUSE_SHARE,
    Location,
    cache_room,
    needed_bytes,
    require_memory,
    require_sample_fits,
)
from dsoftmax.runtime.reduce import full_pass, task_runs
from dsoftmax.runtime.select import location_for, stays_in_process
from dsoftmax.runtime.spans import Span, most_rows
from dsoftmax.runtime.working_set import metrics_demand
from dsoftmax.training.choose_solver import choose_solver
from dsoftmax.training.demand import fit_demand, fit_spans, sample_rows
from dsoftmax.training.epochs import first_epoch
from dsoftmax.training.label_scan import first_labels
from dsoftmax.training.params import FitParams, resolve

if TYPE_CHECKING:
    from dsoftmax.estimators.classifier import SoftmaxRegression
    from dsoftmax.estimators.classifier_cv import SoftmaxRegressionCV


_MOST_OF_EVEN = 1.25  # what a process may have of its even share of the rows
_TARGET_BYTES = 24  # of the code and the weights of a row
_LABEL_BYTES = 8 << 20  # of labels that are read to count the classes


@dataclass(frozen=True)
class Plan:
    """What `plan_fit` returns: print it, or take `to_dict()` for JSON.

    Attributes
    ----------
    n_samples, n_features : int
    n_classes : as far as they are known
    all_classes : whether they are given or all labels were read, and not the first of them
    solver : what it resolves to
    where : what computes
    workers, slots : how many processes, and how many tasks at once
    memory_limit : of a worker, in bytes; 0 for none
    passes : over X, at most
    pass_bytes : decoded in a pass
    steps_a_pass : updates (mini-batches) or evaluations
    tasks_a_pass : int
    largest_read : decoded bytes of X that a thread holds at once
    sample_bytes : of rows that the client keeps in memory
    n_models : that a search follows; 0 for a fit
    reads_a_round : of all rows, in which its models share what is read
    states_bytes : of what their solvers remember, in the client
    cache_bytes : decoded bytes of X that a worker remembers, at most; and validation rows too, as
        far as the memory limit leaves room
    peak_memory : what a worker takes at most, in bytes, estimated to the safe side
    advice : what to look after, a sentence each
    """

    n_samples: int
    n_features: int
    n_classes: int
    all_classes: bool
    solver: str
    where: str
    workers: int
    slots: int
    memory_limit: int
    passes: int
    pass_bytes: int
    steps_a_pass: int
    tasks_a_pass: int
    largest_read: int
    sample_bytes: int
    n_models: int
    reads_a_round: int
    states_bytes: int
    cache_bytes: int
    peak_memory: int
    advice: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as numbers, texts and lists."""
        return {**asdict(self), "advice": list(self.advice)}

    def __str__(self) -> str:
        least = "" if self.all_classes else "at least "
        limit = f", of {format_bytes(self.memory_limit)}" if self.memory_limit else ""
        lines = [
            f"{'data':<15}{self.n_samples:,} rows x {self.n_features:,} features, "
            f"{least}{self.n_classes:,} classes",
            f"{'solver':<15}{self.solver}, at most {self.passes:,} passes",
            f"{'where':<15}{self.where}: {self.workers:,} processes, {self.slots:,} tasks at once",
            f"{'a pass':<15}{self.pass_bytes / 1e6:,.0f} MB decoded, {self.steps_a_pass:,} steps, "
            f"{self.tasks_a_pass:,} tasks",
            *self._of_search(),
            f"{'memory':<15}about {format_bytes(self.peak_memory)} a process{limit}",
        ]
        if self.sample_bytes:
            lines.append(f"{'':<15}{format_bytes(self.sample_bytes)} of rows in the client")
        return "\n".join(lines + [f"{'advice':<15}{text}" for text in self.advice])

    def _of_search(self) -> Iterator[str]:
        if self.n_models:
            reads = f"{self.reads_a_round:,} passes" if self.reads_a_round > 1 else "a pass"
            yield (
                f"{'search':<15}{self.n_models:,} models, at first {reads} for a step of each, "
                f"{format_bytes(self.states_bytes)} of their states in the client"
            )


def plan_fit(
    X: Any,
    y: Any = None,
    model: SoftmaxRegression | SoftmaxRegressionCV | None = None,
    client: Any = None,
) -> Plan:
    """Return what a fit would cost, without starting it.

    Reads metadata, and up to 8 MiB of labels, and of `cv` of a search if it is an array.

    Parameters
    ----------
    X : array-like, or path or URL of an array, of shape (n_samples, n_features)
        As for `SoftmaxRegression.fit`; only its metadata are read.
    y : array-like, or path or URL of an array, of shape (n_samples,)
        The labels; some of them are read.
    model : SoftmaxRegression or SoftmaxRegressionCV, optional
        With its parameters; by default those of a new one.
    client : distributed.Client, optional
        Of the cluster to plan for; by default what `fit` would use.

    Returns
    -------
    Plan
        Which prints as a table.

    Raises
    ------
    DataError
        If parameters or data cannot be used, as far as metadata can tell.
    MemoryBoundError
        If a worker has too little memory for its tasks, or this process for a sample, or for what
        the models of a search remember.

    Examples
    --------
    >>> import numpy as np
    >>> plan = plan_fit(np.zeros((1000, 20)), np.arange(1000) % 3)
    >>> plan.pass_bytes, plan.n_classes
    (160000, 3)
    """
    source = open_data(X, y)
    return plan_at(location_for(source, client), source, model)


def plan_at(
    site: Location,
    source: Source,
    model: SoftmaxRegression | SoftmaxRegressionCV | None = None,
    validation: Source | None = None,
) -> Plan:
    """Return what a fit would cost in some processes, which need not be there.

    Parameters
    ----------
    site : the processes
    source : rows to learn from, with a `y`
    model : of the fit, or of the search; by default a new one
    validation : rows to judge by that are no part of them

    Raises
    ------
    DataError, MemoryBoundError
        As `plan_fit`.
    """
    from dsoftmax.estimators.classifier import SoftmaxRegression

    model = model or SoftmaxRegression()
    params, options = _asked(model)
    classes, all_classes = _classes(source, params)
    kind = choose_solver(params, source, classes)
    cost = cost_of(source, options, getattr(model, "cv", None), kind, classes)
    demand = fit_demand(params, source, kind, classes, site.processes)
    if options is not None:
        demand = search_demand(demand, source, classes, cost)
    spans = fit_spans(source, classes)
    rows = most_rows(spans)
    require_memory(source, site, demand, rows)
    if validation is not None:
        require_memory(validation, site, metrics_demand(validation, classes))
    steps, tasks, held = _work(source, params, site, spans, mini_batch=kind.mini_batch)
    needs = needed_bytes(source, site, rows, demand)
    room = cache_room(site, needs, batch=kind.mini_batch)
    remembered = min(2 * held if kind.mini_batch else _decoded_bytes(source, site), room)
    sample = _sample_bytes(source, params, classes) if kind.needs_sample else 0
    return Plan(
        source.n_samples,
        source.n_features,
        classes,
        all_classes,
        kind.name,
        site.name,
        site.processes,
        site.slots,
        site.memory_limit,
        params.max_iter,
        source.n_samples * source.row_bytes,
        steps,
        tasks,
        rows * source.row_bytes,
        sample,
        cost.n_models,
        cost.reads,
        cost.states_bytes,
        remembered,
        needs + remembered,
        tuple(_advice(source, site, spans, held, room, needs, cost)),
    )


def _asked(model: Any) -> tuple[FitParams, Options | None]:
    """Return the settings of a fit, or of each fit of a search, and what that tries."""
    from dsoftmax.estimators.classifier_cv import SoftmaxRegressionCV

    params = model.get_params(deep=False)
    if isinstance(model, SoftmaxRegressionCV):
        return resolve_search(params)
    return resolve(params, None), None


def _classes(source: Source, params: FitParams) -> tuple[int, bool]:
    """Return how many classes there are, and whether all labels were looked at for it."""
    if source.y is None:
        raise DataError("y is missing: plan_fit(X, y) requires y, one label a row of X")
    if params.classes is not None:
        return len(params.classes), True
    found, all_read = first_labels(source, _LABEL_BYTES)
    return len(found), all_read


def _decoded_bytes(source: Source, site: Location) -> int:
    """Return what a process remembers of all rows, if they come from a store and there is room."""
    if not source.X.may_wait:
        return 0
    share = 1.0 if site.processes == 1 else _MOST_OF_EVEN / site.processes
    return int(share * source.n_samples * (source.row_bytes + _TARGET_BYTES))


def _sample_bytes(source: Source, params: FitParams, classes: int) -> int:
    rows = sample_rows(params, source, classes)
    require_sample_fits(rows, source.row_bytes)
    return rows * source.row_bytes


def _work(
    source: Source,
    params: FitParams,
    site: Location,
    spans: tuple[Span, ...],
    *,
    mini_batch: bool,
) -> tuple[int, int, int]:
    """Return steps a pass, tasks a pass, and the bytes of spans that a worker remembers."""
    if not mini_batch:
        leaves = full_pass(spans)
        return 1, len(task_runs(source, leaves, site.slots, batch=False)), 0
    epoch = first_epoch(source, params, spans, source.n_samples)
    tasks = epoch.n_steps * len(task_runs(source, epoch.batch(0), site.slots, batch=True))
    largest = max(stop - start for start, stop in spans) * source.row_bytes
    return epoch.n_steps, tasks, largest * -(-epoch.n_lanes // site.processes)


def _advice(
    source: Source,
    site: Location,
    spans: tuple[Span, ...],
    held: int,
    room: int,
    needs: int,
    cost: Cost,
) -> Iterator[str]:
    """Yield what is likely to go wrong, or to be slow."""
    limit = site.memory_limit
    if limit and not site.is_here and needs > PAUSE_SHARE * limit:
        yield (
            f"a worker may need {format_bytes(needs)} of its {format_bytes(limit)}, and Dask holds "
            f"it back from {PAUSE_SHARE:.0%} on: give the workers more memory or fewer threads, "
            "or store X in smaller chunks"
        )
    if held > room:
        yield (
            f"mini-batches come from {format_bytes(held)} of chunks at once on each worker, which "
            f"remembers {format_bytes(room)}: chunks will be decoded many times a "
            "pass; give the workers more memory, or use solver='lbfgs'"
        )
    if cost.reads > 1:
        yield (
            f"the gradients of all {cost.n_models:,} models are too large for one read: a step of "
            f"each takes {cost.reads:,} passes; try fewer alphas first, or fewer folds"
        )
    if len(spans) < site.slots and not stays_in_process(source):
        yield (
            f"X is read in {len(spans):,} pieces, so that {site.slots - len(spans):,} of "
            f"{site.slots:,} slots will have nothing to do: store X in smaller chunks"
        )
    if source.X.dtype.kind == "f" and source.dtype.itemsize > 4:
        yield "float64 is computed in float64: open_data(dtype='float32') halves the arithmetic"
