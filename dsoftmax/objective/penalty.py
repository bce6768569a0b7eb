"""The elastic net: alpha * (l1_ratio * |theta|_1 + (1 - l1_ratio) / 2 * |theta|^2).

The intercept, the last row of a point, is never penalised (Zou and Hastie,
Regularization and variable selection via the elastic net, 2005).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsoftmax.storage.records import storable
from dsoftmax.typing import Array


@storable
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

    def l2_value_gradient(self, point: Array) -> tuple[float, Array]:
        """Return the value of the squared part and its gradient, of the shape of `point`."""
        gradient = np.zeros_like(point)
        gradient[:-1] = self.l2_curvature * point[:-1]
        return 0.5 * float(np.vdot(gradient, point)), gradient

    @property
    def l2_curvature(self) -> Array:
        """Second derivative (n_features, 1) of the squared part."""
        strength = self.alpha * (1 - self.l1_ratio)
        # Where there is no penalty, the square of the inverse of a tiny unit need not be finite.
        return strength * self.unit**2 if strength > 0 else np.zeros_like(self.unit)

    def l1_value(self, point: Array) -> float:
        """Return the value of the L1 part."""
        if not self._has_corners:
            return 0.0
        return self.alpha * self.l1_ratio * float(np.abs(self.unit * point[:-1]).sum())

    def prox(self, point: Array, step: float | Array) -> Array:
        """Return argmin over v of |v - point|^2 / (2 step) + L1 part: soft thresholding.

        `step` is a number, or an array of the shape of `point`, one for each coordinate.
        """
        if not self._has_corners:
            return point
        length = step[:-1] if isinstance(step, np.ndarray) else step
        return _shrunk(point, length * self._threshold)

    def min_norm_subgradient(self, point: Array, gradient: Array) -> Array:
        """Return the smallest subgradient of the objective, for the gradient of its smooth part.

        It is zero at the minimum and nowhere else.
        """
        if not self._has_corners:
            return gradient
        signs = np.sign(point[:-1]) * self._threshold
        at_zero = _shrunk(gradient, self._threshold)
        min_norm_subgradient = gradient.copy()
        min_norm_subgradient[:-1] = np.where(point[:-1] == 0, at_zero[:-1], gradient[:-1] + signs)
        return min_norm_subgradient

    @property
    def _has_corners(self) -> bool:
        return self.alpha * self.l1_ratio > 0

    @property
    def _threshold(self) -> Array:
        return self.alpha * self.l1_ratio * self.unit


def _shrunk(point: Array, threshold: Array) -> Array:
    """Return the point with its coefficients, not the intercept, nearer to zero."""
    shrunk = point.copy()
    shrunk[:-1] = np.sign(point[:-1]) * np.maximum(np.abs(point[:-1]) - threshold, 0)
    return shrunk


def largest(gradient: Array) -> float:
    """Return the largest absolute entry."""
    return float(np.abs(gradient).max(initial=0.0))
