"""Damaged files at every door, each in a process of its own.

    python -m tests.storage.fuzz [--count N] [--seed S] [--only KIND ...] [--case INDEX]

Each case damages a sound specimen and passes it to what reads it. Allowed are the right answer and
an error of dsoftmax, or click's with exit code 2, in a few words. A traceback, another exception,
10 seconds, 1 GiB more than before, or a folder that only executed code makes are findings.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import click
import dask
import numpy as np
import tomli_w
import zarr

from dsoftmax import SoftmaxRegression, SoftmaxRegressionCV, inspect_data, load_model, plan_fit
from dsoftmax.cli import main as dsoftmax
from dsoftmax.errors import DsoftmaxError
from dsoftmax.events import CheckpointWritten
from dsoftmax.runtime import spans
from dsoftmax.storage import checkpoint_file, model_file
from tests.storage import damage

spans._SPAN_BYTES = 1  # a task a chunk, so that a sum has parts
SECONDS, MEMORY, LONGEST = 10, 2**30, 1200
SHAPE = (40, 3)
X = np.random.default_rng(0).normal(size=SHAPE)
Y = np.array(["a", "b", "c", "b"] * 10)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes
    ----------
    write : writes a specimen to a folder
    harm : damages it
    door : reads it, and returns an answer
    exact : whether what is read is the right answer, or an error
    """

    write: Callable[[Path], None]
    harm: Callable[[Random, Path], None]
    door: Callable[[Path, Random], Any]
    exact: bool = False


def command(*arguments: str | Path) -> str:
    """Run a command as its users do, but for the process."""
    sys.argv = ["dsoftmax", *map(str, arguments)]
    try:
        dsoftmax()
    except SystemExit as ended:
        if ended.code:
            raise EndedError(ended.code) from ended
    return "done"


class EndedError(Exception):
    """A command ended by an exit code that is not 0."""


def rewrite(
    pattern: str, change: Callable[[Random, bytes], bytes]
) -> Callable[[Random, Path], None]:
    def harm(random: Random, folder: Path) -> None:
        path = damage.one_of(random, folder, pattern)
        path.write_bytes(change(random, path.read_bytes()))

    return harm


# Models


def write_model(at: Path) -> None:
    SoftmaxRegression(max_iter=3).fit(X, Y).save(at / "model")


def write_model_zip(at: Path) -> None:
    write_model(at)
    shutil.make_archive(str(at / "model"), "zip", at / "model")
    shutil.rmtree(at / "model")


def harm_model(random: Random, at: Path) -> None:
    path = damage.one_of(random, at, "*")
    change = damage.confused if path.suffix == ".json" else damage.flipped
    path.write_bytes(change(random, path.read_bytes()))


def harm_member(random: Random, content: bytes) -> bytes:
    return (damage.confused if content[:1] == b"{" else damage.flipped)(random, content)


def zipped(random: Random, content: bytes) -> bytes:
    return damage.damaged_zip(random, content, harm_member)


def sign_model(random: Random, at: Path) -> None:
    """Change facts, parameters or arrays of a model, and its digest with them."""
    group = zarr.open_group(at / "model", mode="r+")
    content: Any = dict(group.attrs["dsoftmax"])  # type: ignore[arg-type]
    del content["sha256"]
    arrays: dict[str, Any] = {
        name: model_file._storable(np.asarray(array[...])) for name, array in group.arrays()
    }
    if random.random() < 0.5:
        try:
            content = json.loads(damage.confused(random, json.dumps(content).encode()))
            content["format"] = 1
        except (ValueError, RecursionError, TypeError):
            content["facts"]["n_iter_"] = "many"
    if random.random() < 0.6 or "coef_" not in arrays:
        name = random.choice(list(arrays))
        arrays[name] = other_array(random, arrays[name])
    if random.random() < 0.1:
        del arrays[random.choice(list(arrays))]
    shutil.rmtree(at / "model")
    text = {name for name, array in arrays.items() if array.dtype.kind not in "biufU"}
    for name in text:
        arrays[name] = np.array(["x"])
    with model_file.new_group(at / "model", False) as group:
        for name, array in arrays.items():
            chunks = tuple(max(1, length) for length in array.shape)
            target = model_file.create_array(group, name, array.shape, array.dtype, chunks)
            target[...] = array
        digest = model_file._content_digest(content, arrays)
        group.attrs["dsoftmax"] = {**content, "sha256": digest}


