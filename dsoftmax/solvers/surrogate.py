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
    low_rank : half of its quadratic form is added, or None
    nonsmooth : whether a search works on points
    """

    centre: Array
    value: float
    gradient: Array
    correction: Array
    root: Array | None
    damping: float
    low_rank: LowRankTerm | None
    nonsmooth: bool

    @property
    def origin(self) -> Array:
        """The centre in the coordinates of a search."""
        return self.centre if self.nonsmooth else np.zeros_like(self.centre)

    @property
    def at_origin(self) -> Evaluation:
        """The surrogate at its centre."""
        gradient = self.to_search(self.gradient + self.correction)
        return Evaluation(np.array([self.value]), gradient[None], np.zeros(1))

    def point(self, step: Array) -> Array:
        """Return the point at a search's coordinates."""
        if self.nonsmooth:
            return step
        return np.asarray(self.centre + self._between_points(step))

    def to_search(self, gradient: Array) -> Array:
        """Return a gradient in the coordinates of a search."""
        return gradient if self.root is None else product(self.root, gradient)

    def added_gradient(self, displacements: Array) -> Array:
        """Return the gradient of the damping and the low-rank term at displacements in a search.

        Parameters
        ----------
        displacements : array of shape (n, n_features + 1, n_columns)
            From the origin. Together they cost little more than one.
        """
        n, height, width = displacements.shape
        side_by_side = np.swapaxes(displacements, 0, 1).reshape(height, n * width)
        added_gradient = self.damping * self.to_search(self._between_points(side_by_side))
        added_gradient = np.swapaxes(added_gradient.reshape(height, n, width), 0, 1)
        if self.low_rank is None:
            return added_gradient
        return np.stack(
            [
                own + self.low_rank(displacement)
                for own, displacement in zip(added_gradient, displacements, strict=True)
            ]
        )

    def _between_points(self, displacement: Array) -> Array:
        """Return a displacement in a search as one between points."""
        return displacement if self.root is None else transposed_product(self.root, displacement)

    def evaluation(self, steps: Array, sampled: Evaluation) -> Evaluation:
        """Return the surrogate at some steps, from the sample's objective there."""
        values, gradients = [], []
        for step, value, gradient in zip(steps, sampled.value, sampled.gradient, strict=True):
            displacement = step - self.origin
            moved = self._between_points(displacement)
            value = value + float(np.vdot(self.correction + 0.5 * self.damping * moved, moved))
            gradient = self.to_search(gradient + self.correction + self.damping * moved)
            if self.low_rank is not None:
                change = self.low_rank(displacement)
                value = value + 0.5 * float(np.vdot(displacement, change))
                gradient = gradient + change
            values.append(value)
            gradients.append(gradient)
        return Evaluation(np.array(values), np.stack(gradients), sampled.accuracy)

    def sample_change(self, step: Array, gradient: Array) -> Array:
        """Return the change of the sample's gradient since the centre.

        Parameters
        ----------
        step : where
        gradient : of the surrogate there
        """
        (added_gradient,) = self.added_gradient((step - self.origin)[None])
        return np.asarray(gradient - self.at_origin.gradient[0] - added_gradient)

    def with_curvature(self, pairs: tuple[Pair, ...], sign: float = 1.0) -> tuple[Pair, ...]:
        """Return L-BFGS pairs of the sample with the curvature of damping and low-rank term added.

        With a `sign` of -1, that curvature is subtracted again.
        """
        if not pairs:
            return ()
        result = []
        added_gradient = self.added_gradient(
            np.stack([pair.step.reshape(self.centre.shape) for pair in pairs])
        )
        for pair, own in zip(pairs, added_gradient, strict=True):
            change = pair.change + sign * own.ravel()
            product = float(pair.step @ change)
            if product > 0:
                result.append(Pair(pair.step, change, 1.0 / product))
        return tuple(result)
