"""The optimisers: each one a state machine that asks for evaluations and is told their results."""

from __future__ import annotations

from typing import Any

from dsoftmax.solvers.adam import Adam
from dsoftmax.solvers.autosgd import AutoSGD
from dsoftmax.solvers.base import Solver
from dsoftmax.solvers.lbfgs import LBFGS
from dsoftmax.solvers.newton import Newton

Kind = type[Solver[Any]]

# What a user may ask for. A new solver is a file of its own and its name here.
SOLVERS: dict[str, Kind] = {solver.name: solver for solver in (Newton, LBFGS, AutoSGD, Adam)}
