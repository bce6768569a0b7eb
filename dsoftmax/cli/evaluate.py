"""`dsoftmax evaluate`: how good a model is on a Zarr store."""

from __future__ import annotations

import json
from pathlib import Path

import click

from dsoftmax.cli.options import PlacePath, Reading, active_cluster, cluster_options, data_options


@click.command()
@click.argument("model")
@click.argument("data")
@data_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--plot", type=PlacePath(dir_okay=False, path_type=Path), help="Draw confusion, reliability."
)
@cluster_options
def evaluate(model: str, data: str, as_json: bool, plot: Path | None) -> None:
    """Evaluate MODEL on the Zarr group DATA, in one streamed pass."""
    from dsoftmax.diagnostics import plot_scores
    from dsoftmax.diagnostics.style import check_plot
    from dsoftmax.estimators.load import load_model

    if plot is not None:
        check_plot(plot)
    estimator = load_model(model)
    with active_cluster():
        scores = estimator.evaluate(
            Reading.from_options().open(data, decode=getattr(estimator, "_decode", True))
        )
    if plot is not None:
        plot_scores(scores, plot)
    click.echo(json.dumps(scores.to_dict()) if as_json else str(scores))
