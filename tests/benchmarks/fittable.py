"""The table of fits that `tests/benchmarks/digests.py` runs, in groups.

A group yields the name of each fit, and what makes it; `folder` is its own, in one of all groups.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
import zarr
from distributed import Client, LocalCluster

from dsoftmax import SoftmaxRegressionCV, ingest, open_data
from tests.benchmarks.fits import (
    CHUNK,
    FEATURES,
    Parts,
    Stop,
    again,
    fit,
    gone_on,
    learned,
    model_of,
    names,
    predicted,
    problem,
    search,
    skipping,
    standard,
    warm,
    weights,
    without,
    write,
)

Named = tuple[str, Callable[[], Parts]]

SOLVERS = ("newton", "lbfgs", "fista", "sgd", "adam")
PENALTIES: dict[str, Parts] = {
    "l2": {},
    "l1": {"l1_ratio": 1.0},
    "elastic": {"l1_ratio": 0.5},
    "none": {"alpha": 0.0},
}


def solvers(folder: Path) -> Iterator[Named]:
    """Each solver with each penalty, and "auto" with a sample that is enough, and with a small one.

    Both FISTA and "sgd" are solver="sgd", with batches of all rows and of some.
    """
    X, y = problem()
    for penalty, params in PENALTIES.items():
        for solver in SOLVERS:
            if solver != "lbfgs" or "l1_ratio" not in params:
                yield f"{solver}-{penalty}", partial(fit, X, y, solver=solver, **params)
        few = {"solver": "auto", "max_iter": 3, "sample_size": 1000} | params
        yield f"auto-{penalty}", partial(fit, X, y, **few)
        yield f"auto-small-{penalty}", partial(fit, X, y, **few | {"sample_size": 700})
    for solver in ("newton", "lbfgs", "sgd"):
        ends = {"tol": 0.1, "max_iter": 60, "n_iter_no_change": 2}
        yield f"{solver}-converged", partial(fit, X, y, solver=solver, **ends)
    yield "auto-all-auto", partial(fit, X, y, solver="auto", tol="auto", max_iter=4)
    all_rows = {"solver": "auto", "tol": 1e-6, "max_iter": 30}
    yield "newton-of-all-rows", partial(fit, X[:3000], y[:3000], **all_rows)


def classes(folder: Path) -> Iterator[Named]:
    """Two classes, more, and so many that the kernel multiplies in another way."""
    own: dict[str, Parts] = {"newton": {"max_iter": 3}, "fista": {"l1_ratio": 0.5}}
    for number in (2, 10, 100):
        for solver in SOLVERS:
            params = {"max_iter": 4} | own.get(solver, {})
            yield f"{number}-{solver}", partial(fit, *problem(number), solver=solver, **params)
    yield "2-newton-l1", partial(fit, *problem(2), l1_ratio=1.0, alpha=1e-2)
    X, y = problem()
    yield "strings", partial(fit, X, names(y))
    yield "booleans", partial(fit, X, y > 0)
    for solver in ("newton", "sgd"):
        given = {"classes": [0, 5, 10, 20], "solver": solver}
        yield f"given-{solver}", partial(fit, X, y * 10, **given)


def options(folder: Path) -> Iterator[Named]:
    """Parameters that change the objective, its coordinates or its start."""
    X, y = problem()
    uneven = np.where(y == 2, y // 2, y)
    common: dict[str, Parts] = {
        "balanced": {"class_weight": "balanced"},
        "class-weight": {"class_weight": {0: 3.0, 1: 0.5}},
        "standardize": {"standardize": True},
        "no-intercept": {"fit_intercept": False},
        "both": {"standardize": True, "fit_intercept": False, "class_weight": "balanced"},
    }
    for solver in SOLVERS:
        some = partial(fit, solver=solver, max_iter=3)
        yield f"{solver}-weights", partial(some, X, y, weights())
        for name, params in common.items():
            yield f"{solver}-{name}", partial(some, X, uneven, **params)
        yield f"{solver}-both-weights", partial(some, X, uneven, weights(), **common["both"])
        yield f"{solver}-warm", partial(warm, X, y, solver)
        if solver != "lbfgs":
            l1 = {"standardize": True, "l1_ratio": 0.9}
            yield f"{solver}-standardize-l1", partial(some, X, y, **l1)


def batches(folder: Path) -> Iterator[Named]:
    """What concerns mini-batches alone: whole fits, and parts as they come."""
    X, y = problem()
    for size in ("auto", 777, 9001):
        yield f"sgd-{size}", partial(fit, X, y, solver="sgd", batch_size=size, max_iter=3)
    rated: dict[str, Parts] = {
        "rate": {},
        "momentum": {"momentum": 0.0},
        "nesterov-l1": {"momentum": 0.5, "l1_ratio": 0.5},
        "inverse": {"schedule": "inverse"},
        "cosine": {"schedule": "cosine"},
        "clipped": {"clip_norm": 0.1},
        "in-order": {"shuffle": False},
        "seeded": {"random_state": 7},
    }
    for solver, rate in (("sgd", 0.01), ("adam", 0.003)):
        for name, params in rated.items():
            given = {"learning_rate": rate, "max_iter": 3, "solver": solver} | params
            yield f"{solver}-{name}", partial(fit, X, y, **given)
        yield f"{solver}-auto-in-order", partial(fit, X, y, solver=solver, shuffle=False)
        yield f"{solver}-parts", partial(learned, X, y, solver)
        yield f"{solver}-parts-l1", partial(learned, X, y, solver, l1_ratio=0.5)
        yield f"{solver}-parts-rate", partial(learned, X, y, solver, learning_rate=rate)
        yield f"{solver}-parts-weights", partial(learned, X, y, solver, weight=weights())
    yield "auto-parts", partial(learned, X, y, "auto", batch_size=500)
    yield "parts-of-words", partial(learned, X, names(y), "sgd", fit_intercept=False)
    yield "parts-after-a-fit", partial(gone_on, X, y)


def judged(folder: Path) -> Iterator[Named]:
    """Validation rows, other ones and some that are held out; and fits that these end."""
    X, y = problem()
    apart = {"X_val": X[:6000], "y_val": y[:6000]}
    stops: Parts = {"early_stopping": True, "n_iter_no_change": 2, "tol": 1e-2, "alpha": 0.0}
    for solver in SOLVERS:
        rest = partial(fit, X[6000:], y[6000:], solver=solver)
        yield f"{solver}-apart", partial(rest, apart=apart, max_iter=4)
        yield f"{solver}-stopped", partial(fit, X, y, solver=solver, max_iter=12, **stops)
    rest = partial(fit, X[6000:], y[6000:], max_iter=4)
    yield "newton-apart-weights", partial(rest, apart=apart | {"sample_weight_val": weights(6000)})
    yield "newton-apart-stopped", partial(rest, apart=apart, **stops)
    half = stops | {"validation_fraction": 0.5, "random_state": 3, "max_iter": 4}
    yield "newton-half", partial(fit, X, y, weights(), class_weight="balanced", **half)
    yield "sgd-half", partial(fit, X, names(y), solver="sgd", **half)


def dtypes(folder: Path) -> Iterator[Named]:
    """Numbers of each kind, in memory and stored."""
    for name, dtype in (
        *((kind, kind) for kind in ("f8", "f4", "f2", "u1", "i2", "i4")),
        *(("bool", "?"), ("big-f4", ">f4")),
    ):
        X, y = problem(3, dtype)
        for solver in ("newton", "sgd"):
            yield f"{name}-{solver}", partial(fit, X, y, solver=solver, max_iter=3)
        stored = write(folder / name, X, y)
        yield f"{name}-lbfgs-stored", partial(fit, *stored, solver="lbfgs", max_iter=4)
    for dtype, computed in (("f8", "float32"), ("f8", "float64"), ("u1", "float64")):
        source = open_data(*problem(3, dtype), dtype=computed)
        yield f"{dtype}-in-{computed}", partial(fit, source, max_iter=3)


def places(folder: Path) -> Iterator[Named]:
    """The same rows in arrays and stores of each kind."""
    X, y = problem()
    for name, pair in arrays(folder, X, y):
        for solver in ("lbfgs", "sgd"):
            fitted = partial(fit, *pair, solver=solver, max_iter=3)
            if name == "memmap":  # which says the name of its file
                fitted = partial(without, "data_", fitted)
            yield f"{name}-{solver}", fitted
        if name in ("store", "dask-uneven", "cube"):
            yield f"{name}-newton", partial(fit, *pair, max_iter=3)
    stored = standard(folder.parent)
    weight = zarr.create_array(f"{folder}/w", data=weights(), chunks=(999,))
    yield "weights", partial(fit, *stored, weight, max_iter=3)
    held = {"X_val": stored[0], "y_val": stored[1]}
    yield "judged", partial(fit, X[:9000], y[:9000], apart=held, max_iter=3)
    words = write(folder / "words", X, names(y))
    yield "words", partial(fit, *words, solver="lbfgs", max_iter=3)
    np.savez(folder / "rows.npz", X=X, y=y)
    for name, seed in (("ingested", None), ("shuffled", 0)):
        group = folder / name
        ingest(folder / "rows.npz", group, shuffle=seed)
        yield name, partial(fit, f"{group}/X", f"{group}/y", solver="lbfgs", max_iter=3)


def arrays(folder: Path, X: np.ndarray, y: np.ndarray) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield pairs of X and y, and what they are in."""
    yield "store", standard(folder.parent)
    rows, labels = (zarr.open_array(path, mode="r") for path in standard(folder.parent))
    yield "open-store", (rows, labels)
    yield "cut", write(folder / "cut", X, y, chunks=(CHUNK, 100))  # along the features
    yield "sharded", write(folder / "sharded", X, y, chunks=(550, 128), shards=(1100, 256))
    yield "second-format", write(folder / "second", X, y, zarr_format=2)
    yield "dask", (da.from_array(X, chunks=(CHUNK, -1)), da.from_array(y, chunks=4000))
    uneven = ((5000, 1, 7000, 5999), (100, 156))
    yield "dask-uneven", (da.from_array(X, chunks=uneven), y)
    X.tofile(folder / "mapped")
    yield "memmap", (np.memmap(folder / "mapped", X.dtype, "r", shape=X.shape), y)
    cube, map_ = X.reshape(20, 30, 30, -1), y.reshape(20, 30, 30)
    yield "cube", write(folder / "cube", cube, map_, chunks=(7, 16, 30, 256))
    axes = ("time", "y", "x", "band")
    bands = {"band": [f"B{band}" for band in range(FEATURES)]}
    lazy = da.from_array(cube, chunks=(7, 16, 30, 100))
    yield "xarray", (xr.DataArray(lazy, bands, axes), xr.DataArray(map_, dims=axes[:-1]))


