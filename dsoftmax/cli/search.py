"""The options of a search for the penalty, and the estimator that they ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from dsoftmax.cli.data import array_in
from dsoftmax.cli.model import OPTION_NAMES, model_option
from dsoftmax.errors import DataError

if TYPE_CHECKING:
    from dsoftmax.estimators.classifier import SoftmaxRegression
    from dsoftmax.estimators.classifier_cv import SoftmaxRegressionCV
    from dsoftmax.events import Callback

    Estimator = SoftmaxRegression | SoftmaxRegressionCV


class _CountOrNumbers(click.ParamType):  # type: ignore[type-arg]
    """A whole number, or numbers with commas between them."""

    name = "number or numbers"

    def __init__(self, *, counts: bool) -> None:
        self.counts = counts

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | list[float]:
        try:
            if self.counts and value.isdecimal():
                return int(value)
            return [float(part) for part in value.split(",")]
        except ValueError:
            how_many = "how many, or " if self.counts else ""
            self.fail(f"{value!r} is not {how_many}numbers such as 1e-4,1e-3", param, ctx)


class _CountOrName(click.ParamType):  # type: ignore[type-arg]
    """A whole number, or the name of an array."""

    name = "number or name"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        return int(value) if value.isdecimal() else str(value)


_OPTIONS = (
    model_option(
        "--alphas",
        metavar="N|A,B,...",
        type=_CountOrNumbers(counts=True),
        help="Choose the strength of the penalty among N along a path, or among these.",
    ),
    model_option(
        "--l1-ratios",
        metavar="A,B,...",
        type=_CountOrNumbers(counts=False),
        help="Shares of the L1 penalty to try with each of --alphas.",
    ),
    model_option(
        "--cv",
        metavar="N|NAME",
        type=_CountOrName(),
        help="Choose by N folds (5), or those that an array in DATA names; else by --validation.",
    ),
    model_option("--scoring", help="Choose by neg_log_loss (the default) or accuracy."),
    model_option(
        "--select", help='"1se": the largest alpha within a standard error of the "best".'
    ),
    model_option(
        "--no-prune",
        "prune",
        is_flag=True,
        flag_value=False,
        default=True,
        help="Follow those alphas to the end, too, that cannot win any more.",
    ),
    model_option(
        "--no-refit",
        "refit",
        is_flag=True,
        flag_value=False,
        default=True,
        help="Write the mean over the folds, and fit no model to all rows.",
    ),
)
_SEARCH = "alphas"  # what makes it a search
_HINTS = {
    "alpha": "--alphas says which strengths are tried",
    "l1_ratio": "--l1-ratios says which shares are tried",
    "early_stopping": "its models are followed to their minima, or until they cannot win",
}
_STEPS = "it makes full passes, in which all models share what is read, and no mini-batches"


def search_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command that calls `estimator_of`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def estimator_of(
    parameters: Mapping[str, Any],
    data: str,
    validation: str | None,
    checkpoint: str | None = None,
    callbacks: Sequence[Callback] = (),
    verbose: int = 0,
) -> Estimator:
    """Return the estimator that the parameters are of: a search if they have alphas.

    Parameters
    ----------
    parameters : those that were given
    data, validation : groups of rows to learn from, and to choose by
    checkpoint, callbacks, verbose : of the estimator

    Raises
    ------
    DataError
        If they are not all of the same one.
    """
    from dsoftmax.estimators.classifier import SoftmaxRegression
    from dsoftmax.estimators.classifier_cv import SoftmaxRegressionCV

    watched: dict[str, Any] = {"checkpoint": checkpoint, "callbacks": callbacks, "verbose": verbose}
    if not is_search(parameters):
        _require_known(parameters, SoftmaxRegression(), "only a search has it, by --alphas N")
        return SoftmaxRegression(**parameters, **watched)
    _require_known(parameters, SoftmaxRegressionCV(), None)
    cv = _cv(parameters, data, validation)
    return SoftmaxRegressionCV(**{**parameters, "cv": cv}, **watched)


def is_search(parameters: Mapping[str, Any]) -> bool:
    """Whether parameters ask for a search."""
    return parameters.get(_SEARCH) is not None


def _require_known(parameters: Mapping[str, Any], estimator: Estimator, hint: str | None) -> None:
    known = estimator.get_params(deep=False)
    for name in parameters:
        if name not in known:
            why = hint or f"a search (--alphas) has no use for it: {_HINTS.get(name, _STEPS)}"
            raise DataError(f"{_option_of(name)} is given, and {why}; drop it")


def _option_of(name: str) -> str:
    """Return what a parameter is called on the command line."""
    options = {parameter: option for option, parameter in OPTION_NAMES.items()}
    if name in ("prune", "refit"):
        return f"--no-{name}"
    return f"--{options.get(name, name).replace('_', '-')}"


def _cv(parameters: Mapping[str, Any], data: str, validation: str | None) -> int | str | None:
    """Return how many folds there are, or where they are stored; None for rows that judge."""
    found = parameters.get("cv")
    if found is not None and validation is not None:
        raise DataError(
            f"--cv is {found}, and --validation is {validation}; give the one to choose by"
        )
    if found is None:
        return 5 if validation is None else None
    return array_in(data, found) if isinstance(found, str) else found
