"""What makes two fits the same run: their data and their parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from operator import or_
from typing import Any

import numpy as np

from dsoftmax.data.batches import whole_span
from dsoftmax.data.row_array import RowArray
from dsoftmax.data.source import Source
from dsoftmax.data.store_changes import listed_digests
from dsoftmax.objective.labels import preview
from dsoftmax.objective.linear_model import LinearModel
from dsoftmax.objective.reduction import Chunk, Reduction
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.reduce import UnreadableError, reduce
from dsoftmax.storage.digests import short_digest
from dsoftmax.storage.records import storable
from dsoftmax.training.params import FitParams
from dsoftmax.training.validation import ValidationSet

_CHUNKS = 16
_BYTES = 1 << 28  # decoded, of those chunks together; but one is always read
_FREE = ("max_iter", "seed", "seeded", "statistical")  # not a part of what a run is


@storable
@dataclass(frozen=True)
class RunFingerprint:
    """A run, as far as it can be known without reading all of it.

    Attributes
    ----------
    parameters : as text, by name
    data : what the metadata of each array say, as text, by name
    content : digest of the values of some chunks, by their first row
    stored : digest of the chunks as their store lists them, by the array and where it is
    """

    parameters: dict[str, str]
    data: dict[str, str]
    content: dict[str, str]
    stored: dict[str, str] = field(default_factory=dict)


def fingerprint_of(
    source: Source,
    params: FitParams,
    executor: Executor,
    validation: ValidationSet | None,
    search: Mapping[str, str],
    known: RunFingerprint | None = None,
) -> RunFingerprint:
    """Return the identity of a run, having read up to 16 chunks, and 256 MiB, of its data.

    Parameters
    ----------
    source, params, executor, validation : of the run
    search : parameters of a search, as text by name
    known : that of an earlier run on the same values (`lists_the_same`): they are not read again
    """
    parameters = dict(_parameters(params)) | dict(search)
    if validation is not None:
        parameters.pop("validation_fraction", None)
    return RunFingerprint(
        parameters | _policy(source),
        _arrays(source)
        | {"the validation data": "none" if validation is None else _validation(validation, known)},
        _content(source, executor) if known is None else known.content,
        _all_stored(source, validation),
    )


def lists_the_same(known: RunFingerprint, source: Source, validation: ValidationSet | None) -> bool:
    """Whether all data are where they were, and their stores list the same chunks as then."""
    arrays = [*source.arrays, *([] if validation is None else validation.source.arrays)]
    listed = all(
        array.stored
        and not array.is_computed
        and len(listed_digests(array)) == len({part.url for part in array.stored})
        for array in arrays
    )
    return listed and known.stored == _all_stored(source, validation)


def _all_stored(source: Source, validation: ValidationSet | None) -> dict[str, str]:
    of_validation = {} if validation is None else _stored("_val", validation.source)
    return _stored("", source) | of_validation


def _stored(suffix: str, source: Source) -> dict[str, str]:
    """Return digests of the lists of chunks, which hold their times: known of one place only."""
    names = ("X", "y", "sample_weight", "cv")
    arrays = ((name, getattr(source, name)) for name in names)
    return {
        f"{name}{suffix} {short_digest(place)}": digest
        for name, array in arrays
        if array is not None
        for place, digest in listed_digests(array).items()
    }


def _arrays(source: Source) -> dict[str, str]:
    names = ("X", "y", "sample_weight", "cv")
    arrays = ((name, getattr(source, name)) for name in names)
    return {name: "none" if array is None else _metadata(array) for name, array in arrays}


def _validation(validation: ValidationSet, known: RunFingerprint | None) -> str:
    found = _arrays(validation.source) | _policy(validation.source)
    if known is None:
        content = _content(validation.source, validation.executor)
        found["values"] = short_digest(np.array([content[row] for row in sorted(content, key=int)]))
    else:
        found["values"] = known.data.get("the validation data", "").rpartition("; values ")[2]
    return "; ".join(f"{name} {text}" for name, text in found.items())


def described(source: Source) -> dict[str, str]:
    """Return what is known of the data from their metadata, as text by name."""
    names = ("X", "y", "sample_weight")
    found = {name: array for name in names if (array := getattr(source, name)) is not None}
    return {name: _metadata(array) for name, array in found.items()} | _policy(source)


def first_values(source: Source, executor: Executor) -> str:
    """Return a digest of the values of the first chunk."""
    first = whole_span((source.chunks[0], source.chunks[1]))
    return reduce(executor, source, chunk_digests, [(first,)])[0]["0"]


def differences(old: RunFingerprint, new: RunFingerprint) -> list[str]:
    """Return how two identities differ, a phrase each."""
    found = [
        f"{name} was {before}, and is {after}"
        for before_, after_ in ((old.parameters, new.parameters), (old.data, new.data))
        for name, before, after in _changes(before_, after_)
    ]
    # A chunk that could not be read, then or now, tells nothing.
    common = old.content.keys() & new.content.keys()
    changed = sorted(int(row) for row in common if old.content[row] != new.content[row])
    if changed:
        found.append(f"other values in the chunk from row {changed[0]} on")
    # Of a copy elsewhere, other times tell nothing.
    for key in sorted(old.stored.keys() & new.stored.keys()):
        if old.stored[key] != new.stored[key]:
            found.append(f"chunks of {key.split()[0]} were written, or removed, since")
    return found


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, "unknown"), new.get(name, "unknown")
        if before != after:
            yield name, before, after


def _parameters(params: FitParams) -> Iterator[tuple[str, str]]:
    free = _FREE if params.early_stopping else (*_FREE, "validation_fraction")
    for parameter in fields(params):
        if parameter.name not in free:
            yield parameter.name, _as_text(getattr(params, parameter.name))
    if params.tol_auto:
        yield "tol", "'auto'"
    if params.seeded:
        yield "random_state", str(params.seed)


def _policy(source: Source) -> dict[str, str]:
    """Return what decides which rows count, and what is computed in."""
    policy = {name: repr(getattr(source, name)) for name in ("missing", "ignore_label")}
    return policy | {"dtype": str(source.dtype)}


def _as_text(value: Any) -> str:
    if isinstance(value, LinearModel):
        return f"a model with the digest {short_digest(value.classes, value.coef, value.intercept)}"
    if isinstance(value, np.ndarray):
        return f"{preview(value)} (digest {short_digest(value)})"
    if isinstance(value, Mapping):
        return repr(sorted((str(key), float(factor)) for key, factor in value.items()))
    return repr(value)


def _metadata(array: RowArray) -> str:
    chunks = short_digest(np.array(array.boundaries))
    text = f"{array.shape} {array.dtype} in {len(array.boundaries) - 1} chunks ({chunks})"
    if array.identity:
        text = f"{text}, metadata {array.identity}"
    return text if array.encoding is None else f"{text}, decoded: {array.encoding}"


def _content(source: Source, executor: Executor) -> dict[str, str]:
    leaves = [(whole_span(span),) for span in _some_chunks(source)]
    while leaves:
        try:
            return reduce(executor, source, chunk_digests, leaves)[0]
        except UnreadableError as error:
            bad = {bad_chunk.start for bad_chunk in error.bad_chunks}
            leaves = [leaf for leaf in leaves if leaf[0].start not in bad]
    return {}


def _some_chunks(source: Source) -> list[tuple[int, int]]:
    """Return a few chunks, the same at each call."""
    bounds = np.array(source.chunks)
    order = np.random.default_rng(0).permutation(len(bounds) - 1)[:_CHUNKS]
    sizes = (bounds[order + 1] - bounds[order]) * source.row_bytes
    most = max(1, int(np.searchsorted(np.cumsum(sizes), _BYTES, side="right")))
    return [(int(bounds[i]), int(bounds[i + 1])) for i in sorted(order[:most])]


def _digests(chunk: Chunk) -> dict[str, str]:
    arrays = [array for array in (chunk.X, chunk.y, chunk.sample_weight) if array is not None]
    return {str(chunk.start): short_digest(*arrays)}


chunk_digests: Reduction[dict[str, str]] = Reduction("fingerprint", _digests, or_)
