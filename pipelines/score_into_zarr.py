"""Score an array of any size into a Zarr store, and go on where it was stopped.

    python pipelines/score_into_zarr.py [ROWS] [FOLDER]

Run it, press Ctrl-C, and run it again: chunks that are written are not computed anew. The scores
appear under their name when they are complete, chunked as X along the rows, with checksums.
"""

from __future__ import annotations

import sys
from pathlib import Path

import dask.array as da
from dask_ml.datasets import make_blobs

from dsoftmax import SoftmaxRegression, load_model

FEATURES, CLASSES, CHUNK = 64, 8, 50_000


def prepare(folder: Path, rows: int) -> None:
    """Write what there would be already: rows, and a model of some that have labels."""
    X, y = make_blobs(
        rows, FEATURES, centers=CLASSES, cluster_std=12.0, random_state=0, chunks=CHUNK
    )
    da.to_zarr(X.astype("float32"), str(folder / "rows.zarr"), component="X", mode="w")
    labelled = slice(0, min(rows, 20_000))
    model = SoftmaxRegression(alpha=1e-3, tol=1e-2).fit(X[labelled], y[labelled])
    model.save(folder / "model.zarr", overwrite=True)


def main(rows: int, folder: Path) -> None:
    """Prepare once, score, and read a little of the result."""
    if not (folder / "model.zarr").exists():
        prepare(folder, rows)
    model = load_model(folder / "model.zarr")
    out = folder / "probabilities.zarr"
    model.predict_to(folder / "rows.zarr" / "X", out, "predict_proba", resume=True)

    p = da.from_zarr(str(out))
    unsure = (p.max(axis=1) < 0.5).sum().compute()
    print(f"{out}: {p.shape[0]:,} rows, {p.shape[1]} classes, {p.nbytes / 2**20:,.0f} MiB")
    print(f"{unsure:,} rows have no class of probability 0.5: label these next")


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 5_000_000,
        Path(sys.argv[2] if len(sys.argv) > 2 else "scores"),
    )
