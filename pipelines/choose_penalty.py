"""The penalty of a linear probe, chosen by folds of groups.

    python pipelines/choose_penalty.py [FOLDER] [mnist.npz]

Augmented rows come in groups: here each image is there twice, once shifted by a pixel. A model
that has learned from one copy must not be judged by another, or the penalty that it gets is too
weak: so all copies of an image are in one fold, which an array of the store names. For patients,
speakers or satellite scenes it is the same. The file holds X_train (rows, pixels), y_train, X_test
and y_test; without one, it is scikit-learn's digits.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import zarr
from distributed import Client
from sklearn.datasets import load_digits

from dsoftmax import SoftmaxRegressionCV, load_model, plan_fit

ALPHAS, FOLDS, COPIES, CHUNK = 20, 5, 2, 4096

Data = tuple[np.ndarray, np.ndarray]


def read_images(archive: Path | None) -> tuple[Data, Data]:
    """Return the images and labels to learn from, and those to test with."""
    if archive is None:
        X, y = load_digits(return_X_y=True)
        return (X[360:].astype("u1"), y[360:]), (X[:360].astype("u1"), y[:360])
    with np.load(archive) as held:
        train, test = ((held[f"X_{part}"], held[f"y_{part}"]) for part in ("train", "test"))
    return train, test


def write_copies(folder: Path, X: np.ndarray, y: np.ndarray) -> str:
    """Write every image COPIES times, in random order, with its label and its fold."""
    rng = np.random.default_rng(0)
    image = rng.permutation(np.repeat(np.arange(len(X)), COPIES))
    first = np.unique(image, return_index=True)[1]
    is_copy = np.ones(len(image), bool)
    is_copy[first] = False
    group = zarr.open_group(folder / "train.zarr", mode="w")
    group.create_array("y", data=y[image], chunks=(len(image),))
    group.create_array("fold", data=(image % FOLDS).astype("i1"), chunks=(len(image),))
    rows = group.create_array(
        "X", shape=(len(image), X.shape[1]), dtype=X.dtype, chunks=(CHUNK, X.shape[1])
    )
    for start in range(0, len(image), CHUNK):
        own = slice(start, start + CHUNK)
        rows[own] = shifted(X[image[own]], is_copy[own], rng)
    return f"{folder}/train.zarr"


def shifted(images: np.ndarray, those: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return images, some of them shifted by a pixel along one axis or both."""
    side = round(images.shape[1] ** 0.5)
    square = images.reshape(-1, side, side).copy()
    for index in np.flatnonzero(those):
        square[index] = np.roll(square[index], rng.integers(-1, 2, 2), axis=(0, 1))
    return square.reshape(images.shape)


def main(archive: Path | None, folder: Path) -> None:
    """Choose the penalty, draw the path, and evaluate and save the winner."""
    folder.mkdir(parents=True, exist_ok=True)
    train, test = read_images(archive)
    store = write_copies(folder, *train)
    search = SoftmaxRegressionCV(
        ALPHAS, cv=f"{store}/fold", tol=1e-3, random_state=0, checkpoint=folder / "state", verbose=1
    )
    with Client(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"):
        print(plan_fit(f"{store}/X", f"{store}/y", search), file=sys.stderr)
        search.fit(f"{store}/X", f"{store}/y")
    search.plot_path().savefig(folder / "path.png")
    search.save(folder / "model.zarr", overwrite=True)

    scores = load_model(folder / "model.zarr").evaluate(*test)
    models = ALPHAS * FOLDS
    print(f"{len(train[0]) * COPIES:,} rows of {len(train[0]):,} images, {models} models")
    print(f"alpha {search.alpha_:.4g}, in {search.n_iter_} passes with that of the winner")
    print(f"held-out loss {-search.scores_.mean(axis=0).max():.4f}")
    print(f"test accuracy {scores['accuracy']:.4f}, log loss {scores['log_loss']:.4f}")


if __name__ == "__main__":
    main(
        Path(sys.argv[2]) if len(sys.argv) > 2 else None,
        Path(sys.argv[1] if len(sys.argv) > 1 else "penalty"),
    )
