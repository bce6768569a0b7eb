"""Data that several tests of searches are made of."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import StratifiedKFold

Data = tuple[np.ndarray, np.ndarray]


def fold_of_each_row(y: np.ndarray, n_folds: int) -> np.ndarray:
    """Return the number of the fold of scikit-learn that each row is in."""
    folds = np.empty(len(y), np.int64)
    for fold, (_, test) in enumerate(
        StratifiedKFold(n_folds, shuffle=True, random_state=0).split(np.zeros((len(y), 1)), y)
    ):
        folds[test] = fold
    return folds


def scaled_features(n_classes: int, rows: int = 600) -> Data:
    """Return rows of five features on three scales, one of which tells nothing."""
    rng = np.random.default_rng(n_classes)
    y = rng.integers(0, n_classes, rows)
    X = rng.normal(size=(rows, 5)) * [1.0, 10.0, 0.1, 1.0, 1.0]
    X += rng.normal(size=(n_classes, 5))[y] * [1.0, 10.0, 0.1, 0.0, 1.0]
    return X, y
