"""Probabilities and residuals of raw predictions.

A residual is the gradient of the loss of a row with respect to its raw predictions.

With raw predictions z_j the loss of a row of class k is log(sum_l exp(z_l)) - z_k, and its
gradient with respect to z_j is p_j - [j = k] (Bishop, Pattern Recognition and Machine Learning,
2006, section 4.3.4). One column is the log odds of class 1 of two: the loss is
log(1 + exp(z)) - [k = 1] z.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from dsoftmax.typing import Array


def softmax_residual(raw: Array, codes: Array, loss: Array, correct: Array) -> None:
    """Turn raw predictions into residuals p - [j = k], in place.

    Parameters
    ----------
    raw : array of shape (n_models, n_columns, b), overwritten
    codes : integer array of shape (b,)
    loss : array of shape (n_models, b), filled in
    correct : boolean array of shape (n_models, b), filled in: where no class is more probable
    """
    if raw.shape[1] == 1:
        _logistic_residual(raw, codes, loss, correct)
        return
    raw -= raw.max(axis=1, keepdims=True)
    labels = _of_own_class(raw, codes)
    flat = raw.reshape(-1)
    of_label = flat.take(labels)
    np.equal(of_label, 0, out=correct)  # the largest is zero now
    least = _least_exponent(raw.dtype)
    if raw.min() < least:  # to look for one takes a fifth of the time that clipping takes
        np.maximum(raw, least, out=raw)
    np.exp(raw, out=raw)
    total = raw.sum(axis=1, keepdims=True)
    raw /= total
    flat[labels] -= 1
    np.log(total[:, 0], out=loss)
    loss -= of_label


@cache
def _least_exponent(dtype: np.dtype[np.floating]) -> float:
    """Return an exponent whose power a product can still take without subnormal numbers.

    With those, products take up to 17 times as long; what is lost is below 1e-34.
    """
    return 0.9 * math.log(np.finfo(dtype).tiny)


def _of_own_class(raw: Array, codes: Array) -> Array:
    """Return where in a flat `raw` the entries of each row's own class are: (n_models, b)."""
    n_models, n_columns, b = raw.shape
    own: Array = codes * b
    own += np.arange(b)
    return own[None] if n_models == 1 else np.arange(n_models)[:, None] * (n_columns * b) + own


def _logistic_residual(raw: Array, codes: Array, loss: Array, correct: Array) -> None:
    z = raw[:, 0]
    label = codes == 1
    tail = np.exp(np.maximum(-np.abs(z), _least_exponent(z.dtype)))
    np.add(np.maximum(z, 0) - np.where(label, z, 0), np.log1p(tail), out=loss)
    np.equal(z > 0, label, out=correct)
    np.divide(np.where(z >= 0, 1, tail), 1 + tail, out=z)
    z -= label


def probabilities(raw: Array) -> Array:
    """Return class probabilities of raw predictions: (..., n_columns, b) to (..., K, b), K >= 2."""
    if raw.shape[-2] == 1:
        raw = np.concatenate([np.zeros_like(raw), raw], axis=-2)
    raw = np.exp(raw - raw.max(axis=-2, keepdims=True))
    raw /= raw.sum(axis=-2, keepdims=True)
    return raw


def log_probabilities(raw: Array) -> Array:
    """Return the logarithm of `probabilities(raw)`, without underflow."""
    if len(raw) == 1:
        raw = np.concatenate([np.zeros_like(raw), raw])
    raw = raw - raw.max(axis=0)
    return np.asarray(raw - np.log(np.exp(raw).sum(axis=0)))