def gaps(folder: Path) -> Iterator[Named]:
    """Rows that are left out: without data, without a label, or in a chunk that is damaged."""
    X, y = (array.copy() for array in problem())
    X[np.random.default_rng(2).random(X.shape) < 1e-4] = np.nan
    y[::7] = 255
    policy: Parts = {"missing": "drop", "ignore_label": 255}
    dropping = open_data(*write(folder / "store", X, y), **policy)
    for solver in SOLVERS:
        yield f"{solver}-dropped", partial(fit, dropping, solver=solver, max_iter=3)
        bad = skipping(folder.parent)
        yield f"{solver}-damaged", partial(fit, bad, solver=solver, max_iter=3)
    balanced = {"class_weight": "balanced", "standardize": True, "max_iter": 3}
    yield "balanced", partial(fit, open_data(X, y, **policy), **balanced)


def resumed(folder: Path) -> Iterator[Named]:
    """Fits that were stopped, and went on from their checkpoint."""
    stored = standard(folder.parent)
    for solver in SOLVERS:
        within = "StepEnded" if solver in ("sgd", "adam") else "RowsDone"
        later = {"newton": 4, "sgd": 15, "adam": 15}.get(solver, 7)
        params = {"batch_size": 2000} if solver in ("sgd", "adam") else {}
        fitted = partial(fit, *stored, **{"solver": solver, "max_iter": 4} | params)
        for name, end in (("pass", Stop("PassEnded", 2)), ("within", Stop(within, later))):
            place = folder / f"{solver}-{name}"
            yield f"{solver}-{name}", partial(again, fitted, place, end)
        place = folder / f"{solver}-grown"
        for name, budget in (("short", 2), ("grown", 4), ("finished", 4)):
            yield f"{solver}-{name}", partial(fitted, checkpoint=place, max_iter=budget)
    for solver in ("newton", "lbfgs", "sgd"):
        place, interrupt = folder / f"{solver}-state", Stop("PassEnded", 2, KeyboardInterrupt)
        fitted = partial(fit, *stored, solver=solver, checkpoint=place, max_iter=4)
        yield f"{solver}-interrupted", partial(fitted, callbacks=[interrupt])
        yield f"{solver}-uninterrupted", fitted
    held = partial(fit, *problem(), solver="sgd", early_stopping=True, n_iter_no_change=2)
    yield "sgd-held-out", partial(again, held, folder / "held", Stop("StepEnded", 30))
    bad = partial(fit, skipping(folder.parent))
    yield "newton-damaged", partial(again, bad, folder / "bad", Stop("PassEnded", 2))


