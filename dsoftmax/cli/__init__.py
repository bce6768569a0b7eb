"""The command line: one module per command, imported when the command is called."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and end this process: `signals` says how it takes signals."""
    from dsoftmax.cli import signals

    signals.install()  # before the imports, which take longer than many a signal
    from dsoftmax.cli.commands import run

    sys.exit(run())