def other_array(random: Random, array: Any) -> Any:
    """Return an array of another shape, dtype or content."""
    flat, numbers = array.ravel(), array.dtype.kind in "biuf"
    others: list[Callable[[], Any]] = [
        lambda: array[:-1] if array.ndim else array,
        lambda: array.T,
        lambda: flat,
        lambda: array[None],
        lambda: np.concatenate([array, array]) if array.ndim else array,
        lambda: array.astype(str),
        lambda: np.zeros((0,) * array.ndim, array.dtype),
        lambda: np.zeros((), array.dtype),
        lambda: flat[::-1].reshape(array.shape),
    ]
    if numbers:
        odd = [np.nan, np.inf, 1e308, -1e308, 1e-320]
        others += [
            lambda: np.full(array.shape, random.choice(odd)),
            lambda: np.full(array.shape, random.choice([-1, 2**62, 10**15, 0])),
            lambda: array.astype(random.choice(["?", "f2", "f4", "i1"])),
        ]
    return random.choice(others)()


def open_model(at: Path, random: Random) -> Any:
    (place,) = at.iterdir()
    model = load_model(place)
    found = model.predict_proba(X)
    model.predict(X), model.score(X, Y)
    if random.random() < 0.3:
        model.to_sklearn()
        model.save(at / "again")
        load_model(at / "again")
    return found.tobytes()


# Checkpoints

FITS: dict[str, Callable[[int, Path], Any]] = {
    "newton": lambda passes, at: SoftmaxRegression(
        solver="newton",
        max_iter=passes,
        tol=0,
        random_state=0,
        sample_size=20,
        checkpoint=at / "state",
    ),
    "lbfgs": lambda passes, at: SoftmaxRegression(
        solver="lbfgs", max_iter=passes, tol=0, standardize=True, checkpoint=at / "state"
    ),
    "sgd": lambda passes, at: SoftmaxRegression(
        solver="sgd", max_iter=passes, tol=0, random_state=0, batch_size=10, checkpoint=at / "state"
    ),
    "fista": lambda passes, at: SoftmaxRegression(
        alpha=1e-3, l1_ratio=0.5, max_iter=passes, tol=0, random_state=0, checkpoint=at / "state"
    ),
    "adam, stopping early": lambda passes, at: SoftmaxRegression(
        solver="adam", max_iter=passes, early_stopping=True, random_state=0, checkpoint=at / "state"
    ),
    "search": lambda passes, at: SoftmaxRegressionCV(
        alphas=[1e-3, 1e-2], cv=2, max_iter=passes, random_state=0, checkpoint=at / "state"
    ),
}


def write_checkpoint(name: str) -> Callable[[Path], None]:
    def write(at: Path) -> None:
        FITS[name](4, at).fit(X, Y)

    return write


class StopAt:
    """Interrupts a fit when so many checkpoints are written."""

    def __init__(self, count: int) -> None:
        self.left = count

    def on_event(self, event: Any) -> None:
        self.left -= isinstance(event, CheckpointWritten)
        if self.left < 0:
            raise KeyboardInterrupt


def write_partial_sum(name: str) -> Callable[[Path], None]:
    """Write the checkpoint of a fit that was stopped within a pass."""

    def write(at: Path) -> None:
        write_group(at)
        with dask.config.set({"dsoftmax.checkpoint-interval": 0}):
            fit = FITS[name](6, at).set_params(callbacks=[StopAt(11)])
            with contextlib.suppress(KeyboardInterrupt):
                fit.fit(str(at / "data" / "X"), str(at / "data" / "text"))

    return write


def resume_from_store(name: str) -> Callable[[Path, Random], Any]:
    def door(at: Path, random: Random) -> Any:
        return FITS[name](6, at).fit(str(at / "data" / "X"), str(at / "data" / "text")).loss_

    return door


def harm_checkpoint(random: Random, at: Path) -> None:
    newest = sorted((at / "state").glob("checkpoint-*"))[-1]
    newest.write_bytes(damage.flipped(random, newest.read_bytes()))


