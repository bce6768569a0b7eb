"""dask-ml's StandardScaler in front of the model, on a lazy Dask array over a Zarr store.

    python pipelines/standard_scaler.py [ROWS] [FOLDER]

The penalty weighs all coefficients alike. A feature in kilometres needs a coefficient a thousand
times that of the same feature in metres, and is penalised out of the model. Scaled, all count
the same. Nothing is stored twice: rows are read, split and scaled where they are reduced.
"""

from __future__ import annotations

import sys
from pathlib import Path

import dask.array as da
import numpy as np
from dask_ml.datasets import make_classification
from dask_ml.model_selection import train_test_split
from dask_ml.preprocessing import StandardScaler
from distributed import Client

from dsoftmax import SoftmaxRegression

FEATURES = 20
ALPHA = 1e-3


def write_data(store: str, rows: int) -> None:
    """Write 20 features, in units from thousandths to thousands, and labels they decide."""
    X, y = make_classification(
        rows, FEATURES, n_informative=10, scale=4.0, chunks=(rows // 10, FEATURES), random_state=0
    )
    da.to_zarr(X * np.logspace(-3, 3, FEATURES), store, component="X", mode="w")
    da.to_zarr(y, store, component="y", mode="w")


def main(rows: int, folder: Path) -> None:
    """Write the data, split them, and fit with and without scaling."""
    store = str(folder / "data.zarr")
    with Client(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"):
        write_data(store, rows)
        X, y = da.from_zarr(store, component="X"), da.from_zarr(store, component="y")
        X_train, X_test, y_train, y_test = train_test_split(
            X, y, test_size=0.2, shuffle=True, random_state=0
        )

        model = SoftmaxRegression(alpha=ALPHA).fit(X_train, y_train)
        print(f"as they are: test accuracy {model.score(X_test, y_test):.3f}")

        scaler = StandardScaler().fit(X_train)
        model = SoftmaxRegression(alpha=ALPHA).fit(scaler.transform(X_train), y_train)
        print(f"scaled:      test accuracy {model.score(scaler.transform(X_test), y_test):.3f}")


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 200_000,
        Path(sys.argv[2] if len(sys.argv) > 2 else "standard_scaler"),
    )
