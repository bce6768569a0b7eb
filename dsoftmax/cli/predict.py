"""`dsoftmax predict`: a model and a Zarr array in, a Zarr array of predictions out."""

from __future__ import annotations

import click

from dsoftmax.cli.options import active_cluster, array_in, cluster_options

_METHODS = ("predict_proba", "predict", "predict_log_proba", "decision_function")


@click.command()
@click.argument("model")
@click.argument("data")
@click.argument("out")
@click.option("--x", default="X", show_default=True, help="Array of the features in DATA.")
@click.option("--method", type=click.Choice(_METHODS), default=_METHODS[0], show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace the Zarr store that is at OUT.")
@click.option("--resume", is_flag=True, help="Go on where a run with this option was stopped.")
@cluster_options
def predict(
    model: str, data: str, out: str, x: str, method: str, overwrite: bool, resume: bool
) -> None:
    """Write what MODEL predicts for the Zarr group DATA to the Zarr array OUT."""
    from dsoftmax.estimators.load import load_model
    from dsoftmax.storage.zarr_nodes import require_apart

    require_apart(out, model, data)
    estimator = load_model(model)
    with active_cluster():
        estimator.predict_to(array_in(data, x), out, method, overwrite=overwrite, resume=resume)
    click.echo(f"{method}: {out}")