def sign_checkpoint(random: Random, at: Path) -> None:
    """Change values of a checkpoint, and its digest with them."""
    newest = sorted((at / "state").glob("checkpoint-*"))[-1]
    payload, _ = checkpoint_file._verified(newest.read_bytes())
    tree, arrays = checkpoint_file._unpack(payload)
    if random.random() < 0.5:
        name = random.choice(list(arrays))
        arrays[name] = other_array(random, arrays[name])
        if random.random() < 0.1:
            del arrays[name]
    else:
        _change_tree(random, tree)
    import io

    stream = io.BytesIO()
    text = np.frombuffer(json.dumps(tree).encode(), np.uint8)
    np.savez(stream, tree=text, **{k: v for k, v in arrays.items() if v.dtype.kind != "O"})
    content = stream.getbuffer()
    newest.write_bytes(checkpoint_file._header(content) + bytes(content))


def _change_tree(random: Random, tree: Any) -> None:
    """Change the value of a field, mostly by one that JSON can hold there."""
    fields = [
        pair
        for holder, key in damage._places(tree)
        if key == "record" and isinstance(holder[key], list)
        for pair in holder[key][1]
    ]
    field = random.choice(fields)
    others: list[Any] = [
        None, True, -1, 0, 1, 10**15, 10**18, 0.5, 1e308, "", "x", {"float": "000000000000f87f"},
        {"float": "000000000000f07f"}, {"int": "0x" + "f" * 300}, {"tuple": []}, {"dict": []}, [],
        {"array": "array-0"}, {"scalar": ["<f4", "0000803f"]}, {"tuple": [1, 2]}, {"dtype": "<f8"},
        {"member": ["Status", "BUDGET"]}, {"member": ["Status", "RUNNING"]},
        {"record": ["Cost", []]},
        random.choice(fields)[1],
    ]  # fmt: off
    value = json.loads(json.dumps(random.choice(others)))
    if isinstance(field[1], int) and random.random() < 0.5:
        value = field[1] + random.choice([-1, 1, 7, 10**6, 2**62])
    if random.random() < 0.1:
        field[0] = "another"
    field[1] = value


def resume(name: str) -> Callable[[Path, Random], Any]:
    def door(at: Path, random: Random) -> Any:
        model = FITS[name](6, at).fit(X, Y)
        model.predict_proba(X)
        return model.coef_.tobytes() + model.intercept_.tobytes()

    return door


# Run files and tables


def write_group(at: Path, **options: Any) -> None:
    group = zarr.open_group(at / "data", mode="w", zarr_format=options.pop("zarr_format", 3))
    group.create_array("X", shape=SHAPE, dtype="f8", **({"chunks": (10, 3)} | options))[:] = X
    labels = np.unique(Y, return_inverse=True)[1]
    group.create_array("y", shape=(40,), dtype="i8", chunks=(20,))[:] = labels
    text = group.create_array(
        "text",
        shape=(40,),
        dtype="string" if group.metadata.zarr_format == 3 else str,
        chunks=(20,),
    )
    text[:] = Y.astype("T") if group.metadata.zarr_format == 3 else Y.astype(object)


def write_run(at: Path) -> None:
    write_group(at)
    run = {
        "data": {"store": str(at / "data"), "x": "X", "y": "y", "drop_missing": False,
                 "decode": True, "dtype": "float64", "ignore_label": 9},
        "model": {"alpha": 1e-3, "max_iter": 3, "solver": "lbfgs", "tol": 1e-3, "l1_ratio": 0.0,
                  "random_state": 0, "batch_size": "auto", "class_weight": "balanced"},
        "checkpoint": {"place": str(at / "state")},
        "output": {"model": str(at / "model"), "overwrite": False, "log": str(at / "log")},
    }  # fmt: skip
    (at / "run.toml").write_text(tomli_w.dumps(run))


def ingest(name: str, *options: str) -> Callable[[Path, Random], Any]:
    return lambda at, random: command("ingest", at / name, at / "out", *options, "--quiet")


def write_csv(at: Path) -> None:
    rows = [f"{a},{b},{c},{label}" for (a, b, c), label in zip(X, Y, strict=True)]
    (at / "t.csv").write_text("\n".join(["a,b,c,y", *rows]) + "\n")


def write_parquet(at: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: X[:, i] for i, name in enumerate("abc")}
    pq.write_table(pa.table({**columns, "y": Y}), at / "t.parquet", row_group_size=16)


# Stores


def harm_store(random: Random, at: Path) -> None:
    metadata = random.choice(["zarr.json", ".z*"])
    if not list(at.rglob(metadata)):
        metadata = "zarr.json" if metadata == ".z*" else ".z*"
    rewrite(metadata, damage.confused)(random, at)
    if random.random() < 0.2:  # what a codec or dtype of objects would execute
        for path in at.rglob("*"):
            if path.is_file() and path.name[:1] in "0123456789":
                path.write_bytes(damage.pickled())


