"""`dsoftmax predict`: a model and a Zarr array in, a Zarr array of predictions out."""

from __future__ import annotations

from typing import Any

import click

from dsoftmax.cli.options import (
    active_cluster,
    array_in,
    cluster_options,
    decode_option,
    values_of,
)
from dsoftmax.errors import DataError, quoted
from dsoftmax.storage.credentials import public_url

_METHODS = ("predict_proba", "predict", "predict_log_proba", "decision_function")


@click.command()
@click.argument("model")
@click.argument("data")
@click.argument("out")
@click.option("--x", default="X", show_default=True, help="Array of the features in DATA.")
@click.option("--method", type=click.Choice(_METHODS), default=_METHODS[0], show_default=True)
@click.option(
    "--missing-label",
    metavar="LABEL",
    help="What `--method predict` gives rows with a missing value, such as -1. By default they are "
    "an error; the other methods give them NaN.",
)
@click.option(
    "--drop-missing",
    is_flag=True,
    help="Same as the default: rows with a missing value keep their places. With --method predict, "
    "--missing-label is required.",
)
@decode_option
@click.option("--overwrite", is_flag=True, help="Replace the Zarr store that is at OUT.")
@click.option("--resume", is_flag=True, help="Go on where a run with this option was stopped.")
@cluster_options
def predict(
    model: str,
    data: str,
    out: str,
    x: str,
    method: str,
    missing_label: str | None,
    drop_missing: bool,
    overwrite: bool,
    resume: bool,
) -> None:
    """Write what MODEL predicts for the Zarr group DATA to the Zarr array OUT.

    Missing in, missing out: rows with a NaN, an infinity or a value that the attributes of the
    array mark as missing get NaN, or the label that --missing-label names.
    """
    if drop_missing and method == "predict" and missing_label is None:
        raise click.UsageError(
            "--drop-missing with --method predict needs --missing-label LABEL: rows with a missing "
            "value stay in their places, and need a label"
        )
    from dsoftmax.data.opening import open_data
    from dsoftmax.estimators.load import load_model
    from dsoftmax.estimators.predict_to import is_predicted
    from dsoftmax.storage.urls import require_lasting
    from dsoftmax.storage.zarr_nodes import require_apart

    require_lasting(out)
    require_apart(out, model, data)
    estimator = load_model(model)
    label = None if missing_label is None else _as_label(missing_label, estimator.classes_)
    rows, decode = array_in(data, x), values_of("data")["decode"]
    source = rows if decode is None else open_data(rows, decode=decode)
    try:
        if resume and is_predicted(estimator, source, out, method, label):
            click.echo(f"{out} is complete: nothing was left to do", err=True)
        else:
            with active_cluster():
                estimator.predict_to(
                    source, out, method, overwrite=overwrite, resume=resume, missing_label=label
                )
    except DataError as error:
        if missing_label is None and "missing_label=" in str(error):
            raise DataError(f"{error}; on the command line: --missing-label LABEL") from error
        raise
    click.echo(f"{method}: {public_url(out)}")


def _as_label(text: str, classes: Any) -> Any:
    """Return a label in the kind of the classes: a string, an integer, or a float such as nan."""
    if classes.dtype.kind in "US":
        return text if classes.dtype.kind == "U" else text.encode()
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    raise DataError(
        f"--missing-label is {quoted(text)}, and the classes are {classes.dtype}; expected a number"
    )
