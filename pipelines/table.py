"""A table in Parquet to a model: streamed into Zarr, scaled by dask-ml, fitted, evaluated.

    python pipelines/table.py [ROWS] [FOLDER]

The rows are shuffled on their way into the store, so that each chunk is a mixture. The scaler's
means are one pass over it, and the scaled rows exist only block by block. The table here is
synthetic; `ingest` takes a file or a folder of files, and every column but y as a feature.
"""

from __future__ import annotations

import sys
from pathlib import Path

import dask.array as da
import numpy as np
from dask_ml.datasets import make_classification_df
from dask_ml.model_selection import train_test_split
from dask_ml.preprocessing import StandardScaler

from dsoftmax import SoftmaxRegression, ingest

FEATURES = 20


def write_table(folder: Path, rows: int) -> None:
    """Write Parquet files with columns of very different units, and the column "target"."""
    X, y = make_classification_df(
        rows, FEATURES, chunks=max(rows // 8, 1), n_informative=8, scale=4.0, random_state=0
    )
    table = (X * np.logspace(-2, 2, FEATURES)).assign(target=y)
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(table.partitions):
        part.compute().to_parquet(folder / f"part-{number}.parquet", index=False)


def main(rows: int, folder: Path) -> None:
    """Make the table, bring it into Zarr, and fit and score behind the scaler."""
    write_table(folder / "table", rows)
    store = ingest(
        folder / "table",
        folder / "table.zarr",
        y="target",
        shuffle=0,
        overwrite=True,
        chunk_rows=max(rows // 20, 1),
    )

    X = da.from_zarr(str(store), component="X")
    y = da.from_zarr(str(store), component="y").rechunk(X.chunks[0])  # the split is by chunk
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.2, shuffle=True, random_state=0
    )
    scaler = StandardScaler().fit(X_train)
    model = SoftmaxRegression(alpha=1e-3, tol=1e-3).fit(scaler.transform(X_train), y_train)
    print(model.evaluate(scaler.transform(X_test), y_test))


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 500_000,
        Path(sys.argv[2] if len(sys.argv) > 2 else "table"),
    )
