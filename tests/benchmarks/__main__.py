"""All benchmarks, each a ratio against its limit or a peer that was measured in the same run.

    python -m tests.benchmarks [--rows N] [--only NAME ...] [--json FILE] [--readme]

NAMEs: throughput, kernel, memory, scale, peers. Nothing else should run meanwhile. `--readme`
puts the table into the README.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterable
from pathlib import Path

# Before NumPy is loaded, and for the bare loops too: what workers have.
from dsoftmax.runtime.environment import KEEP_MEMORY

os.environ.update(KEEP_MEMORY, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

NAMES = ("throughput", "kernel", "memory", "scale", "peers")
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- benchmarks -->\n", "<!-- end of benchmarks -->"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--rows", type=int, default=1_200_000)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--readme", action="store_true")
    arguments = parser.parse_args()
    lines = run(arguments.rows, arguments.only, arguments.json)
    if arguments.readme:
        before, _, rest = README.read_text().partition(BEGIN)
        table = "```text\n" + "\n".join(lines) + "\n```\n"
        README.write_text(before + BEGIN + table + END + rest.partition(END)[2])


def run(rows: int, names: tuple[str, ...], file: Path | None) -> list[str]:
    from tests.benchmarks import kernel, memory, peers, scale, throughput
    from tests.benchmarks.bare import FEATURES
    from tests.benchmarks.measure import Result, as_json

    results: list[Result] = []
    lines = [f"{rows:,} rows x {FEATURES} uint8, zstd; 2 workers; load {os.getloadavg()[0]:.1f}"]
    print(lines[0], flush=True)

    def take(found: Iterable[Result]) -> None:
        for result in found:
            results.append(result)
            lines.append(result.line())
            print(lines[-1], flush=True)

    speed = 500e6
    if "throughput" in names:
        found, speed = throughput.measure(rows)
        take(found)
    if "kernel" in names:
        take(kernel.measure())
    if "memory" in names:
        take(memory.measure())
    if "scale" in names:
        take(scale.measure(speed))
    if "peers" in names:
        take(peers.measure(rows))
    if file is not None:
        facts = {"rows": rows, "machine": platform.machine(), "cores": os.cpu_count()}
        file.write_text(as_json(results, facts) + "\n")
    return lines


if __name__ == "__main__":
    main()
