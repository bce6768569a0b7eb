"""The model of an objective near a point that a sample of its rows makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsoftmax.reduction import Array
from dsoftmax.solvers.base import Evaluation
from dsoftmax.solvers.bend import Bend
from dsoftmax.solvers.lbfgs import Pair


@dataclass(frozen=True)
class Model:
    """The sample's objective, corrected at a centre, bent and damped around it.

    A search for its minimum takes steps from the centre, stretched by the root of the metric so
    that they are uncorrelated; or, under a penalty with corners, which stretching would turn, it
    works on the points themselves.

    Attributes
    ----------
    centre : (n_features + 1, n_columns)
    value, gradient : of the sample's objective at the centre
    correction : what is added to that gradient everywhere
    root : (n_features + 1, n_features + 1) with root.T @ root the inverse of the metric, or None
    damping : half of it times the squared distance from the centre is added
    bend : half of its quadratic form is added, or None
    cornered : whether a search works on points
    """

    centre: Array
    value: float
    gradient: Array
    correction: Array
    root: Array | None
    damping: float
    bend: Bend | None
    cornered: bool

    @property
    def origin(self) -> Array:
        """What a search calls the centre."""
        return self.centre if self.cornered else np.zeros_like(self.centre)

    @property
    def known(self) -> Evaluation:
        """The model at its centre."""
        gradient = self.stretched(self.gradient + self.correction)
        return Evaluation(np.array([self.value]), gradient[None], np.zeros(1))

    def point(self, step: Array) -> Array:
        """Return the point that a search means by a step."""
        if self.cornered:
            return step
        return self.centre + (step if self.root is None else self.root.T @ step)

    def stretched(self, gradient: Array) -> Array:
        """Return a gradient in the coordinates of a search."""
        return gradient if self.root is None else np.asarray(self.root @ gradient)

    def added(self, step: Array) -> tuple[Array, Array]:
        """Return the way from the centre, and its product with the damping and the bend.

        This is the gradient of what the model adds to the sample, apart from the correction.
        """
        way = step - self.origin
        added = self.damping * self.stretched(self.point(step) - self.centre)
        return way, added if self.bend is None else added + self.bend(way)

    def evaluation(self, steps: Array, sampled: Evaluation) -> Evaluation:
        """Return the model at some steps, for the sample's objective there."""
        values, gradients = [], []
        for step, value, gradient in zip(steps, sampled.value, sampled.gradient, strict=True):
            way, added = self.added(step)
            slope = float(np.vdot(self.correction, self.point(step) - self.centre))
            values.append(value + slope + 0.5 * float(np.vdot(way, added)))
            gradients.append(self.stretched(gradient + self.correction) + added)
        return Evaluation(np.array(values), np.stack(gradients), sampled.accuracy)

    def sample_change(self, step: Array, gradient: Array) -> Array:
        """Return by how much the sample's gradient differs from that at the centre.

        Parameters
        ----------
        step : where
        gradient : of the model there
        """
        return np.asarray(gradient - self.known.gradient[0] - self.added(step)[1])

    def bent(self, pairs: tuple[Pair, ...], sign: float = 1.0) -> tuple[Pair, ...]:
        """Return differences of the sample's gradients as those of the model's; or back again."""
        result = []
        for pair in pairs:
            step = self.origin + pair.step.reshape(self.centre.shape)
            change = pair.change + sign * self.added(step)[1].ravel()
            product = float(pair.step @ change)
            if product > 0:
                result.append(Pair(pair.step, change, 1.0 / product))
        return tuple(result)
