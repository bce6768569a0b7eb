"""The optimisers: each one a state machine that asks for evaluations and is told their results."""

from __future__ import annotations

from dsoftmax.solvers.adam import Adam
from dsoftmax.solvers.fista import FISTA
from dsoftmax.solvers.lbfgs import LBFGS
from dsoftmax.solvers.newton import Newton
from dsoftmax.solvers.sgd import SGD

Kind = type[Newton] | type[LBFGS] | type[FISTA] | type[SGD] | type[Adam]

# What a user may ask for; FISTA is what "sgd" becomes when a batch holds all rows.
SOLVERS: dict[str, Kind] = {solver.name: solver for solver in (Newton, LBFGS, SGD, Adam)}
