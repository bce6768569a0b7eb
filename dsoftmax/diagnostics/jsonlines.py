"""A run log for machines: an object of JSON for every event, a line each."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from dsoftmax.diagnostics.messages import as_message
from dsoftmax.events import Event, RowsDone
from dsoftmax.storage.records import strict_json

_ROWS_SECONDS = 1.0  # between two lines of how far a pass is


@dataclass
class JsonLines:
    """Writes the events of a fit; see `dsoftmax.diagnostics.messages.as_message` for the keys.

    A number that is not finite is written as null, since JSON has no word for it. A file that
    cannot be written to is an error at first; later, the fit goes on without, with a warning.

    Attributes
    ----------
    target : stream, or path of a file that is appended to
    """

    target: TextIO | str | os.PathLike[str]
    _rows_at: float = -math.inf
    _begun: bool = False
    _broken: bool = False

    def on_event(self, event: Event) -> None:
        """Write an event; of how far a pass is, one line a second."""
        now = time.monotonic()
        if isinstance(event, RowsDone):
            if now - self._rows_at < _ROWS_SECONDS:
                return
            self._rows_at = now
        line = json.dumps(strict_json(as_message(event)), allow_nan=False) + "\n"
        if isinstance(self.target, str | os.PathLike):
            self._append(Path(self.target), line)
        else:
            self.target.write(line)
            self.target.flush()

    def _append(self, path: Path, line: str) -> None:
        if self._broken:
            return
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            if not self._begun:
                raise
            self._broken = True
            warnings.warn(f"{path} ends here: {error}; the fit goes on", stacklevel=2)
        self._begun = True
