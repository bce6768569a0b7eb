"""One fit: the loop that asks a solver, reduces over the rows, and tells the solver."""
