"""How a run reads all of its rows: what is summed, what is kept of them, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dsoftmax.errors import DataError
from dsoftmax.labelling import Labelled
from dsoftmax.ledger import Ledger
from dsoftmax.reduction import Reduction, several
from dsoftmax.runtime.executors import Executor
from dsoftmax.runtime.reduce import Begun, full_pass, reduce
from dsoftmax.runtime.spans import Span, around
from dsoftmax.runtime.worker import Outcome
from dsoftmax.runtime.workers import require_sample_fits
from dsoftmax.settings import Settings
from dsoftmax.subsample import ByClass, Subsample, auto_size, class_rates

Watch = Callable[[Outcome, Begun], None]


class Reads:
    """Reduces over all rows of a source.

    Parameters
    ----------
    labelled : the source that reads codes, and what is known of its classes
    settings, executor, ledger : of the run
    spans : of the source
    holes : rows that are left out
    watch : told of each task of a pass over all rows

    Attributes
    ----------
    n_rows : how many rows there are
    sample : the rows that are kept in memory, or None
    begun : a sum over all rows to go on with, when the next one is asked for
    """

    def __init__(
        self, labelled: Labelled, settings: Settings, executor: Executor, ledger: Ledger,
        spans: tuple[Span, ...], holes: Sequence[Span], watch: Watch,
    ) -> None:  # fmt: skip
        self._labelled, self._source = labelled, labelled.source
        self._settings, self._executor = settings, executor
        self._ledger, self._watch_task = ledger, watch
        self._leaves = full_pass(spans, holes)
        self._parts = tuple(around(holes, spans))
        self.n_rows = sum(stop - start for start, stop in self._parts)
        # What workers remember has the weights of the rows that there were: holes only grow.
        self._key = f"{executor.run_key}-{len(holes)}"
        self.begun: Begun | None = None
        self.sample: Subsample | None = None

    def read_all(
        self, reduction: Reduction[Any], others: Sequence[Reduction[Any]] = (),
        *, picks: bool = False, keep: bool = True,
    ) -> tuple[Any, list[Any]]:  # fmt: skip
        """Reduce over all rows.

        With `picks`, the reduction is one of two: the second picks rows, to keep in memory.

        Returns
        -------
        what the reduction adds up to, and what the others do
        """
        sums, spent = reduce(
            self._executor, self._source, several(reduction, *others), self._leaves,
            keep=self._key if keep else None, begun=self._taken_up(), watch=self._watch,
        )  # fmt: skip
        self._ledger.spend(spent)
        first, *rest = sums.parts
        if picks:
            first, picked = first.parts
            self._keep_in_memory(picked)
        return first, rest

    def first_rule(self) -> ByClass:
        """Return what picks the first rows to keep in memory.

        Raises
        ------
        MemoryBoundError
            If they do not fit.
        """
        require_sample_fits(min(self._sample_size, self.n_rows), self._source.row_bytes)
        rates = class_rates(self._labelled.class_rows, self._sample_size)
        return ByClass(rates, self._settings.seed)

    def _keep_in_memory(self, picked: Subsample) -> None:
        if picked.n_rows == 0:
            raise DataError(
                f"sample_size is {self._sample_size}, and no row was picked; set it larger"
            )
        self.sample = picked.joined().stratified(self._labelled.class_weight)

    @property
    def _sample_size(self) -> int:
        source, n_classes = self._source, len(self._labelled.class_weight)
        return self._settings.sample_size or auto_size(
            self.n_rows, source.n_features, n_classes, source.row_bytes
        )

    def _taken_up(self) -> Begun | None:
        begun, self.begun = self.begun, None
        return begun

    def _watch(self, outcome: Outcome, begun: Begun) -> None:
        self._ledger.progress(begun, self.n_rows)
        self._watch_task(outcome, begun)