def searches(folder: Path) -> Iterator[Named]:
    """Penalties chosen by folds and by other rows."""
    X, y = problem()
    few = X[:5000], y[:5000]
    apart = {"X_val": X[:3000], "y_val": y[:3000]}
    rest = partial(search, X[3000:], y[3000:], apart=apart)
    fold = np.arange(5000) % 4 - 1  # rows of the fold -1 are learned from by all
    yield "folds", partial(search, X, y, alphas=4, tol=1e-2, max_iter=8)
    yield "folds-whole", partial(search, *few, prune=False)
    yield "folds-lbfgs", partial(search, X, y, solver="lbfgs")
    yield "apart", partial(rest, alphas=12)
    yield "apart-whole", partial(rest, prune=False, alphas=4)
    yield "apart-lbfgs", partial(rest, solver="lbfgs")
    ratios = {"l1_ratios": (0.0, 0.5), "alphas": [1e-2, 1e-1], "max_iter": 4}
    yield "ratios-folds", partial(search, *few, cv=2, **ratios)
    yield "ratios-apart", partial(rest, **ratios)
    yield "ratios-path", partial(search, *few, cv=2, l1_ratios=(1.0,), max_iter=3)
    yield "given-folds", partial(search, *few, cv=fold)
    yield "words-as-folds", partial(search, *few, cv=names(np.abs(fold)), refit=False)
    yield "one-standard-error", partial(search, *few, select="1se", alphas=3)
    yield "by-accuracy", partial(search, *few, scoring="accuracy")
    weighted = {"class_weight": "balanced", "standardize": True}
    yield "weights", partial(search, *few, weights(5000), **weighted)
    yield "no-intercept", partial(search, *few, fit_intercept=False, tol="auto")
    yield "of-all-rows", partial(search, X[:2500], y[:2500], sample_size="auto")
    yield "two-classes", partial(search, *problem(2), alphas=3)
    some = {"cv": 2, "max_iter": 4}
    yield "ten-classes", partial(search, *problem(10, "f4", 9000), sample_size=3000, **some)
    yield "many-classes", partial(search, *problem(100, "f4", 9000), **some)
    wide = problem(20, "f4", 600, 6000)  # whose gradients do not fit a read together
    reads = {"alphas": 5, "cv": 4, "max_iter": 3, "refit": False}
    yield "several-reads", partial(search, *wide, solver="lbfgs", **reads)
    stored, small = standard(folder.parent), {"cv": 2}
    kept = partial(search, *stored, **small)
    yield "stored", kept
    yield "damaged", partial(search, skipping(folder.parent), **small)
    yield "spent", partial(search, *stored, **small | {"max_iter": 3})
    for name, end in (("pass", Stop("PassEnded", 3)), ("within", Stop("RowsDone", 8))):
        yield f"resumed-{name}", partial(again, kept, folder / name, end)
    scout = partial(rest, alphas=12)
    yield "resumed-apart", partial(again, scout, folder / "apart", Stop("PassEnded", 2))
    lbfgs = partial(kept, solver="lbfgs")
    yield "resumed-lbfgs", partial(again, lbfgs, folder / "lbfgs", Stop("PassEnded", 3))


