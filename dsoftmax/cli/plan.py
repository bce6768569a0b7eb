"""`dsoftmax plan`: what a fit would cost."""

from __future__ import annotations

import json

import click

from dsoftmax.cli.cluster import active_cluster, cluster_options
from dsoftmax.cli.data import data_options, opened
from dsoftmax.cli.model import model_options
from dsoftmax.cli.runfile import config_option, model_parameters
from dsoftmax.cli.search import estimator_of, search_options


@click.command()
@click.argument("data")
@config_option
@data_options
@model_options
@search_options
@click.option("--validation", metavar="STORE", help="Rows to choose one of --alphas by.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@cluster_options
def plan(
    data: str,
    x: str,
    y: str,
    sample_weight: str | None,
    ignore_label: str | None,
    drop_missing: bool,
    dtype: str | None,
    validation: str | None,
    as_json: bool,
) -> None:
    """Say what training on the Zarr group DATA would cost, and start nothing.

    Passes, bytes and tasks a pass, and memory, with the options that `dsoftmax train` takes; from
    metadata and the labels of the first rows.
    """
    from dsoftmax.estimators.plan import plan_fit

    with active_cluster():
        source = opened(data, x, y, sample_weight, ignore_label, drop_missing, dtype)
        found = plan_fit(source, model=estimator_of(model_parameters(), data, validation))
    click.echo(json.dumps(found.to_dict()) if as_json else str(found))
