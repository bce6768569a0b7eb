"""Metrics of a model, as sums over chunks of rows."""