def harm_chunk(random: Random, at: Path) -> None:
    rewrite("[0-9]*", damage.flipped)(random, at)


def read_store(place: str) -> Callable[[Path, Random], Any]:
    def door(at: Path, random: Random) -> Any:
        store = at / place
        labels = random.choice(["y", "text"])
        match random.randrange(7):
            case 0:
                return command("inspect", store, "--y", labels)
            case 1:
                return command("ingest", store, at / "out", "--x", "X", "--y", labels, "--quiet")
            case 2:
                return str(plan_fit(str(store / "X"), str(store / labels)))
            case 3:
                model = SoftmaxRegression(max_iter=2).fit(X, Y)
                return model.predict_proba(str(store / "X")).shape
            case 4:
                return str(inspect_data(str(store / "X"), str(store / labels)))
            case 5:
                return command(
                    "train", store, at / "m", "--y", labels, "--max-iter", "2", "--quiet"
                )
        model = SoftmaxRegression(max_iter=2).fit(str(store / "X"), str(store / labels))
        return model.loss_

    return door


def write_zip(at: Path) -> None:
    write_group(at)
    shutil.make_archive(str(at / "data"), "zip", at / "data")
    shutil.rmtree(at / "data")


def store_kind(harm: Callable[[Random, Path], None], **options: Any) -> Kind:
    return Kind(lambda at: write_group(at, **options), harm, read_store("data"))


SHARDED: dict[str, Any] = {"shards": (20, 3), "chunks": (10, 3)}
KINDS: dict[str, Kind] = {
    "model": Kind(write_model, harm_model, open_model, exact=True),
    "model, zip": Kind(write_model_zip, rewrite("model.zip", zipped), open_model, exact=True),
    "model, signed": Kind(write_model, sign_model, open_model),
    "checkpoint": Kind(write_checkpoint("lbfgs"), harm_checkpoint, resume("lbfgs"), exact=True),
    **{
        f"checkpoint of {name}, signed": Kind(write_checkpoint(name), sign_checkpoint, resume(name))
        for name in FITS
    },
    **{
        f"partial sum of {name}, signed": Kind(
            write_partial_sum(name), sign_checkpoint, resume_from_store(name)
        )
        for name in ("newton", "lbfgs", "search")
    },
    "run file": Kind(
        write_run,
        rewrite("run.toml", damage.damaged_toml),
        lambda at, random: command("train", "--config", at / "run.toml", "--quiet"),
    ),
    "npz": Kind(
        lambda at: np.savez(at / "a.npz", X=X, y=Y),
        rewrite("a.npz", lambda random, c: damage.damaged_zip(random, c, damage.damaged_npy)),
        ingest("a.npz"),
    ),
    "npy": Kind(
        lambda at: (np.save(at / "X.npy", X), np.save(at / "y.npy", np.arange(40.0)))[0],
        rewrite("*.npy", damage.damaged_npy),
        lambda at, random: command(
            "ingest", at / "X.npy", at / "out", "--labels", at / "y.npy", "--quiet"
        ),
    ),
    "csv": Kind(write_csv, rewrite("t.csv", damage.damaged_csv), ingest("t.csv", "--y", "y")),
    "parquet": Kind(
        write_parquet, rewrite("t.parquet", damage.damaged_parquet), ingest("t.parquet", "--y", "y")
    ),
    "zarr 2": store_kind(harm_store, zarr_format=2),
    "zarr 3": store_kind(harm_store),
    "zarr 3, sharded": store_kind(harm_store, **SHARDED),
    "chunk, zstd": store_kind(harm_chunk),
    "chunk, blosc": store_kind(harm_chunk, compressors=zarr.codecs.BloscCodec()),
    "chunk, gzip": store_kind(harm_chunk, compressors=zarr.codecs.GzipCodec()),
    "chunk, raw": store_kind(harm_chunk, compressors=None),
    "chunk, sharded": store_kind(harm_chunk, **SHARDED),
    "chunk, zarr 2": store_kind(harm_chunk, zarr_format=2),
    "zip": Kind(write_zip, rewrite("data.zip", zipped), read_store("data.zip")),
}


# The pool


