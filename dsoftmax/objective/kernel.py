"""The kernel: rows and a stack of points in, softmax loss and gradient out.

With raw predictions z_j = theta_j . x + b_j the loss of a row of class k is
log(sum_l exp(z_l)) - z_k and its gradient with respect to z_j is p_j - [j = k]
(Bishop, Pattern Recognition and Machine Learning, 2006, section 4.3.4). A point with
one column is the two-class model: z is the log odds of class 1, the loss is
log(1 + exp(z)) - [k = 1] z.

Shapes: a stack of points is (n_models, n_features + 1, n_columns), its last row the
intercepts; a block of rows is (rows, n_features), C order; raw predictions are kept as
(n_models, n_columns, rows), so that a reduction over classes runs along contiguous rows.
Every matrix product has a shape that follows from the data, the points and the BLAS kernel alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dsoftmax.objective.matmul import by_column, by_row, is_turned, kernels_of_numpy, panel_length
from dsoftmax.objective.packing import Packing
from dsoftmax.objective.reduction import Chunk
from dsoftmax.objective.softmax import softmax_residual
from dsoftmax.objective.units import shift_and_factor
from dsoftmax.storage.records import storable
from dsoftmax.typing import Additive, Array

_RAW_BYTES = 1 << 23
_MOST_ROWS = 4096  # of a block, and that are added up before their sum is widened to float64


def compute_dtype(stored: npt.DTypeLike) -> np.dtype[np.floating]:
    """Return float32 for what it holds exactly or is stored in it, else float64."""
    dtype = np.dtype(stored)
    narrow = (dtype.kind in "bf" and dtype.itemsize <= 4) or (
        dtype.kind in "iu" and dtype.itemsize <= 2
    )
    return np.dtype(np.float32 if narrow else np.float64)


def block_length(n_features: int, n_columns: int, itemsize: int) -> int:
    """Return how many rows stay in cache: a power of two from 64 to 4096.

    With many columns, which keep the block out of cache, it is longer, up to 1024 rows while
    their raw predictions are within 8 MiB: to add up gradients costs as much as some dozen rows.

    Examples
    --------
    >>> block_length(64, 10, itemsize=4), block_length(784, 100, itemsize=4)
    (4096, 512)
    """
    rows = _block_bytes() // (itemsize * (n_features + 2 * n_columns))
    least = min(8 * n_columns, 1024, _RAW_BYTES // (2 * itemsize * max(n_columns, 1)))
    return 1 << (min(max(rows, least, 64), _MOST_ROWS).bit_length() - 1)


@cache
def _block_bytes() -> int:
    """Return the bytes of narrowed rows and their raw predictions that are to stay in cache.

    That is a core's own, of 2 MiB. The kernels of OpenBLAS for AVX2 take 0.9 of the time for blocks
    of twice the length; most of their processors have too small a cache below the last one anyway.
    """
    return (7 << 19) if kernels_of_numpy() & {"Haswell", "Zen"} else (7 << 18)


@storable
@dataclass(frozen=True)
class LossSums(Additive):
    """Sums over rows, for each model of a stack, in float64.

    Attributes
    ----------
    loss : (n_models,), weighted sum of the row losses
    gradient : (n_models, n_features + 1, n_columns), of `loss`
    correct : (n_models,), weight of the rows whose own class has the largest probability
    weight : (n_models,), weight of all rows
    """

    loss: Array
    gradient: Array
    correct: Array
    weight: Array

    def models(self, which: slice) -> LossSums:
        """Return the sums of some of the models."""
        parts = (self.loss, self.gradient, self.correct, self.weight)
        return LossSums(*(part[which] for part in parts))


def narrow(rows: Array, shift: Array | None, out: Array, packing: Packing | None = None) -> Array:
    """Convert stored rows to `out.dtype` in `out`, subtracting `shift` (n_features,) on the way.

    With `packing`, the rows are unpacked first.

    The difference is taken in the wider of the two dtypes, so that a large mean in
    float64 or int64 storage costs no digits. A `shift` of shape (2, n_features) has a factor in its
    second row, by which the difference is multiplied: see `dsoftmax.objective.units`.
    """
    shift, factor = shift_and_factor(shift)
    if packing is not None:
        packing.unpack(rows, shift, out)
    elif shift is None:
        np.copyto(out, rows, casting="unsafe")
    elif np.can_cast(rows.dtype, out.dtype):
        np.copyto(out, rows)
        np.subtract(out, shift, out=out, casting="same_kind")
    else:
        np.subtract(rows, shift, out=out, casting="same_kind")
    if factor is not None:
        np.multiply(out, factor, out=out, casting="same_kind")
    return out


class BlockPlan(NamedTuple):
    """How the rows of a chunk are cut for the products with a stack of points.

    Attributes
    ----------
    length : rows of a block; the last one may be shorter
    panel : rows of a block that are multiplied at once
    turned : whether blocks are multiplied by row, and the product is turned
    """

    length: int
    panel: int
    turned: bool


def plan_blocks(points: Array, n_rows: int) -> BlockPlan:
    """Return how so many rows are cut: a function of the points' shape and the BLAS kernel."""
    n_features, width = points.shape[1] - 1, points.shape[0] * points.shape[2]
    length = max(1, min(block_length(n_features, width, points.itemsize), n_rows))
    return BlockPlan(length, panel_length(n_features, width, length), is_turned(width))


