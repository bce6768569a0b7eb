"""The model of an objective near a point that a sample of its rows makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.solvers.lbfgs import Pair
from dsoftmax.solvers.linalg import product, transposed_product
from dsoftmax.solvers.low_rank import LowRankTerm
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array


@storable
@dataclass(frozen=True)
class Surrogate:
    """The sample's objective, corrected at a centre, bent and damped around it.

    A search for its minimum takes steps from the centre, stretched by the root of the metric so
    that they are uncorrelated; or, under a penalty with corners, which stretching would turn, it
    works on the points themselves.

    Attributes
    ----------
    centre : (n_features + 1, n_columns)
    value, gradient : of the sample's objective at the centre
    correction : what is added to that gradient everywhere
    root : (n_features + 1, n_features + 1), lower triangular, with root.T @ root the inverse of
        the metric, or None
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
    bend: LowRankTerm | None
    cornered: bool

    @property
    def origin(self) -> Array:
        """What a search calls the centre."""
        return self.centre if self.cornered else np.zeros_like(self.centre)

    @property
    def at_origin(self) -> Evaluation:
        """The model at its centre."""
        gradient = self.stretched(self.gradient + self.correction)
        return Evaluation(np.array([self.value]), gradient[None], np.zeros(1))

    def point(self, step: Array) -> Array:
        """Return the point that a search means by a step."""
        if self.cornered:
            return step
        return np.asarray(self.centre + self._away(step))

    def stretched(self, gradient: Array) -> Array:
        """Return a gradient in the coordinates of a search."""
        return gradient if self.root is None else product(self.root, gradient)

    def added(self, ways: Array) -> Array:
        """Return the gradient of damping and bend, without the correction, at ways of a search.

        Parameters
        ----------
        ways : array of shape (n, n_features + 1, n_columns)
            From the origin. Together they cost little more than one.
        """
        n, height, width = ways.shape
        side_by_side = np.swapaxes(ways, 0, 1).reshape(height, n * width)
        added = self.damping * self.stretched(self._away(side_by_side))
        added = np.swapaxes(added.reshape(height, n, width), 0, 1)
        if self.bend is None:
            return added
        return np.stack([own + self.bend(way) for own, way in zip(added, ways, strict=True)])

    def _away(self, way: Array) -> Array:
        """Return the way of a search as one between points."""
        return way if self.root is None else transposed_product(self.root, way)

    def evaluation(self, steps: Array, sampled: Evaluation) -> Evaluation:
        """Return the model at some steps, for the sample's objective there."""
        values, gradients = [], []
        for step, value, gradient in zip(steps, sampled.value, sampled.gradient, strict=True):
            way = step - self.origin
            away = self._away(way)
            value = value + float(np.vdot(self.correction + 0.5 * self.damping * away, away))
            gradient = self.stretched(gradient + self.correction + self.damping * away)
            if self.bend is not None:
                bent = self.bend(way)
                value, gradient = value + 0.5 * float(np.vdot(way, bent)), gradient + bent
            values.append(value)
            gradients.append(gradient)
        return Evaluation(np.array(values), np.stack(gradients), sampled.accuracy)

    def sample_change(self, step: Array, gradient: Array) -> Array:
        """Return by how much the sample's gradient differs from that at the centre.

        Parameters
        ----------
        step : where
        gradient : of the model there
        """
        (added,) = self.added((step - self.origin)[None])
        return np.asarray(gradient - self.at_origin.gradient[0] - added)

    def bent(self, pairs: tuple[Pair, ...], sign: float = 1.0) -> tuple[Pair, ...]:
        """Return differences of the sample's gradients as those of the model's; or back again."""
        if not pairs:
            return ()
        result = []
        added = self.added(np.stack([pair.step.reshape(self.centre.shape) for pair in pairs]))
        for pair, own in zip(pairs, added, strict=True):
            change = pair.change + sign * own.ravel()
            product = float(pair.step @ change)
            if product > 0:
                result.append(Pair(pair.step, change, 1.0 / product))
        return tuple(result)