def judged(kind: Kind, at: Path, random: Random, expected: Any) -> tuple[str, str]:
    """Return the outcome of a case, and what was said."""
    output = open(at.parent / "output", "w+")  # noqa: SIM115 - it lives as long as the process
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    sys.stdout = open(1, "w", closefd=False, errors="strict")  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
    try:
        answer = kind.door(at, random)
    except (DsoftmaxError, click.UsageError) as error:
        said = str(error)
    except EndedError as ended:
        output.seek(0)
        said = output.read()
        if ended.args[0] not in (1, 2) or "Traceback" in said:
            return f"FOUND exit {ended.args[0]}", said
        said = said.partition("Error: ")[2]
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/dsoftmax/" in frame.filename] or frames
        where = f"{Path(ours[-1].filename).name}:{ours[-1].name}"
        return f"FOUND {type(error).__name__} in {where}", traceback.format_exc()[-3000:]
    else:
        right = not kind.exact or answer == expected
        return ("read", "") if right else ("FOUND another answer", "")
    if len(said) > LONGEST or not said.strip():
        return f"FOUND {len(said)} characters", said[:300] + " ... " + said[-300:]
    return "refused", said


def run_case(name: str, specimen: Path, seed: str, expected: Any, folder: Path) -> None:
    """Damage and read, and leave the outcome in a file; this process ends with it."""
    random, at = Random(seed), folder / "specimen"
    os.environ["FUZZ_CANARY"] = str(folder / "canary")
    shutil.copytree(specimen, at)
    KINDS[name].harm(random, at)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    outcome = judged(KINDS[name], at, random, expected)
    (folder / "outcome").write_text(json.dumps(outcome))


def fork(case: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        case()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def outcomes(
    name: str, indices: range, seed: int, scratch: Path, jobs: int
) -> Iterator[tuple[int, str, str]]:
    """Yield index, outcome and what was said of each case of a kind."""
    kind, specimen = KINDS[name], scratch / "specimen"
    specimen.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind.write(specimen)
        shutil.copytree(specimen, scratch / "sound" / "specimen")
        expected = kind.door(scratch / "sound" / "specimen", Random(0)) if kind.exact else None
    waiting, running = list(reversed(indices)), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            index = waiting.pop()
            folder = scratch / str(index)
            folder.mkdir()
            text = f"{seed} {name} {index}"
            pid = fork(lambda f=folder, t=text: run_case(name, specimen, t, expected, f))  # type: ignore[misc]
            running[pid] = (index, folder, time.monotonic())
        time.sleep(0.002)
        for pid, (index, folder, started) in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            hangs = not done and time.monotonic() - started > SECONDS
            if hangs:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            if done or hangs:
                del running[pid]
                yield index, *_outcome(folder, status, hangs=hangs)
                shutil.rmtree(folder, ignore_errors=True)


def _outcome(folder: Path, status: int, *, hangs: bool) -> tuple[str, str]:
    if (folder / "canary").exists():
        return "FOUND execution", ""
    if hangs:
        return f"FOUND {SECONDS} s", ""
    if not (folder / "outcome").exists():
        return f"FOUND died by {status}", ""
    outcome, said = json.loads((folder / "outcome").read_text())
    return outcome, said


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storage.fuzz")
    parser.add_argument("--count", type=int, default=1000, help="Cases, of all kinds together.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--case", type=int, help="Run this one only, and print all that it says.")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    each = -(-arguments.count // len(arguments.only))
    total: Counter[str] = Counter()
    for name in arguments.only:
        counts: Counter[str] = Counter()
        examples: dict[str, tuple[int, str]] = {}
        indices = (
            range(each) if arguments.case is None else range(arguments.case, arguments.case + 1)
        )
        with tempfile.TemporaryDirectory() as scratch:
            for index, outcome, said in outcomes(
                name, indices, arguments.seed, Path(scratch), arguments.jobs
            ):
                counts[outcome] += 1
                examples.setdefault(outcome, (index, said))
                if arguments.case is not None:
                    print(outcome, said, sep="\n")
        total += counts
        print(
            f"{name}: {', '.join(f'{n} {what}' for what, n in sorted(counts.items()))}", flush=True
        )
        for what, (index, said) in sorted(examples.items()):
            if what.startswith("FOUND"):
                print(f"  case {index}, {what}\n    " + said[-1500:].replace("\n", "\n    "))
    print(f"all: {', '.join(f'{n} {what}' for what, n in sorted(total.items()))}")
    return int(any(what.startswith("FOUND") for what in total))


if __name__ == "__main__":
    sys.exit(main())