def raw_blocks(
    X: Array,
    points: Array,
    shift: Array | None = None,
    plan: BlockPlan | None = None,
    packing: Packing | None = None,
) -> Iterator[tuple[slice, Array, Array]]:
    """Yield (rows, block, raw) over cache-sized blocks; the buffers are reused.

    Parameters
    ----------
    X : array of shape (rows, n_features), any real dtype
    points : array of shape (n_models, n_features + 1, n_columns), of the dtype to compute in
    shift : array of shape (n_features,) or (2, n_features), optional
        Subtracted from every row before the product; see `narrow`.
    plan : BlockPlan, optional
        Where it is known already.
    packing : Packing, optional
        Of the stored numbers: points and shift are those of what they stand for, and `block` is
        of the stored ones, less the shift that `Packing.in_stored_units` gives.

    Yields
    ------
    rows : slice of X
    block : array of shape (b, n_features)
    raw : array of shape (n_models, n_columns, b)
    """
    if _multiplies_stored(packing, shift):
        assert packing is not None
        points, shift, *_ = packing.in_stored_units(points, shift, X.dtype)
        packing = None
    n_models, n_features, n_columns = points.shape[0], points.shape[1] - 1, points.shape[2]
    width = n_models * n_columns
    by_column = np.ascontiguousarray(points.transpose(0, 2, 1)).reshape(width, n_features + 1)
    coef, intercept = by_column[:, :-1], by_column[:, -1:]
    length, panel, turned = plan or plan_blocks(points, len(X))
    if turned:
        coef = np.asarray(coef, order="C" if panel < length else "F")
    blocks = np.empty((length, n_features), points.dtype)
    raw = np.empty(width * length, points.dtype)
    for start in range(0, len(X), length):
        rows = slice(start, min(start + length, len(X)))
        block = narrow(X[rows], shift, blocks[: rows.stop - rows.start], packing)
        by_class = raw[: width * len(block)].reshape(width, len(block))
        if turned:
            np.add(by_row(block, coef, panel).T, intercept, out=by_class)
        else:
            np.matmul(coef, block.T, out=by_class)
            by_class += intercept
        yield rows, block, by_class.reshape(n_models, n_columns, len(block))


def _multiplies_stored(packing: Packing | None, shift: Array | None) -> bool:
    """Return whether packed rows are multiplied as they are stored: not if they have units."""
    return packing is not None and shift_and_factor(shift)[1] is None


class ExtraColumns(NamedTuple):
    """Columns to multiply in the same product as the points.

    Attributes
    ----------
    columns : (n_features + 1, n_others)
    on_block : called with the rows of each block, and with their raw predictions of the points
        and of these columns, (n_models * n_columns + n_others, b)
    """

    columns: Array
    on_block: Callable[[slice, Array], None]


def side_by_side(points: Array, columns: Array) -> Array:
    """Return points, a stack of them, and other columns as one point with all of the columns."""
    return np.concatenate([*points, columns], axis=1)[None]


