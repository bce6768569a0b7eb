"""What an evaluation of the objective tells a solver."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dsoftmax.storage.records import storable
from dsoftmax.typing import Array


@storable
@dataclass(frozen=True)
class Evaluation:
    """The smooth objective on the rows asked for, scaled to all rows.

    Attributes
    ----------
    value : (n_points,)
    gradient : (n_points, n_features + 1, n_columns)
    accuracy : (n_points,), share of the weight that is predicted right
    rows : how many were evaluated
    share : the part of the rows that was evaluated, from 0 to 1
    epoch_ended : whether the last row of an epoch was among them
    metric : (n_features + 1, n_features + 1), positive definite: about the Hessian of a class;
        None where it was not asked for, or is too large
    root : of the same shape, lower triangular, of the rows that are kept in memory: root.T @ root
        is the inverse of their metric; None likewise
    resampled : whether other rows are kept in memory now
    """

    value: Array
    gradient: Array
    accuracy: Array
    rows: int = 0
    share: float = 1.0
    epoch_ended: bool = False
    metric: Array | None = None
    root: Array | None = None
    resampled: bool = False

    def at(self, index: int) -> Evaluation:
        """Return what was evaluated at one of the points."""
        own = slice(index, index + 1)
        return replace(
            self, value=self.value[own], gradient=self.gradient[own], accuracy=self.accuracy[own]
        )
