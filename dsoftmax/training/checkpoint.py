"""What a checkpoint holds, and whether its run is over."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dsoftmax.data.source import Source
from dsoftmax.errors import CheckpointError, DsoftmaxError
from dsoftmax.storage.checkpoint_file import CheckpointFolder
from dsoftmax.storage.records import STORABLE, storable
from dsoftmax.training.fingerprint import RunFingerprint, differences
from dsoftmax.training.params import FitParams
from dsoftmax.typing import Array


@storable
@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes
    ----------
    fingerprint : of the run
    labels : digest of what the label scan found, "" before it
    seed : of its random numbers
    max_iter : its budget
    run_state : where it stands
    events : the steps and passes so far, as a table
    classes : what the label scan found, None before it
    """

    fingerprint: RunFingerprint
    labels: str
    seed: int
    max_iter: int
    run_state: Any
    events: Array
    classes: Array | None = None

    def is_over(self, max_iter: int) -> bool:
        """Whether its run has nothing left to do in a budget of so many passes."""
        state = self.run_state
        return bool(state.finished) and not (state.out_of_budget and max_iter > self.max_iter)

    def without_drawn_seed(self, fingerprint: RunFingerprint) -> RunFingerprint:
        """Return a fingerprint without its seed if that is the one that this run has drawn."""
        parameters = dict(fingerprint.parameters)
        was_drawn = "random_state" not in self.fingerprint.parameters
        if was_drawn and parameters.get("random_state") == str(self.seed):
            del parameters["random_state"]
        return replace(fingerprint, parameters=parameters)

    def require_same_run(
        self, place: str, fingerprint: RunFingerprint, source: Source, params: FitParams
    ) -> None:
        """Raise CheckpointError unless it is of a run, which is to go on from it.

        Parameters
        ----------
        place : where it is
        fingerprint, source, params : of the run
        """
        found = differences(self.fingerprint, fingerprint)
        if params.max_iter < self.max_iter:
            found.append(
                f"max_iter was {self.max_iter}, and is {params.max_iter}: it may only grow"
            )
        if found:
            raise of_another_run(place, found)
        if (left_out := len(self.run_state.quarantined)) > source.max_bad_chunks:
            raise CheckpointError(
                f"{place} has left out {left_out} chunks that could not be read, and "
                f"max_bad_chunks is {source.max_bad_chunks}; allow for them, or give another folder"
            )


def of_another_run(place: str, found: Sequence[str]) -> CheckpointError:
    """Return the error of a checkpoint that differs from the run in some respects."""
    return CheckpointError(
        f"{place} is the checkpoint of another run: {'; '.join(found)}. Give each run (each "
        "candidate of a search, too) a folder of its own, or remove this one"
    )


def is_over(place: str | os.PathLike[str] | None, max_iter: int) -> bool:
    """Whether there is the checkpoint of a run that is over; nothing is changed.

    It may be that of another run: going on from it tells.
    """
    if place is None:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # going on from it warns of what is damaged
        try:
            loaded = CheckpointFolder(place).read(STORABLE)
        except (DsoftmaxError, OSError):  # and tells what is wrong with it
            return False
    return loaded is not None and loaded.is_over(max_iter)
