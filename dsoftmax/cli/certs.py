"""`dsoftmax certs`: the certificate that clients of a cluster need."""

from __future__ import annotations

from pathlib import Path

import click

from dsoftmax.cli.options import PlacePath


@click.command()
@click.argument("folder", type=PlacePath(file_okay=False, path_type=Path))
@click.option("--days", default=365, show_default=True, type=click.IntRange(min=1), help="Valid.")
@click.option(
    "--at",
    metavar="PATH",
    type=PlacePath(path_type=Path),
    help="Where the cluster will see FOLDER, as a volume, say; by default where it is.",
)
def certs(folder: Path, days: int, at: Path | None) -> None:
    """Make the certificate and the private key of a cluster, in FOLDER.

    Scheduler, workers and clients use the same; whoever can read FOLDER/tls.key can run code on
    the cluster, and no one else can. Dask's own commands find them by
    DASK_CONFIG=FOLDER/dask.yaml, and those of dsoftmax by --certs FOLDER too.
    """
    from dsoftmax.runtime.tls import CERTIFICATE, CONFIGURATION, KEY, write_certificates

    write_certificates(folder, days, at)
    click.echo(f"private key, to be kept secret: {folder / KEY}")
    click.echo(f"certificate, for {days} days: {folder / CERTIFICATE}")
    click.echo(f"for Dask: export DASK_CONFIG={(at or folder.resolve()) / CONFIGURATION}")
