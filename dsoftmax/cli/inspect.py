"""`dsoftmax inspect`: shapes, chunks, classes and faults of a Zarr store."""

from __future__ import annotations

import json

import click

from dsoftmax.cli.options import (
    active_cluster,
    array_in,
    cluster_options,
    decode_option,
    values_of,
)


@click.command()
@click.argument("data")
@click.option("--x", default="X", show_default=True, help="Array of the features in DATA.")
@click.option("--y", help="Array of the labels in DATA; by default y, if there is one.")
@click.option("--sample-weight", metavar="NAME", help="Array of the weights in DATA.")
@decode_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@cluster_options
def inspect(data: str, x: str, y: str | None, sample_weight: str | None, as_json: bool) -> None:
    """Say what is in DATA, a Zarr group or an array, in one streamed pass.

    Shapes, chunks, codecs and sizes; chunks that are missing; classes and their mixture; constant
    features and missing values; and what to look after before training.
    """
    from dsoftmax.diagnostics.data_report import inspect_data
    from dsoftmax.storage.urls import names_in

    names = names_in(data)
    if names is None and (y or sample_weight):
        raise click.UsageError(f"{data} is an array; --y and --sample-weight are arrays of a group")
    labels = y or ("y" if "y" in (names or ()) else None)
    with active_cluster():
        report = inspect_data(
            data if names is None else array_in(data, x),
            None if labels is None else array_in(data, labels),
            None if sample_weight is None else array_in(data, sample_weight),
            decode=values_of("data")["decode"] is not False,
        )
    click.echo(json.dumps(report.to_dict()) if as_json else str(report))
