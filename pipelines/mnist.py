"""MNIST from a `.npz` file to a trained and evaluated model, every step streamed.

    python pipelines/mnist.py mnist.npz [FOLDER]

The file holds X_train (60000, 784) uint8, y_train, X_test and y_test. Nothing here loads an
array whole: the same script trains on a file of a terabyte.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from distributed import Client
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import SoftmaxRegression, ingest, load_model

# The pixels stay the bytes that they are. To penalise the coefficients of x / 255 with
# strength 1e-4 is to penalise those of x with 255^2 as much.
ALPHA = 1e-4 * 255**2


def main(archive: Path, folder: Path) -> None:
    """Ingest, train, evaluate, save, and load again."""
    folder.mkdir(parents=True, exist_ok=True)
    train = ingest(archive, folder / "train.zarr", x="X_train", y="y_train", overwrite=True)
    test = ingest(archive, folder / "test.zarr", x="X_test", y="y_test", overwrite=True)

    with Client(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"):
        model = SoftmaxRegression(alpha=ALPHA, max_iter=120, verbose=1)
        model.fit(f"{train}/X", f"{train}/y")
        metrics = model.evaluate(f"{test}/X", f"{test}/y")

        model.save(folder / "model.zarr", overwrite=True)
        again = load_model(folder / "model.zarr")
        again.predict_to(f"{test}/X", folder / "probabilities.zarr", overwrite=True)

    print(f"test accuracy {metrics['accuracy']:.4f}, log loss {metrics['log_loss']:.4f}")
    print(f"model {folder / 'model.zarr'}, probabilities {folder / 'probabilities.zarr'}")


if __name__ == "__main__":
    # At 120 passes the test accuracy no longer changes; that the optimum is farther is no news.
    warnings.simplefilter("ignore", ConvergenceWarning)
    if len(sys.argv) < 2:
        sys.exit("usage: python pipelines/mnist.py mnist.npz [FOLDER]")
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "mnist"))
