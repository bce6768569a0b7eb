"""How rows are reduced: spans, the fixed tree, worker processes and the embedded cluster."""
