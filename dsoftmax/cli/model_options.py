"""The options that are parameters of an estimator, and the estimator that they ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from dsoftmax.cli.options import all_of, array_in, option_of
from dsoftmax.errors import DataError, quoted

if TYPE_CHECKING:
    from dsoftmax.estimators.classifier import SoftmaxRegression
    from dsoftmax.estimators.classifier_cv import SoftmaxRegressionCV
    from dsoftmax.events import Callback

    Estimator = SoftmaxRegression | SoftmaxRegressionCV


def _number_or_auto(kind: type[int] | type[float]) -> Callable[[str], float | str]:
    def convert(text: str) -> float | str:
        try:
            return text if text == "auto" else kind(text)
        except ValueError:
            raise click.BadParameter(f"{quoted(text)} is neither a number nor 'auto'") from None

    return convert


def _numbers(text: str, hint: str = "") -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{quoted(text)} is not {hint}numbers such as 1e-4,1e-3") from None


def _count_or_numbers(text: str) -> int | list[float]:
    return int(text) if text.isdecimal() else _numbers(text, "how many, or ")


def _count_or_name(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


_option = option_of("model")
_auto_option = partial(_option, metavar="NUMBER OR AUTO", default="auto", show_default=True)
_off_switch = partial(_option, is_flag=True, flag_value=False, default=True)

# Each has the name of a parameter of `SoftmaxRegression`, and its default.
model_options = all_of(
    _option("--alpha", default=1e-4, show_default=True, help="Strength of the penalty."),
    _option("--l1-ratio", default=0.0, show_default=True, help="Share of the L1 penalty."),
    _option("--standardize", is_flag=True, help="Penalise standardised features."),
    _off_switch("--no-intercept", "fit_intercept", help="Fit no intercepts."),
    _option(
        "--balanced",
        "class_weight",
        is_flag=True,
        flag_value="balanced",
        help="Make all classes weigh the same.",
    ),
    _option("--solver", default="auto", show_default=True, help="newton, lbfgs, sgd or adam."),
    _option("--max-iter", default=100, show_default=True, help="Budget in passes."),
    _option("--tol", default=1e-4, show_default=True, help="When to stop before that."),
    _auto_option("--batch-size", type=_number_or_auto(int)),
    _auto_option("--learning-rate", type=_number_or_auto(float)),
    _option("--momentum", default=0.9, show_default=True, help="Nesterov's, of sgd."),
    _option(
        "--early-stopping",
        is_flag=True,
        help="Stop when the validation loss no longer falls; of rows held out, or --validation.",
    ),
    _option(
        "--validation-fraction",
        default=0.1,
        show_default=True,
        help="Share of the rows that --early-stopping holds out.",
    ),
    _option("--seed", "random_state", type=int, help="Of the shuffles of mini-batches."),
)

# Each has the name of a parameter of `SoftmaxRegressionCV`.
search_options = all_of(
    _option(
        "--alphas",
        metavar="N|A,B,...",
        type=_count_or_numbers,
        help="Choose the strength of the penalty among N along a path, or among these.",
    ),
    _option(
        "--l1-ratios",
        metavar="A,B,...",
        type=_numbers,
        help="Shares of the L1 penalty to try with each of --alphas.",
    ),
    _option(
        "--cv",
        metavar="N|NAME",
        type=_count_or_name,
        help="Choose by N folds (5), or those that an array in DATA names; else by --validation.",
    ),
    _option("--scoring", help="Choose by neg_log_loss (the default) or accuracy."),
    _option("--select", help='"1se": the largest alpha within a standard error of the "best".'),
    _off_switch(
        "--no-prune",
        "prune",
        help="Follow those alphas to the end, too, that cannot win any more.",
    ),
    _off_switch(
        "--no-refit",
        "refit",
        help="Write the mean over the folds, and fit no model to all rows.",
    ),
)

# Parameters by the names of their options, where these differ.
PARAMETERS = {
    "no_intercept": "fit_intercept",
    "balanced": "class_weight",
    "seed": "random_state",
    "no_prune": "prune",
    "no_refit": "refit",
}
_HINTS = {
    "alpha": "--alphas says which strengths are tried",
    "l1_ratio": "--l1-ratios says which shares are tried",
    "early_stopping": "its models are followed to their minima, or until they cannot win",
}
_NO_STEPS = "it makes full passes, in which all models share what is read, and no mini-batches"


def estimator_of(
    parameters: Mapping[str, Any],
    data: str,
    validation: str | None,
    checkpoint: str | None = None,
    callbacks: Sequence[Callback] = (),
    verbose: int = 0,
) -> Estimator:
    """Return the estimator of the parameters: a search if alphas are among them.

    Parameters
    ----------
    parameters : those that were given
    data, validation : paths or URLs of groups of rows
    checkpoint, callbacks, verbose : of the estimator

    Raises
    ------
    DataError
        If the estimator does not have one of the parameters.
    """
    from dsoftmax.estimators.classifier import SoftmaxRegression
    from dsoftmax.estimators.classifier_cv import SoftmaxRegressionCV

    common: dict[str, Any] = {"checkpoint": checkpoint, "callbacks": callbacks, "verbose": verbose}
    if not is_search(parameters):
        _require_known(parameters, SoftmaxRegression(), "only a search has it, by --alphas N")
        return SoftmaxRegression(**parameters, **common)
    _require_known(parameters, SoftmaxRegressionCV(), None)
    cv = _cv(parameters, data, validation)
    return SoftmaxRegressionCV(**{**parameters, "cv": cv}, **common)


def is_search(parameters: Mapping[str, Any]) -> bool:
    """Return whether parameters ask for a search."""
    return parameters.get("alphas") is not None


def _require_known(parameters: Mapping[str, Any], estimator: Estimator, hint: str | None) -> None:
    known = estimator.get_params(deep=False)
    options = {parameter: option for option, parameter in PARAMETERS.items()}
    for name in parameters:
        if name not in known:
            option = options.get(name, name).replace("_", "-")
            why = hint or f"a search (--alphas) has no use for it: {_HINTS.get(name, _NO_STEPS)}"
            raise DataError(f"--{option} is given, and {why}; drop it")


def _cv(parameters: Mapping[str, Any], data: str, validation: str | None) -> int | str | None:
    """Return the number of folds or the array that holds them; None for validation rows."""
    cv = parameters.get("cv")
    if cv is not None and validation is not None:
        raise DataError(
            f"--cv is {cv}, and --validation is {validation}; give the one to choose by"
        )
    if cv is None:
        return 5 if validation is None else None
    return array_in(data, cv) if isinstance(cv, str) else cv
