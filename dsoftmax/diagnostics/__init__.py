"""What watches a run: each module a callback fed by events."""
