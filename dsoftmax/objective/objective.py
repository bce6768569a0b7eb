"""The objective: mean loss + penalty, in the coordinates of a solver, as Reductions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from operator import add

import numpy as np

from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.importance_sample import LeverageSampler, LeverageScore, rows_of
from dsoftmax.objective.kernel import ExtraColumns, LossSums, loss_gradient
from dsoftmax.objective.penalty import ElasticNet, largest
from dsoftmax.objective.reduction import Chunk, Combined, Reduction, combine
from dsoftmax.objective.scaling import Coordinates, Moments, kernel_shift
from dsoftmax.objective.units import in_units, require_normal, unusual_exponent, with_units
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array

_SAME_UNIT = 100.0  # largest over median standard deviation
_SAME_EXPONENT = 2 * math.frexp(_SAME_UNIT)[1]
LEAST_SHARE = 1e-12  # of a class that was named but has no rows: its intercept stays finite


def partial_gradient(
    chunk: Chunk, points: Array, shift: Array | None, beside: ExtraColumns | None = None
) -> LossSums:
    """Return the sums of loss and gradient of a chunk.

    Raises
    ------
    DataError
        If they are not finite because X is not; sums that are not finite because the
        points are far out are returned.
    """
    sums = loss_gradient(chunk, points, shift, beside)
    if not (np.isfinite(sums.loss).all() and np.isfinite(sums.gradient).all()):
        chunk.require_finite(points.dtype)
    return sums


def partial_gradient_and_rows(
    chunk: Chunk, points: Array, shift: Array | None, rule: LeverageSampler
) -> Combined:
    """Return `partial_gradient` at one point, and the rows that matter there.

    One product tells both what the model predicts.
    """
    parts = np.empty((len(chunk.X), 2))

    def see(rows: slice, raw: Array) -> None:
        parts[rows] = rule.leverage.of_raw(raw)

    sums = partial_gradient(chunk, points, shift, ExtraColumns(rule.leverage.others, see))
    return Combined((sums, rule.pick(chunk, rule.leverage.weighted(parts, chunk))))


def gradient_of(points: Array, shift: Array | None) -> Reduction[LossSums]:
    """Return the reduction that evaluates a stack of the kernel's points."""
    return Reduction("partial_gradient", partial(partial_gradient, points=points, shift=shift), add)


