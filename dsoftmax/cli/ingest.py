"""`dsoftmax ingest`: NumPy files, tables or another Zarr group to a Zarr store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from dsoftmax.cli.options import PlacePath
from dsoftmax.data.ingest import ingestion
from dsoftmax.storage.urls import require_lasting

EXISTING_FILE = PlacePath(exists=True, dir_okay=False, path_type=Path)


def _require_source(ctx: click.Context, param: click.Parameter, source: str) -> str:
    if "://" not in source:
        PlacePath(exists=True).convert(source, param, ctx)
    return source


@click.command()
@click.argument("source", callback=_require_source)
@click.argument("store")
@click.option("--x", metavar="NAME[,NAME...]", help="What holds X; of a table, its columns.")
@click.option("--y", metavar="NAME", help="What holds y; of a table, the column of labels.")
@click.option("--labels", type=EXISTING_FILE, help="The .npy file of y, beside a .npy file of X.")
@click.option(
    "--shuffle",
    type=click.IntRange(min=0),
    metavar="SEED",
    help="Write the rows in a random order; needs disk for all of them, decoded, meanwhile.",
)
@click.option("--chunk-rows", type=click.IntRange(min=1), help="Rows in a chunk [about 4 MiB].")
@click.option("--overwrite", is_flag=True, help="Replace the Zarr store that is at STORE.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def ingest(
    source: str,
    store: str,
    x: str | None,
    y: str | None,
    labels: Path | None,
    shuffle: int | None,
    chunk_rows: int | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Write the rows and labels of SOURCE to the Zarr group STORE, as its arrays X and y.

    X has the shape (rows, features), y one label a row. SOURCE is a .npz archive, whose members X
    and y, or X_train and y_train, are taken unless named; a .npy file of X; a .csv or .parquet
    table, or a folder of .parquet files, of which --y names the labels and --x the features, by
    default all other columns; or another Zarr group. Rows are streamed, so SOURCE may be larger
    than memory.
    """
    require_lasting(store)
    with _progress_bar(hidden=quiet or not sys.stderr.isatty()) as progress:
        destination = ingestion.ingest(
            source,
            store,
            x=x,
            y=y,
            labels=labels,
            shuffle=shuffle,
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
