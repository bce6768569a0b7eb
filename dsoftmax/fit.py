"""What training returns."""

from __future__ import annotations

from dataclasses import dataclass

from dsoftmax.ending import Final
from dsoftmax.objective import Objective
from dsoftmax.reduction import Array
from dsoftmax.solvers.minibatch import MiniBatch, MiniBatchState
from dsoftmax.sources.faults import Fault


@dataclass(frozen=True)
class Fit:
    """A fitted model, and how it came about.

    Attributes
    ----------
    classes : (K,)
    final : the coefficients, and what is known of them
    shift : (n_features,), what the kernel subtracted from the rows, or None
    passes, steps : what it took
    seed : what its random numbers came from
    quarantined : chunks that could not be read, and were left out
    numerics : the kinds of arithmetic that computed it, each with the first worker that had it
    labels : digest of the classes, and of the rows and weight of each
    """

    classes: Array
    final: Final
    shift: Array | None
    passes: int
    steps: int
    seed: int
    quarantined: tuple[Fault, ...]
    numerics: dict[str, str]
    labels: str

    @property
    def advice(self) -> str:
        """What to do about a fit that has not converged."""
        final, gap = self.final, self.final.gap
        above = "" if gap is None else f", by estimate {gap:.1g} above the minimum"
        return f"after {self.passes} passes, at loss {final.loss:.6g}{above}: {final.status.value}"

    @property
    def left_out(self) -> str:
        """What was left out of it."""
        rows = sum(fault.stop - fault.start for fault in self.quarantined)
        return (
            f"{len(self.quarantined)} chunks of X, {rows} rows, cannot be read and were left out "
            f"(quarantined_ lists them); the first: {self.quarantined[0].reason}"
        )


@dataclass(frozen=True)
class Carry:
    """What `partial_fit` goes on from: the solver of the first part, and where it stands."""

    objective: Objective
    solver: MiniBatch
    state: MiniBatchState