@storable
@dataclass(frozen=True)
class Objective:
    """What is minimised.

    Attributes
    ----------
    penalty : ElasticNet, in the solver's coordinates
    coordinates : Coordinates
    fit_intercept : bool
    dtype : of the kernel
    total_weight, n_rows : of all rows
    class_share : (n_classes,), share of the weight of each class
    at_intercept_only : Evaluation of the intercept-only model; exact when the moments are of all
        rows
    """

    penalty: ElasticNet
    coordinates: Coordinates
    fit_intercept: bool
    dtype: np.dtype[np.floating]
    total_weight: float
    n_rows: int
    class_share: Array
    at_intercept_only: Evaluation

    @property
    def intercept_only(self) -> Array:
        """The best point (n_features + 1, n_columns) whose coefficients are all zero."""
        n_features = len(self.coordinates.centre)
        return intercept_only(n_features, self.class_share, self.fit_intercept)

    def reduction(self, kernel_points: Array) -> Reduction[LossSums]:
        """Return the reduction that evaluates a stack of points, as `to_kernel` returns them."""
        return gradient_of(kernel_points, self.coordinates.shift)

    def reduction_and_rows(
        self, kernel_points: Array, sampler: LeverageSampler
    ) -> Reduction[Combined]:
        """Return that reduction, and the one that picks the rows that matter at the first point."""
        if len(kernel_points) > 1:
            return combine(self.reduction(kernel_points), rows_of(sampler))
        points, shift = kernel_points, self.coordinates.shift
        chunk = partial(partial_gradient_and_rows, points=points, shift=shift, rule=sampler)
        return Reduction("partial_gradient", chunk, add, grows=True)

    def to_kernel(self, points: Array) -> Array:
        """Return a stack of a solver's points as the kernel takes them."""
        kernel = np.stack([self.coordinates.to_kernel(point) for point in points])
        with np.errstate(over="ignore"):
            return kernel.astype(self.dtype)

    def evaluation(
        self, points: Array, sums: LossSums, rows: int, *, epoch_ended: bool = False
    ) -> Evaluation:
        """Return the smooth objective for the sums over `rows` rows, scaled to all rows."""
        scale = self.n_rows / rows / self.total_weight
        values, gradients = [], []
        for point, loss, kernel_gradient in zip(points, sums.loss, sums.gradient, strict=True):
            penalty, penalty_gradient = self.penalty.l2_value_gradient(point)
            gradient = scale * self.coordinates.gradient(kernel_gradient) + penalty_gradient
            if not self.fit_intercept:
                gradient[-1] = 0.0
            values.append(scale * loss + penalty)
            gradients.append(gradient)
        accuracy = sums.correct / np.maximum(sums.weight, np.finfo(float).tiny)
        share = rows / self.n_rows
        return Evaluation(np.array(values), np.stack(gradients), accuracy, rows, share, epoch_ended)

    def hessian_approx(self, gram: Array, n_rows: int) -> Array:
        """Return about the Hessian of one class, in the coordinates of the solver.

        Parameters
        ----------
        gram : array of shape (n_features + 1, n_features + 1)
            Mean of [x, 1] [x, 1]' over some rows, of the kernel's x.
        n_rows : int
            How many rows they were. The fewer, the more of the identity is mixed in, which is
            what the Hessian is near in these coordinates (Ledoit and Wolf, A well-conditioned
            estimator for large-dimensional covariance matrices, 2004).
        """
        n_features = len(gram) - 1
        gram = self.coordinates.gram(gram)
        if not self.fit_intercept:
            gram[-1] = gram[:, -1] = 0.0
        p = _probabilities(self.class_share, self.fit_intercept)
        noise = n_features / (n_features + n_rows)
        metric = (1 - noise) * float((p * (1 - p)).mean()) * gram
        own = np.full(n_features + 1, noise)
        own[:-1] += self.penalty.l2_curvature[:, 0]
        return np.asarray(metric + np.diag(own))

    def leverage(self, ends: Array, sketch: Array) -> LeverageScore:
        """Return what tells how much a row matters at a point, and on a way to it.

        Parameters
        ----------
        ends : array of shape (2, n_features + 1, n_columns)
            That point, and where the way began.
        sketch : array of shape (n_features + 1, n_projections)
            Random directions in the solver's coordinates.
        """
        return LeverageScore(
            self.to_kernel(ends), self.to_kernel(sketch[None]), self.coordinates.shift
        )

    def rescaled(self, total_weight: float, n_rows: int) -> Objective:
        """Return the objective over other rows, in the same coordinates."""
        return replace(self, total_weight=total_weight, n_rows=n_rows)

    def without_rows(self, class_weight: Array, n_rows: int) -> Objective:
        """Return the objective when some rows are left out, in the same coordinates."""
        share = class_weight / class_weight.sum()
        value = _value_at_intercept_only(share, _probabilities(share, self.fit_intercept))
        objective = self.rescaled(float(class_weight.sum()), n_rows)
        known = replace(self.at_intercept_only, value=np.array([value]))
        return replace(objective, class_share=share, at_intercept_only=known)

    def coefficients(self, point: Array) -> tuple[Array, Array]:
        """Return coef (n_features, n_columns) and intercept (n_columns,) in units of the data.

        What may be added to all classes alike, without any change, is centred over them.
        """
        coef, intercept = self.coordinates.to_coefficients(point)
        if len(intercept) > 1:
            intercept = intercept - intercept.mean()
            if self.penalty.alpha == 0:
                coef = coef - coef.mean(axis=1, keepdims=True)
        return coef, intercept

    def value_and_norm(
        self, point: Array, result: Evaluation, index: int = 0
    ) -> tuple[float, float]:
        """Return the whole objective at one point of an evaluation, and its gradient norm."""
        value = float(result.value[index]) + self.penalty.l1_value(point)
        return value, largest(self.penalty.min_norm_subgradient(point, result.gradient[index]))


def intercept_only(n_features: int, share: Array, fit_intercept: bool) -> Array:
    """Return the point of no coefficients and the intercepts for shares of the classes."""
    n_columns = len(share) if len(share) > 2 else 1
    point = np.zeros((n_features + 1, n_columns))
    if fit_intercept:
        logs = np.log(np.maximum(share, LEAST_SHARE))
        point[-1] = logs - logs.mean() if n_columns > 1 else logs[1] - logs[0]
    return point


