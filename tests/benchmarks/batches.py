"""Seconds and decoded chunks of an epoch, against the batch size.

    python tests/benchmarks/batches.py STORE [SIZE ...]

STORE is a Zarr group of X and y. Two local workers, one epoch of sgd each, cluster start and
first read apart.
"""

from __future__ import annotations

import sys
import warnings

from sklearn.exceptions import ConvergenceWarning

from dsoftmax import SoftmaxRegression, open_data
from dsoftmax.runtime.connect import local_workers


def main(store: str, sizes: list[int]) -> None:
    source = open_data(f"{store}/X", f"{store}/y")
    decoded = source.n_samples * source.row_bytes
    print(f"{source.n_samples:,} rows x {source.n_features}, {decoded / 1e6:,.0f} MB decoded")
    print(f"{'batch':>9} {'steps':>7} {'s an epoch':>11} {'decoded':>8} {'ms a step':>10}")
    with local_workers(2), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for size in sizes:
            model = SoftmaxRegression(
                alpha=6.5, solver="sgd", max_iter=1, batch_size=size, random_state=0
            ).fit(open_data(f"{store}/X", f"{store}/y"))
            steps = [record for record in model.history_ if record["kind"] == "step"]
            (epoch,) = (record for record in model.history_ if record["kind"] == "pass")
            # The epoch counts from its first step: the probes of the curvature come before it.
            seconds = steps[-1]["seconds"] - steps[0]["seconds"]
            print(
                f"{size:>9,} {len(steps):>7,} {seconds:>11.1f} {epoch['bytes'] / decoded:>8.2f} "
                f"{1000 * seconds / max(1, len(steps) - 1):>10.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1], [int(size) for size in sys.argv[2:]] or [256, 4096, 65_536, 262_144])
