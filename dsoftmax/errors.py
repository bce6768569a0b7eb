"""The exception tree: everything dsoftmax raises on purpose derives from `DsoftmaxError`."""

from __future__ import annotations


class DsoftmaxError(Exception):
    """Base class of the errors that dsoftmax raises."""


class DataError(DsoftmaxError, ValueError):
    """The data cannot be used as given: shape, length, dtype, label, NaN or infinity."""


class DtypeError(DataError, TypeError):
    """Values are of a type that is no number, where numbers are needed; also a TypeError."""


class ChunkError(DsoftmaxError):
    """A chunk of a store could not be read; the message names the array and the rows."""


class CheckpointError(DsoftmaxError):
    """A checkpoint or model file is damaged, of another format, or of another run."""


class MemoryBoundError(DsoftmaxError):
    """The working set of a run cannot fit the memory it is given."""


class OutageError(DsoftmaxError):
    """What a run depends on is away (storage, workers, scheduler): the same run may work later."""


_MOST_QUOTED = 200


def shortened(text: object) -> str:
    """Return text that others wrote as a message quoted it: on one line, and of 200 characters.

    Parameters
    ----------
    text : str, or anything with one
    """
    line = " ".join(str(text).split())
    if not line.isprintable():  # controls of a terminal, say
        line = "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)
    if len(line) <= _MOST_QUOTED:
        return line
    return f"{line[: _MOST_QUOTED * 3 // 4]} ... {line[-_MOST_QUOTED // 4 :]}"


def quoted(value: object) -> str:
    """Return the repr of a value that others gave, shortened."""
    return shortened(repr(value))