def loss_gradient(
    chunk: Chunk, points: Array, shift: Array | None = None, extra: ExtraColumns | None = None
) -> LossSums:
    """Return the sums of loss and gradient over a chunk, for every model of the stack.

    Parameters
    ----------
    chunk : Chunk
        Its `y` holds class codes; its weights are (rows,) or (rows, n_models).
    points : array of shape (n_models, n_features + 1, n_columns)
    shift : array of shape (n_features,) or (2, n_features), optional
        Subtracted from every row first, see `narrow`; the points are those of the shifted features.
    extra : ExtraColumns, optional

    Returns
    -------
    LossSums
        Not finite where the points or the rows are not: the caller decides which.
    """
    weights = model_weights(chunk.sample_weight, points.dtype)
    loss, correct, gradient = row_losses(chunk, points, shift, weights, extra)
    return loss_sums(loss, correct, gradient, weights)


def loss_sums(loss: Array, correct: Array, gradient: Array, weights: Array | None) -> LossSums:
    """Return the sums of what `row_losses` has returned, for the same row weights."""
    total_loss, total_correct, total_weight = weighted(loss, correct, weights)
    return LossSums(total_loss, gradient, total_correct, total_weight)


def row_losses(
    chunk: Chunk,
    points: Array,
    shift: Array | None,
    weights: Array | None,
    extra: ExtraColumns | None = None,
) -> tuple[Array, Array, Array]:
    """Return the loss of each row, whether it is predicted right, and the gradients of all.

    The first two are (n_models, rows). Gradients are added up in the dtype of the kernel for 4,096
    rows, and in float64 beyond.
    """
    n_models, n_rows, n_columns = points.shape
    loss = np.empty((n_models, len(chunk.X)), points.dtype)
    correct = np.empty(loss.shape, bool)
    gradient = np.zeros((n_models * n_columns, n_rows - 1))
    part = np.zeros(gradient.shape, points.dtype)
    intercept = np.zeros(len(gradient))
    codes, ones = chunk.codes, np.ones(len(chunk.X), points.dtype)
    predicted = points if extra is None else side_by_side(points, extra.columns)
    plan = plan_blocks(predicted, len(chunk.X))
    panel = plan.panel  # for the product with the residuals, which has no extra columns
    if extra is not None:
        panel = panel_length(n_rows - 1, len(gradient), plan.length)
    products = np.empty((plan.length // panel, *gradient.shape), points.dtype)
    # Raw predictions overflow at points far out: the loss is not finite, and the trainer says so.
    with np.errstate(over="ignore", invalid="ignore"):
        for rows, block, raw in raw_blocks(chunk.X, predicted, shift, plan, chunk.packing):
            if extra is not None:
                extra.on_block(rows, raw[0])
                raw = raw[0, : len(gradient)].reshape(n_models, n_columns, -1)
            softmax_residual(raw, codes[rows], loss[:, rows], correct[:, rows])
            if weights is not None:
                raw *= weights[:, None, rows]
            residual = raw.reshape(n_models * n_columns, -1)
            part += by_column(residual, block, panel, products)
            intercept += np.matmul(residual, ones[: len(block)])
            if rows.stop % _MOST_ROWS == 0 or rows.stop == len(chunk.X):
                gradient += part
                part.fill(0)
    if _multiplies_stored(chunk.packing, shift):
        assert chunk.packing is not None
        units = chunk.packing.in_stored_units(predicted, shift, chunk.X.dtype)
        gradient = units.gradient(gradient, intercept)
    whole = np.concatenate([gradient, intercept[:, None]], axis=1)
    by_model = whole.reshape(n_models, n_columns, n_rows).transpose(0, 2, 1)
    return loss, correct, np.ascontiguousarray(by_model)


def weighted(loss: Array, correct: Array, weights: Array | None) -> tuple[Array, Array, Array]:
    """Return the weighted sums of losses, of right predictions, and of ones, in float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        if weights is None:  # a count is exact, and faster than a product with ones
            n_correct = np.count_nonzero(correct, axis=1).astype(np.float64)
            n_rows = np.full(len(loss), float(loss.shape[1]))
            return loss.sum(axis=1, dtype=np.float64), n_correct, n_rows
        terms = (loss, correct, np.ones_like(correct))
        total_loss, total_correct, total_weight = (
            (term * weights).sum(axis=1, dtype=np.float64) for term in terms
        )
    return total_loss, total_correct, total_weight


def model_weights(weights: Array | None, dtype: np.dtype[np.floating]) -> Array | None:
    """Return the row weights as (1 or n_models, rows) in the dtype of the kernel."""
    if weights is None:
        return None
    return np.ascontiguousarray(np.atleast_2d(weights.T), dtype=dtype)
