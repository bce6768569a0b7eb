"""Rows of any array, what labels and weights mean, and how rows are batched."""
