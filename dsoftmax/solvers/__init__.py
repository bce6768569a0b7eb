"""The optimisers: each one a state machine that asks for evaluations and is told their results."""
