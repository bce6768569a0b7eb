"""How the candidates of a search have ended, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsoftmax.events import CandidatesJudged, Event

if TYPE_CHECKING:
    from dsoftmax.estimators.classifier_cv import SoftmaxRegressionCV


@dataclass
class Standing:
    """Remembers how the candidates stood last.

    Attributes
    ----------
    last : what was told of them
    """

    last: CandidatesJudged | None = None

    def on_event(self, event: Event) -> None:
        """Take note of an event."""
        if isinstance(event, CandidatesJudged):
            self.last = event

    def table(self, model: SoftmaxRegressionCV) -> str:
        """Return a row for each candidate of the search that they were of."""
        ratios = f"{'l1_ratio':>10}" if len(model.l1_ratios_) > 1 else ""
        head = f"{'alpha':>10}{ratios}{'loss':>12}{'+-':>10}{'accuracy':>10}{'at minimum':>12}"
        return "\n".join([head, *self._rows(model)])

    def _rows(self, model: SoftmaxRegressionCV) -> Iterator[str]:
        assert self.last is not None, "a search tells of its candidates"
        at_minimum = model.converged_.sum(axis=0).ravel().tolist()
        winner = (model.alpha_, model.l1_ratio_)
        columns = (
            self.last.alphas,
            self.last.l1_ratios,
            self.last.losses,
            self.last.errors,
            self.last.accuracies,
            self.last.ruled_out,
            at_minimum,
        )
        for alpha, ratio, loss, error, accuracy, lost, done in zip(*columns, strict=True):
            word = "  chosen" if (alpha, ratio) == winner else "  ruled out" if lost else ""
            share = f"{ratio:>10.3g}" if len(model.l1_ratios_) > 1 else ""
            yield (
                f"{alpha:>10.3g}{share}{loss:>12.6f}{error:>10.6f}{accuracy:>10.4f}"
                f"{f'{done} of {len(model.converged_)}':>12}{word}"
            )