def build_objective(
    sums: Moments,
    *,
    class_weight: Array,
    n_rows: int,
    alpha: float,
    l1_ratio: float,
    fit_intercept: bool,
    standardize: bool,
    scaled: bool,
    dtype: np.dtype[np.floating],
    coordinates: Coordinates | None = None,
) -> Objective:
    """Return the objective in coordinates chosen by the moments.

    Parameters
    ----------
    sums : Moments
        Of all rows, or of some for a solver that only needs the coordinates.
    class_weight : array of shape (n_classes,)
        Total weight of each class, over all rows.
    n_rows : int
    alpha, l1_ratio, fit_intercept, standardize
        As for `SoftmaxRegression`.
    scaled : bool
        Whether to choose coordinates; if not, they are the coefficients themselves.
    dtype : float32 or float64
    coordinates : Coordinates, optional
        To use instead of those.

    Notes
    -----
    A solver's coordinate is coefficient * scale, where scale^2 is the diagonal of the Hessian
    at the intercept-only model, averaged over classes: mean(p (1 - p)) * variance, and the
    penalty's part. This is Jacobi's preconditioner (Nocedal and Wright, 2006, chapter 5); it
    makes the solvers indifferent to the units of the features. Among features of the same
    unit (no standard deviation above 100 times the median) it is damped by 0.3 times the
    mean, or else features that hardly ever vary would be stretched to the size of the others.
    """
    share = class_weight / class_weight.sum()
    p = _probabilities(share, fit_intercept)
    exponent = unusual_exponent(sums.size, dtype)
    if exponent is not None:
        require_normal(sums.size)
    if coordinates is not None:
        exponent = coordinates.exponent
    sums = sums.in_units_of(exponent)
    centre = sums.mean if fit_intercept else np.zeros_like(sums.mean)
    variance = sums.variance
    of_one = in_units(np.ones_like(variance), exponent)  # a coefficient of one
    unit = np.sqrt(variance) if standardize else of_one
    unit = np.where(unit > 0, unit, of_one)[:, None]
    second_moment = variance + (sums.mean - centre) ** 2
    l2_curvature = ElasticNet(alpha, l1_ratio, unit).l2_curvature[:, 0]
    diagonal = (p * (1 - p)).mean() * second_moment + l2_curvature
    scale = np.sqrt(np.where(diagonal > 0, diagonal + _damping(diagonal, exponent), 1.0))
    if not scaled:
        centre, scale = np.zeros_like(centre), of_one
    if coordinates is None:
        shift = kernel_shift(sums.mean, variance, dtype) if fit_intercept else None
        coordinates = Coordinates(centre, scale, with_units(shift, exponent, dtype))
    return Objective(
        penalty=ElasticNet(alpha, l1_ratio, unit / coordinates.scale[:, None]),
        coordinates=coordinates,
        fit_intercept=fit_intercept,
        dtype=dtype,
        total_weight=float(class_weight.sum()),
        n_rows=n_rows,
        class_share=share,
        at_intercept_only=_at_intercept_only(sums, share, p, coordinates),
    )


def _damping(diagonal: Array, exponent: Array | None) -> Array | float:
    """Return what is added to the diagonal of the Hessian of features of the same unit."""
    up = None if exponent is None else 2 * (exponent.max() - exponent)
    varying = in_units(diagonal, up)[diagonal > 0]  # all in the largest unit that they have
    same_unit = len(varying) > 0 and varying.max() <= _SAME_UNIT**2 * np.median(varying)
    if not same_unit or (up is not None and up.max() > _SAME_EXPONENT):
        return 0.0
    damping = 0.3 * float(varying.mean())
    return damping if up is None else in_units(np.full(len(diagonal), damping), -up)


def _probabilities(share: Array, fit_intercept: bool) -> Array:
    """Return the probabilities of the classes by the intercept-only model."""
    return share if fit_intercept else np.full(len(share), 1 / len(share))


def _value_at_intercept_only(share: Array, p: Array) -> float:
    return -float(share @ np.log(np.where(share > 0, p, 1.0)))


def _at_intercept_only(
    sums: Moments, share: Array, p: Array, coordinates: Coordinates
) -> Evaluation:
    """Return value and gradient where every row has the probabilities `p`.

    The gradient of a class is p_j * sum(x) - sum(x of class j): no kernel is needed.
    """
    centred, class_share = sums.mean - coordinates.centre, sums.class_weight / sums.weight
    by_class = sums.class_offset / sums.weight + np.outer(class_share, centred)
    gradient = (np.outer(p, centred) - by_class).T / coordinates.scale[:, None]
    gradient = np.vstack([gradient, np.zeros(len(p))])
    if len(p) == 2:
        gradient = gradient[:, 1:]
    value = _value_at_intercept_only(share, p)
    return Evaluation(np.array([value]), gradient[None], np.array([share.max()]))