def predictions(folder: Path) -> Iterator[Named]:
    """What models say of rows, and what is left of a model that was written."""
    for number in (2, 3, 10):
        X, y = problem(number)
        y = names(y) if number == 3 else y
        model = model_of("lbfgs", max_iter=3, standardize=True).fit(X, y)
        stored = write(folder / f"{number}", X, y)
        yield f"{number}-memory", partial(predicted, model, X, y, folder / f"{number}-memory")
        yield f"{number}-store", partial(predicted, model, *stored, folder / f"{number}-store")
    best = SoftmaxRegressionCV([1e-2, 1.0], cv=2, random_state=0, tol=0.1, solver="lbfgs")
    best.fit(X[:6000], y[:6000])
    yield "of-a-search", partial(predicted, best, X, y, folder / "search")


def workers(folder: Path) -> Iterator[Named]:
    """Two worker processes, with as many threads as it takes for them to merge large sums.

    How many bytes are decoded is up to who gets which task, and remembers its rows.
    """
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=4,
            memory_limit="2 GiB",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,  # workers that are gone are not missed
        ) as cluster,
        Client(cluster),
    ):
        for name, fitted in on_workers(folder):
            yield name, partial(without, "bytes", fitted)


def on_workers(folder: Path) -> Iterator[Named]:
    stored = standard(folder.parent)
    for solver in SOLVERS:
        params = {"batch_size": 6000} if solver in ("sgd", "adam") else {}
        fitted = partial(fit, *stored, **{"solver": solver, "max_iter": 4} | params)
        yield f"{solver}", fitted
        if solver in ("newton", "sgd"):
            yield f"{solver}-no-cache", partial(forgetful, partial(fitted, max_iter=2))
    wide = write(folder / "wide", *problem(20, "f4", 1800, 6600), chunks=(100, 6600))
    yield "large-sums", partial(fit, *wide, solver="lbfgs", max_iter=3)
    many = write(folder / "many", *problem(100))
    yield "many-classes", partial(fit, *many, solver="lbfgs", standardize=True, max_iter=3)
    lazy = da.from_zarr(stored[0]), da.from_zarr(stored[1])
    yield "dask", partial(fit, *lazy, solver="lbfgs", max_iter=3)
    yield "damaged", partial(fit, skipping(folder.parent), solver="lbfgs", max_iter=3)
    held = {"early_stopping": True, "max_iter": 2, "batch_size": 6000}
    yield "held-out", partial(fit, *stored, solver="sgd", **held)
    apart = {"X_val": stored[0], "y_val": stored[1]}
    yield "apart", partial(fit, *stored, apart=apart, max_iter=3)
    lbfgs = partial(fit, *stored, solver="lbfgs", max_iter=4)
    yield "resumed", partial(again, lbfgs, folder / "state", Stop("RowsDone", 15))
    kept = partial(search, *stored, cv=2)
    yield "search", kept
    yield "search-lbfgs", partial(kept, solver="lbfgs", max_iter=4)
    yield "search-apart", partial(kept, apart=apart, cv=None, max_iter=4)
    yield "search-resumed", partial(again, kept, folder / "found", Stop("PassEnded", 3))
    model = model_of("lbfgs", max_iter=3).fit(*problem())
    told = partial(predicted, methods=("predict_proba",))
    yield "predictions", partial(told, model, *stored, folder / "predicted")


def forgetful(fitted: Callable[[], Parts]) -> Parts:
    """Return what is found where workers remember nothing."""
    with dask.config.set({"dsoftmax.cache": 0}):
        return fitted()


def embedded(folder: Path) -> Iterator[Named]:
    """The local cluster that is started for a store of more than 64 MiB."""
    X, y = problem()
    stored = write(folder / "store", np.tile(X, (4, 1)), np.tile(y, 4))
    for solver in ("lbfgs", "sgd"):
        params = {"batch_size": 20_000} if solver == "sgd" else {}
        fitted = partial(fit, *stored, solver=solver, max_iter=3, **params)
        yield solver, partial(without, "bytes", fitted)


GROUPS: dict[str, Callable[[Path], Iterator[Named]]] = {
    group.__name__: group
    for group in (
        *(solvers, classes, options, batches, judged, dtypes, places, gaps, resumed),
        *(searches, predictions, workers, embedded),
    )
}
