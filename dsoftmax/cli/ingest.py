"""`dsoftmax ingest`: NumPy files to a Zarr store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from dsoftmax import ingestion

EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("source", type=EXISTING_FILE)
@click.argument("store")
@click.option("--x", metavar="NAME", help="Member of the archive that holds X.")
@click.option("--y", metavar="NAME", help="Member of the archive that holds y.")
@click.option("--labels", type=EXISTING_FILE, help="The .npy file of y, beside a .npy file of X.")
@click.option("--chunk-rows", type=click.IntRange(min=1), help="Rows in a chunk [about 4 MiB].")
@click.option("--overwrite", is_flag=True, help="Replace the Zarr store that is at STORE.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def ingest(
    source: Path,
    store: str,
    x: str | None,
    y: str | None,
    labels: Path | None,
    chunk_rows: int | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Write the arrays of SOURCE, a .npz or .npy file, to the Zarr group STORE.

    X has the shape (rows, features), y one label a row. In a .npz archive they are the members X
    and y, or X_train and y_train, unless named. Rows are streamed, so SOURCE may be larger than
    memory.
    """
    with _progress_bar(hidden=quiet or not sys.stderr.isatty()) as progress:
        destination = ingestion.ingest(
            source,
            store,
            x=x,
            y=y,
            labels=labels,
            chunk_rows=chunk_rows,
            overwrite=overwrite,
            progress=progress,
        )
    if not quiet:
        click.echo(ingestion.summarize(destination))


@contextmanager
def _progress_bar(hidden: bool) -> Iterator[Callable[[int, int], None] | None]:
    if hidden:
        yield None
        return
    with click.progressbar(length=1, label="ingest", file=sys.stderr) as bar:

        def advance(rows_done: int, rows_total: int) -> None:
            bar.length = rows_total
            bar.update(rows_done - bar.pos)

        yield advance
