"""`dsoftmax train`: a Zarr store in, a model out."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dsoftmax.cli.cluster import cluster_options
from dsoftmax.cli.data import data_options, opened
from dsoftmax.cli.job import Job, interruptible
from dsoftmax.cli.model import model_options
from dsoftmax.cli.runfile import config_option, model_parameters
from dsoftmax.cli.runfolder import RunFolder
from dsoftmax.cli.search import search_options


@click.command()
@click.argument("data")
@click.argument("model", required=False)
@config_option
@data_options
@model_options
@search_options
@click.option(
    "--checkpoint", metavar="PLACE", help="Folder or URL to keep the state in, and go on from."
)
@click.option(
    "--run-folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep model, history, plan, log, configuration and checkpoint in this folder.",
)
@click.option(
    "--validation",
    metavar="STORE",
    help="Zarr group of other rows, like DATA, to evaluate the model on after every pass, or to "
    "choose one of --alphas by.",
)
@click.option(
    "--skip-bad-chunks",
    "max_bad_chunks",
    metavar="N",
    type=click.IntRange(min=1),
    help="Leave out up to N chunks that cannot be read.",
)
@click.option("--overwrite", is_flag=True, help="Replace the Zarr store that is at MODEL.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and refuse what cannot work.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the run; with --alphas, what each of them comes to.",
)
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print events as lines of JSON.")
@click.option("--log", type=click.Path(dir_okay=False), help="Append events to a file, as --json.")
@cluster_options
def train(
    data: str,
    model: str | None,
    x: str,
    y: str,
    sample_weight: str | None,
    ignore_label: str | None,
    drop_missing: bool,
    dtype: str | None,
    checkpoint: str | None,
    run_folder: Path | None,
    validation: str | None,
    max_bad_chunks: int | None,
    overwrite: bool,
    dry_run: bool,
    plot: Path | None,
    quiet: bool,
    as_json: bool,
    log: str | None,
) -> None:
    """Train on the Zarr group DATA and write the model to MODEL.

    DATA holds the arrays X (rows, features) and y (rows,), as `dsoftmax ingest` writes them. They
    are streamed, and may be larger than memory. With --checkpoint or --run-folder, a run that was
    stopped by SIGTERM or Ctrl-C, or by an outage, ends with exit code 75, and goes on when it is
    run again. With --run-folder, MODEL is model.zarr in there by default. With --alphas, the
    strength of the penalty is chosen in the passes of one run, and MODEL is the winner.
    """
    folder = None if run_folder is None else RunFolder(run_folder)
    model = model or (folder.model if folder else None)
    checkpoint = checkpoint or (folder.checkpoint if folder else None)
    if model is None:
        raise click.UsageError("Missing argument 'MODEL', or --run-folder instead.")
    reading = (x, y, sample_weight, ignore_label, drop_missing, dtype)
    events = tuple(to for to in (log, sys.stdout if as_json else None) if to)
    job = Job(
        data,
        lambda: opened(data, *reading, max_bad_chunks),
        validation,
        lambda: None if validation is None else opened(validation, *reading),
        model_parameters(),
        model,
        checkpoint,
        folder,
        overwrite,
        plot,
        quiet or as_json,
        events,
    )
    with interruptible():
        job.require_possible()
        if dry_run:
            click.echo(str(job.plan()))
        else:
            job.run()
