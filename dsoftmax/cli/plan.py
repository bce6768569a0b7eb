"""`dsoftmax plan`: what a fit would cost."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from dsoftmax.cli.model_options import estimator_of, model_options, search_options
from dsoftmax.cli.options import (
    Reading,
    active_cluster,
    cluster_options,
    data_options,
    given_workers,
)
from dsoftmax.cli.run_file import config_option, model_parameters

if TYPE_CHECKING:
    from dsoftmax.estimators.plan import Plan


@click.command()
@click.argument("data")
@config_option
@data_options
@model_options
@search_options
@click.option("--validation", metavar="STORE", help="Rows to choose one of --alphas by.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@cluster_options
def plan(data: str, validation: str | None, as_json: bool) -> None:
    """Say what training on the Zarr group DATA would cost, and start nothing.

    --workers, --threads-per-worker and --memory-limit describe the cluster to plan for;
    --scheduler and --scheduler-file name one that runs.

    Passes, bytes and tasks a pass, and memory, with the options that `dsoftmax train` takes; from
    metadata and the labels of the first rows.
    """
    result = plan_run(data, validation)
    click.echo(json.dumps(result.to_dict()) if as_json else str(result))


def plan_run(data: str, validation: str | None, checkpoint: str | None = None) -> Plan:
    """Return the plan of the fit that the options of the current command describe.

    No worker is started.
    """
    from dsoftmax.estimators.plan import plan_at
    from dsoftmax.runtime.select import location_for, location_of_workers
    from dsoftmax.training.validation import open_validation

    reading, workers = Reading.from_options(), given_workers()
    with nullcontext() if workers else active_cluster():
        source = reading.open(data)
        judges = open_validation(source, reading.open_validation(validation))
        model = estimator_of(model_parameters(), data, validation, checkpoint)
        site = location_of_workers(source, **workers) if workers else location_for(source)
        return plan_at(site, source, model, judges)
