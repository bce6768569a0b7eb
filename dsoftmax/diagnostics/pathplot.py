"""A picture of a search: what each penalty makes of rows held out, and of the coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from dsoftmax.diagnostics.axes import head, scale, tidy
from dsoftmax.diagnostics.palette import BLUE, GREEN, INK, ORANGE, SLATE
from dsoftmax.diagnostics.plot import check_plot
from dsoftmax.model_selection.path import Candidates, chosen

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = (BLUE, ORANGE, GREEN, SLATE)


def draw_path(model: Any, ax: Axes | Sequence[Axes] | None) -> Figure:
    """Draw the path of a fitted search, as `SoftmaxRegressionCV.plot_path` says."""
    check_plot()
    upper, lower = _axes(ax)
    _draw_scores(model, upper)
    if lower is not None:
        _draw_norms(model, lower)
    for axes in filter(None, (upper, lower)):
        _scale_alphas(axes, model.alphas_)
        tidy(axes)
    (lower or upper).set_xlabel("alpha", color=INK)
    figure = upper.get_figure(root=True)
    assert figure is not None, "axes are on a figure"
    return figure


def _axes(ax: Axes | Sequence[Axes] | None) -> tuple[Axes, Axes | None]:
    """Return where the scores go, and the norms."""
    if ax is None:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
        figure = Figure(figsize=(8, 6), dpi=150, layout=layout)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        return upper, lower
    if isinstance(ax, Sequence | np.ndarray):
        upper, lower = ax
        return upper, lower
    return ax, None


def _draw_scores(model: Any, axes: Axes) -> None:
    """Draw the mean over the folds with its standard error, and who wins."""
    is_loss = model.scoring == "neg_log_loss"
    scores = -model.scores_ if is_loss else model.scores_
    means, errors = scores.mean(axis=0), _standard_errors(scores)
    for index, (alphas, label, color) in enumerate(_lines(model)):
        ended = model.converged_[:, index].all(axis=0)
        axes.errorbar(
            alphas,
            means[index],
            errors[index],
            color=color,
            lw=1.5,
            elinewidth=1.0,
            capsize=2.5,
            label=label,
        )
        for those, face in ((ended, color), (~ended, "white")):
            axes.plot(
                alphas[those], means[index][those], "o", ms=5, color=color, mfc=face, zorder=3
            )
    name = "held-out loss" if is_loss else "held-out accuracy"
    if is_loss:
        scale(axes, means[np.isfinite(means)].tolist())
    head(axes, name, _mark(model, means, axes))
    axes.legend(framealpha=1, edgecolor="none", fontsize=8.5, labelcolor=INK)


def _mark(model: Any, means: Any, axes: Axes) -> str:
    """Mark the winner, and what one standard error would choose; return it in words."""
    found = _candidates(model)
    scores = model.scores_.reshape(len(model.scores_), -1)
    text = f"chosen: alpha {model.alpha_:.3g}"
    for select, style in (("best", "-"), ("1se", "--")):
        if select == "1se" and len(scores) == 1:
            continue
        alpha, l1_ratio = found.pairs[chosen(scores, found, select)]
        label = f"{'best' if select == 'best' else 'one standard error'}: {alpha:.3g}"
        axes.axvline(alpha, ls=style, lw=1.0, color=INK, zorder=1, label=label)
        if (alpha, l1_ratio) == (model.alpha_, model.l1_ratio_):
            value = means.ravel()[found.pairs.index((alpha, l1_ratio))]
            axes.plot([alpha], [value], "o", ms=11, mfc="none", mec=INK, mew=1.5, zorder=4)
            text = f"chosen: {value:.4f} at alpha {alpha:.3g}"
    return text if len(model.l1_ratios_) == 1 else f"{text}, l1_ratio {model.l1_ratio_:g}"


def _draw_norms(model: Any, axes: Axes) -> None:
    """Draw the mean over the folds of the norms of all coefficients but the intercepts."""
    norms = np.sqrt(np.square(model.coefs_paths_[..., :-1]).sum(axis=(-2, -1))).mean(axis=0)
    for index, (alphas, _, color) in enumerate(_lines(model)):
        axes.plot(alphas, norms[index], "o-", ms=3.5, lw=1.5, color=color)
    scale(axes, norms.ravel().tolist())
    head(axes, "norm of the coefficients", "L2, in units of the data")


def _lines(model: Any) -> Any:
    """Return for each share of the L1 penalty its alphas, its name and its color."""
    alphas = _candidates(model).alphas
    labels = [f"l1_ratio {ratio:g}" for ratio in model.l1_ratios_]
    return zip(alphas, labels if len(labels) > 1 else [None], cycle(_COLORS), strict=False)


def _candidates(model: Any) -> Candidates:
    alphas = np.broadcast_to(model.alphas_, model.scores_.shape[1:])
    return Candidates(model.l1_ratios_, alphas)


def _standard_errors(scores: Any) -> Any:
    """Return those of the means over the folds, None for a single one."""
    if len(scores) == 1:
        return [None] * scores.shape[1]
    return scores.std(axis=0, ddof=1) / np.sqrt(len(scores))


def _scale_alphas(axes: Axes, alphas: Any) -> None:
    positive = alphas[alphas > 0]
    if len(positive) == alphas.size:
        axes.set_xscale("log")
    elif len(positive):
        axes.set_xscale("symlog", linthresh=positive.min())
        axes.set_xlim(left=-0.3 * positive.min())
