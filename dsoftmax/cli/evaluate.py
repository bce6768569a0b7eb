"""`dsoftmax evaluate`: how good a model is on a Zarr store."""

from __future__ import annotations

import json

import click

from dsoftmax.cli.cluster import active_cluster, cluster_options
from dsoftmax.cli.data import data_options, opened


@click.command()
@click.argument("model")
@click.argument("data")
@data_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@cluster_options
def evaluate(
    model: str,
    data: str,
    x: str,
    y: str,
    sample_weight: str | None,
    ignore_label: str | None,
    drop_missing: bool,
    dtype: str | None,
    as_json: bool,
) -> None:
    """Evaluate MODEL on the Zarr group DATA, in one streamed pass."""
    from dsoftmax.modelfile import load_model

    estimator = load_model(model)
    with active_cluster():
        metrics = estimator.evaluate(
            opened(data, x, y, sample_weight, ignore_label, drop_missing, dtype)
        )
    if as_json:
        click.echo(json.dumps(metrics))
        return
    for name, value in metrics.items():
        click.echo(f"{name:<10} {value:,}" if isinstance(value, int) else f"{name:<10} {value:.6f}")
