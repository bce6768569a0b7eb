"""The candidates of a search, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsoftmax.events import CandidatesJudged, Event

if TYPE_CHECKING:
    from dsoftmax.estimators.classifier_cv import SoftmaxRegressionCV


@dataclass
class CandidateTable:
    """A callback that remembers the candidates of a search, to print them when it has ended."""

    last: CandidatesJudged | None = None

    def on_event(self, event: Event) -> None:
        """Keep what the event says of the candidates."""
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
