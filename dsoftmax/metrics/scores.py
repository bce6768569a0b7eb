"""`EvaluationResult`: metrics by name, as a table, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dsoftmax.metrics.metrics import BINS, MOST_RANKED, MetricSums
from dsoftmax.storage.records import strict_json
from dsoftmax.typing import Array

_MOST_SHOWN = 20
_SCALARS = {
    "n_samples": "rows",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "mean F1",
    "log_loss": "log loss",
    "brier_score": "Brier score",
    "ece": "calibration error",
}


class EvaluationResult(dict[str, Any]):
    """The metrics that `evaluate` returns, by name: print it, or take `to_dict()` for JSON.

    Notes
    -----
    The keys are

    n_samples : int
        Rows that count.
    unknown_labels : dict of arrays of shape (n_unknown_labels,)
        The labels in y that the model does not know: "label", and how many "rows" have each. These
        rows are counted as wrong, as scikit-learn does: in the accuracies, of which
        `balanced_accuracy` takes each of these labels for a class; in `top_k_accuracy` and `ece`;
        in precision and F1 they count as false positives of the class that was predicted. They have
        no part in `log_loss`, `brier_score` and `confusion_matrix`.
    accuracy, balanced_accuracy : float
        Share of the weight that is predicted right, and the mean of that share over the classes
        that occur.
    top_k_accuracy : dict of int to float
        For k = 1, 2, ... up to 10 but below the number of classes: the weight of the rows of
        which fewer than k classes are more probable than the label. Of classes that are equally
        probable the first counts as more probable, as for `predict`.
    log_loss : float
        Mean of -log p(label), natural logarithm, without penalty.
    brier_score : float
        Mean squared distance of the probabilities from the label, summed over classes; of the
        second class alone if there are two, as in scikit-learn.
    ece : float
        Expected calibration error of the most probable class, in 15 bins of equal width (Guo,
        Pleiss, Sun and Weinberger, ICML 2017).
    f1_macro : float
        Mean of the F1 of all classes.
    per_class : dict of arrays of shape (n_classes,)
        "label", "precision", "recall", "f1" (0 where nothing was predicted or expected) and
        "support", the weight of the rows with that label.
    confusion_matrix : ndarray of shape (n_classes, n_classes)
        Weight (or, without weights, number) of the rows by label and prediction.
    reliability : dict of arrays of shape (15,)
        By confidence, the probability of the predicted class: the edges "low" and "high" (which
        belongs to the bin), mean "confidence", "accuracy" (NaN in an empty bin) and "support".
    """

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as numbers, texts, lists and dicts; None for what is not a number.

        Returns
        -------
        dict
            For JSON.
        """
        return dict(strict_json(self))

    def __str__(self) -> str:
        lines = [f"{label:<18} {_number(self[key])}" for key, label in _SCALARS.items()]
        ranked = {k: v for k, v in self["top_k_accuracy"].items() if k in (2, 3, 5, 10)}
        lines += [f"{f'top {k}':<18} {share:.6f}" for k, share in ranked.items()]
        for label, rows in zip(*self["unknown_labels"].values(), strict=True):
            lines.append(f"{'not a class':<18} {label} ({rows:,} rows, counted as wrong)")
        return "\n".join([*lines, "", *self._classes(), "", *self._bins()])

    def _classes(self) -> Iterator[str]:
        table = self["per_class"]
        order = np.arange(len(table["label"]))
        left_out = len(order) - _MOST_SHOWN
        if left_out > 0:
            order = np.argsort(table["f1"], kind="stable")[:_MOST_SHOWN]
        names = [str(label) for label in table["label"][order].tolist()]
        width = max(5, *map(len, names))
        yield f"{'class':<{width}}  precision  recall      F1  {'rows':>12}"
        for name, i in zip(names, order, strict=True):
            values = [table[key][i] for key in ("precision", "recall", "f1")]
            precision, recall, f1 = (f"{value:.4f}" for value in values)
            support = _number(table["support"][i])
            yield f"{name:<{width}}  {precision:>9}  {recall}  {f1}  {support:>12}"
        if left_out > 0:
            yield f"and {left_out:,} classes with a better F1"

    def _bins(self) -> Iterator[str]:
        table = self["reliability"]
        yield f"{'confidence':<14}    mean  accuracy  {'rows':>12}"
        for i in np.flatnonzero(table["support"]):
            span = f"{table['low'][i]:.3f} to {table['high'][i]:.3f}"
            mean, accuracy = table["confidence"][i], table["accuracy"][i]
            yield f"{span:<14}  {mean:.4f}    {accuracy:.4f}  {_number(table['support'][i]):>12}"


def scores_of(sums: MetricSums, classes: Array, *, weighted: bool) -> EvaluationResult:
    """Return the metrics that some sums amount to.

    Parameters
    ----------
    sums : of all rows, of positive weight
    classes : (n_classes,), labels
    weighted : whether rows have weights; if not, counts are whole numbers
    """
    kind = np.float64 if weighted else np.int64
    confusion, of_unknown = np.split(sums.pairs.matrix(len(classes)), [len(classes)])
    right = confusion.diagonal()
    support, predicted = confusion.sum(axis=1), (confusion.sum(axis=0) + of_unknown[0])
    recall, precision = _ratio(right, support, 0.0), _ratio(right, predicted, 0.0)
    f1 = _ratio(2 * right, support + predicted, 0.0)
    top = np.cumsum(sums.ranks) / sums.weight
    weight, confidence, correct = sums.bins.T
    known = sums.known_weight or np.nan
    error = np.abs(confidence - correct).sum() / sums.weight
    occurring = np.count_nonzero(support) + np.count_nonzero(sums.unknown.weight)
    return EvaluationResult(
        n_samples=sums.rows,
        unknown_labels={"label": sums.unknown.labels, "rows": sums.unknown.rows},
        accuracy=float(right.sum() / sums.weight),
        balanced_accuracy=float(recall[support > 0].sum() / occurring),
        f1_macro=float(f1.mean()),
        log_loss=sums.log_loss / known,
        brier_score=sums.squares / known,
        ece=float(error),
        top_k_accuracy={k: float(top[k - 1]) for k in range(1, min(len(classes), MOST_RANKED + 1))},
        per_class={
            "label": classes,
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "support": support.astype(kind),
        },
        confusion_matrix=confusion.astype(kind),
        reliability={
            "low": BINS[:-1],
            "high": BINS[1:],
            "confidence": _ratio(confidence, weight, np.nan),
            "accuracy": _ratio(correct, weight, np.nan),
            "support": weight.astype(kind),
        },
    )


def _ratio(part: Array, whole: Array, otherwise: float) -> Array:
    out: Array = np.full(len(whole), otherwise)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | np.integer) else f"{value:,.6f}"
