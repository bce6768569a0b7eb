"""The elastic net: alpha * (l1_ratio * |theta|_1 + (1 - l1_ratio) / 2 * |theta|^2).

The intercept, the last row of a point, is never penalised (Zou and Hastie,
Regularization and variable selection via the elastic net, 2005).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsoftmax.reduction import Array


@dataclass(frozen=True)
class ElasticNet:
    """The penalty in the coordinates of a solver.

    Attributes
    ----------
    alpha : strength, on the scale of the mean loss
    l1_ratio : share of the L1 part, from 0 to 1
    unit : (n_features, 1), what a solver's coordinate is multiplied by to give the
        coefficient that is penalised
    """

    alpha: float
    l1_ratio: float
    unit: Array

    def smooth(self, point: Array) -> tuple[float, Array]:
        """Return the value of the squared part and its gradient, of the shape of `point`."""
        strength = self.alpha * (1 - self.l1_ratio)
        gradient = np.zeros_like(point)
        gradient[:-1] = strength * self.unit**2 * point[:-1]
        return 0.5 * float(np.vdot(gradient, point)), gradient

    def absolute(self, point: Array) -> float:
        """Return the value of the L1 part."""
        return self.alpha * self.l1_ratio * float(np.abs(self.unit * point[:-1]).sum())

    def prox(self, point: Array, step: float) -> Array:
        """Return argmin over v of |v - point|^2 / (2 step) + L1 part: soft thresholding."""
        threshold = step * self.alpha * self.l1_ratio * self.unit
        shrunk = point.copy()
        shrunk[:-1] = np.sign(point[:-1]) * np.maximum(np.abs(point[:-1]) - threshold, 0)
        return shrunk
