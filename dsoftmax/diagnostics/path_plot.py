"""`plot_path`: held-out scores and norms of the coefficients over the penalties of a search."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dsoftmax.diagnostics.style import (
    CYCLE,
    INK,
    add_legend,
    check_plot,
    log_scale_if_wide,
    new_figure,
    set_titles,
    style_axes,
)
from dsoftmax.model_selection.path import Candidates, chosen
from dsoftmax.typing import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class FittedSearch(Protocol):
    """What is drawn of a `SoftmaxRegressionCV`: see its attributes."""

    scoring: str
    alpha_: float
    l1_ratio_: float
    alphas_: Array
    l1_ratios_: Array
    scores_: Array
    converged_: Array
    coefs_paths_: Array


def plot_path(model: FittedSearch, ax: Axes | Sequence[Axes] | None) -> Figure:
    """Draw the path of a fitted search, see `SoftmaxRegressionCV.plot_path`."""
    check_plot()
    upper, lower = _axes(ax)
    _draw_scores(model, upper)
    if lower is not None:
        _draw_norms(model, lower)
    for axes in filter(None, (upper, lower)):
        _scale_alphas(axes, model.alphas_)
        style_axes(axes)
    (lower or upper).set_xlabel("alpha", color=INK)
    figure = upper.get_figure(root=True)
    assert figure is not None, "axes are on a figure"
    return figure


def _axes(ax: Axes | Sequence[Axes] | None) -> tuple[Axes, Axes | None]:
    """Return the axes of the scores and those of the norms, if there are any."""
    if ax is None:
        ax = new_figure(8, 6).subplots(2, 1, sharex=True, height_ratios=(2, 1))
    if isinstance(ax, Sequence | np.ndarray):
        upper, lower = ax
        return upper, lower
    return ax, None


def _draw_scores(model: FittedSearch, axes: Axes) -> None:
    """Draw means over the folds with their standard errors, and mark the winner."""
    is_loss = model.scoring == "neg_log_loss"
    scores = -model.scores_ if is_loss else model.scores_
    means, errors = scores.mean(axis=0), _standard_errors(scores)
    for index, (alphas, label, color) in enumerate(_lines(model)):
        mean, error = means[index], errors[index]
        look = {"color": color, "lw": 1.5, "elinewidth": 1.0, "capsize": 2.5}
        axes.errorbar(alphas, mean, error, label=label, **look)
        # Hollow dots: the models of an eliminated candidate have not reached their minima.
        converged = model.converged_[:, index].all(axis=0)
        for shown, face in ((converged, color), (~converged, "white")):
            axes.plot(alphas[shown], mean[shown], "o", ms=5, color=color, mfc=face, zorder=3)
    name = "held-out loss" if is_loss else "held-out accuracy"
    if is_loss:
        log_scale_if_wide(axes, means[np.isfinite(means)].tolist())
    set_titles(axes, name, _mark(model, means, axes))
    add_legend(axes)


def _mark(model: FittedSearch, means: Array, axes: Axes) -> str:
    """Mark the best alpha and that of the one-standard-error rule; return the winner in words."""
    candidates = _candidates(model)
    scores = model.scores_.reshape(len(model.scores_), -1)
    text = f"chosen: alpha {model.alpha_:.3g}"
    for select, style in (("best", "-"), ("1se", "--")):
        if select == "1se" and len(scores) == 1:
            continue
        alpha, l1_ratio = candidates.pairs[chosen(scores, candidates, select)]
        label = f"{'best' if select == 'best' else 'one standard error'}: {alpha:.3g}"
        axes.axvline(alpha, ls=style, lw=1.0, color=INK, zorder=1, label=label)
        if (alpha, l1_ratio) == (model.alpha_, model.l1_ratio_):
            value = means.ravel()[candidates.pairs.index((alpha, l1_ratio))]
            axes.plot([alpha], [value], "o", ms=11, mfc="none", mec=INK, mew=1.5, zorder=4)
            text = f"chosen: {value:.4f} at alpha {alpha:.3g}"
    return text if len(model.l1_ratios_) == 1 else f"{text}, l1_ratio {model.l1_ratio_:g}"


def _draw_norms(model: FittedSearch, axes: Axes) -> None:
    """Draw means over the folds of the norms of the coefficients without the intercepts."""
    norms = np.sqrt(np.square(model.coefs_paths_[..., :-1]).sum(axis=(-2, -1))).mean(axis=0)
    for index, (alphas, _, color) in enumerate(_lines(model)):
        axes.plot(alphas, norms[index], "o-", ms=3.5, lw=1.5, color=color)
    log_scale_if_wide(axes, norms.ravel().tolist())
    set_titles(axes, "norm of the coefficients", "L2, in units of the data")


def _lines(model: FittedSearch) -> Any:
    """Yield the alphas, the label and the color of each l1_ratio."""
    alphas = _candidates(model).alphas
    labels = [f"l1_ratio {ratio:g}" for ratio in model.l1_ratios_]
    return zip(alphas, labels if len(labels) > 1 else [None], cycle(CYCLE), strict=False)


def _candidates(model: FittedSearch) -> Candidates:
    alphas = np.broadcast_to(model.alphas_, model.scores_.shape[1:])
    return Candidates(model.l1_ratios_, alphas)


def _standard_errors(scores: Array) -> Any:
    """Return the standard errors of the means over the folds, None for a single fold."""
    if len(scores) == 1:
        return [None] * scores.shape[1]
    return scores.std(axis=0, ddof=1) / np.sqrt(len(scores))


def _scale_alphas(axes: Axes, alphas: Array) -> None:
    positive = alphas[alphas > 0]
    # A symmetric logarithmic axis is linear near zero, and so has a place for alpha=0.
    if len(positive) == alphas.size:
        axes.set_xscale("log")
    elif len(positive):
        axes.set_xscale("symlog", linthresh=positive.min())
        axes.set_xlim(left=-0.3 * positive.min())
