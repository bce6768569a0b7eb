"""The result of an evaluation of the objective, as a solver gets it."""

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
    accuracy : (n_points,), fraction of the weight that is predicted right
    rows : number of rows that were evaluated
    share : fraction of all rows that was evaluated, from 0 to 1
    epoch_ended : whether the last row of an epoch was among them
    metric : (n_features + 1, n_features + 1), positive definite: approximates the Hessian of a
        class; None where it was not asked for, or is too large
    root : of the same shape, lower triangular: root.T @ root is the inverse of the metric of the
        rows in memory; None likewise
    resampled : whether the rows in memory were picked anew
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
        """Return the evaluation at one of the points."""
        one = slice(index, index + 1)
        return replace(
            self, value=self.value[one], gradient=self.gradient[one], accuracy=self.accuracy[one]
        )
