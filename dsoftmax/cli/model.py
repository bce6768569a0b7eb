"""The options that are parameters of the estimator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click
from click.core import ParameterSource

_GIVEN = "dsoftmax.model"


class _NumberOrAuto(click.ParamType):  # type: ignore[type-arg]
    """A number, or the word "auto"."""

    name = "number or auto"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind = kind

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        if value == "auto":
            return "auto"
        try:
            return self.kind(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor 'auto'", param, ctx)


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    assert parameter.name is not None
    if ctx.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE:
        ctx.meta.setdefault(_GIVEN, {})[parameter.name] = value


model_option = partial(click.option, expose_value=False, callback=_remember)

# Each has the name of the parameter of `SoftmaxRegression`, and its default.
_OPTIONS = (
    model_option("--alpha", default=1e-4, show_default=True, help="Strength of the penalty."),
    model_option("--l1-ratio", default=0.0, show_default=True, help="Share of the L1 penalty."),
    model_option("--standardize", is_flag=True, help="Penalise standardised features."),
    model_option(
        "--no-intercept",
        "fit_intercept",
        is_flag=True,
        flag_value=False,
        default=True,
        help="Fit no intercepts.",
    ),
    model_option(
        "--balanced",
        "class_weight",
        is_flag=True,
        flag_value="balanced",
        help="Make all classes weigh the same.",
    ),
    model_option("--solver", default="auto", show_default=True, help="newton, lbfgs, sgd or adam."),
    model_option("--max-iter", default=100, show_default=True, help="Budget in passes."),
    model_option("--tol", default=1e-4, show_default=True, help="When to stop before that."),
    model_option("--batch-size", type=_NumberOrAuto(int), default="auto", show_default=True),
    model_option("--learning-rate", type=_NumberOrAuto(float), default="auto", show_default=True),
    model_option("--momentum", default=0.9, show_default=True, help="Nesterov's, of sgd."),
    model_option(
        "--early-stopping",
        is_flag=True,
        help="Stop when the validation loss no longer falls; of rows held out, or --validation.",
    ),
    model_option(
        "--validation-fraction",
        default=0.1,
        show_default=True,
        help="Share of the rows that --early-stopping holds out.",
    ),
    model_option("--seed", "random_state", type=int, help="Of the shuffles of mini-batches."),
)

# By the name of the option, where it is another one.
OPTION_NAMES = {"no_intercept": "fit_intercept", "balanced": "class_weight", "seed": "random_state"}


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command that calls `given_parameters`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def given_parameters() -> dict[str, Any]:
    """Return the parameters that were given on the command line of the current command."""
    return dict(click.get_current_context().meta.get(_GIVEN, {}))
