"""What differences of gradients tell about how two curvatures differ.

Pairs of a step and of the change of a gradient along it determine a symmetric matrix of the
smallest Frobenius norm (Powell, A new algorithm for unconstrained optimization, 1970; for
several pairs at once: Schnabel, Quasi-Newton methods using multiple secant equations, 1983).
Its negative part is left out: a model that is bent upwards stays convex.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dsoftmax.storage.records import storable
from dsoftmax.typing import Array

_TINY = 1e-6  # relative; steps that are so nearly dependent tell nothing apart


@storable
class Secant(NamedTuple):
    """A step, and the change of a gradient along it, both flat (size,)."""

    step: Array
    change: Array


@storable
class LowRankTerm(NamedTuple):
    """A positive semidefinite matrix of low rank: basis @ diag(weights) @ basis.T.

    Attributes
    ----------
    basis : (size, rank), orthonormal columns
    weights : (rank,), not negative
    """

    basis: Array
    weights: Array

    def __call__(self, vector: Array) -> Array:
        """Return the product with an array of `size` elements, in its shape."""
        flat = self.basis @ (self.weights * (self.basis.T @ vector.ravel()))
        return np.asarray(flat.reshape(vector.shape))


def low_rank_from(secants: Sequence[Secant], size: int) -> LowRankTerm:
    """Return the positive part of the least matrix that maps each step to its change.

    Parameters
    ----------
    secants : sequence of Secant
        Oldest first; may be empty.
    size : int
        Length of a step.
    """
    if not secants:
        return LowRankTerm(np.zeros((size, 0)), np.zeros(0))
    lengths = np.array([np.linalg.norm(secant.step) for secant in secants])
    steps = np.stack([secant.step for secant in secants], axis=1) / lengths
    changes = np.stack([secant.change for secant in secants], axis=1) / lengths
    dual = steps @ np.linalg.pinv(steps.T @ steps, rcond=_TINY, hermitian=True)
    inner = steps.T @ changes
    inner = 0.5 * (inner + inner.T)
    basis, corner = np.linalg.qr(np.concatenate([changes, dual], axis=1))
    k = len(secants)
    middle = np.block([[np.zeros((k, k)), np.eye(k)], [np.eye(k), -inner]])
    weights, vectors = np.linalg.eigh(corner @ middle @ corner.T)
    up = weights > 0
    return LowRankTerm(basis @ vectors[:, up], weights[up])
