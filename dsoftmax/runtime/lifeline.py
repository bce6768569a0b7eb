"""Dask preload that ends a scheduler or nanny of the embedded cluster with its parent process."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import click
from distributed import Nanny, Scheduler

_POLL_SECONDS = 0.5


@click.command()
@click.argument("parent", type=int)
@click.argument("folder", type=click.Path(path_type=Path))
def dask_setup(server: Scheduler | Nanny, parent: int, folder: Path) -> None:
    """Watch the parent from now on, and end with it however it ends.

    Parameters
    ----------
    server : Scheduler or Nanny
        What this process runs; Dask ends a nanny's worker with its nanny.
    parent : int
        Process id of the parent, which may be dead already.
    folder : Path
        Private folder of the cluster, removed if the parent did not live to do it.
    """
    threading.Thread(target=_die_with, args=(parent, folder), daemon=True).start()


def _die_with(parent: int, folder: Path) -> None:
    # Polled, since only Linux can be asked for a signal at the death of a parent.
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
