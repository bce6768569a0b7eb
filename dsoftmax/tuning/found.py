"""What a search returns."""

from __future__ import annotations

from dataclasses import dataclass

from dsoftmax.fit import Fit
from dsoftmax.reduction import Array
from dsoftmax.tuning.candidates import Candidates


@dataclass(frozen=True)
class Found:
    """What a search returns.

    Attributes
    ----------
    fit : of the winner
    candidates : Candidates
    chosen : which of them has won
    scores : (n_folds, n_candidates), the higher the better
    coefs : (n_folds, n_candidates, n_columns, n_features + 1), in units of the data
    objectives : (n_folds, n_candidates), penalised, on the rows that each model learns from
    converged : (n_folds, n_candidates), whether a model was followed to its minimum
    """

    fit: Fit
    candidates: Candidates
    chosen: int
    scores: Array
    coefs: Array
    objectives: Array
    converged: Array
