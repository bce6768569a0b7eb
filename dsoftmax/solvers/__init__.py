"""The optimisers: each one a state machine that asks for evaluations and is told their results."""

from __future__ import annotations

from dsoftmax.solvers.lbfgs import LBFGS
from dsoftmax.solvers.sgd import SGD

SOLVERS: dict[str, type[LBFGS] | type[SGD]] = {solver.name: solver for solver in (LBFGS, SGD)}
