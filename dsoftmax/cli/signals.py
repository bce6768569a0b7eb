"""What a signal does to a command: the first stops it, a second changes nothing, a third ends it.

It is imported before anything slow, and imports nothing slow itself: until `install` has run, a
signal finds the handlers of Python. `install` is the first thing that the process does.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

TEMPORARY_FAILURE = 75  # EX_TEMPFAIL of sysexits.h: run it again
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C; batch systems and containers; a closed terminal
_PLACES = ("--checkpoint", "--run-folder", "--resume", "--config")  # to go on from
_IMPORTING = "<frozen importlib._bootstrap>"
_IMPORT_SECONDS = 0.02  # between two looks whether an import is over


class _Stop:
    """The signals so far, and what they mean at the moment.

    Attributes
    ----------
    number : of the first signal, or None
    count : of the signals
    raises : whether a signal may interrupt what runs
    raised : whether it has
    resumable : whether the same command goes on from here, if it is run again
    finished : whether the command has done all that it was asked for
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.count = self._n_repeated = 0
        self.raises = self.raised = self.resumable = self.finished = False

    @property
    def code(self) -> int:
        """The exit code of a command that is stopped now."""
        if self.finished:
            return 0
        return TEMPORARY_FAILURE if self.resumable else 128 + (self.number or signal.SIGINT)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._n_repeated:
            self._n_repeated -= 1
        else:
            self.count += 1
            self.number = self.number or number
            if self.count > 2:
                self._end_at_once()
            if self.count == 2:
                _write("stopping already; one more signal ends it at once\n")
        if not self.raises or self.raised:
            return
        if _is_importing(frame):
            self._repeat(number)
        else:
            self.interrupt()

    def interrupt(self) -> None:
        """Interrupt what runs."""
        self.raised = True
        # What is interrupted half-way complains when it is deleted, and so does what waited for it.
        sys.unraisablehook = lambda _: None
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        if "logging" in sys.modules:
            sys.modules["logging"].getLogger("asyncio").disabled = True
        raise KeyboardInterrupt

    def _repeat(self, number: int) -> None:
        """Have the same signal come once more, a little later.

        A module that is interrupted in its import may turn that into another error, or swallow it.
        """

        def send() -> None:
            self._n_repeated += 1
            signal.pthread_kill(main, number)

        main = threading.main_thread().ident or 0
        timer = threading.Timer(_IMPORT_SECONDS, send)
        timer.daemon = True
        timer.start()

    def _end_at_once(self) -> None:
        _write("ended at once\n")
        cluster = sys.modules.get("dsoftmax.runtime.local_cluster")
        kill = getattr(cluster, "kill_local_clusters", None)  # it may be half imported
        if kill is not None:
            kill()
        os._exit(self.code)


_stop = _Stop()


def install() -> None:
    """Take the signals that stop a command, but for those that whoever started it has ignored."""
    global _stop
    _stop = _Stop()
    # A guess, for a command that is ended before its arguments are parsed.
    _stop.resumable = any(argument.startswith(_PLACES) for argument in sys.argv)
    for name in _NAMES:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _on_signal)
    atexit.register(_ignore)  # the first to be registered is the last to be called


def _on_signal(number: int, frame: FrameType | None) -> None:
    _stop.on_signal(number, frame)


def _ignore() -> None:
    """Have signals change nothing any more: Python is about to restore what would kill it."""
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is _on_signal:
            signal.signal(number, signal.SIG_IGN)


def interruptible(command: Callable[[], None], *, resumable: bool) -> None:
    """Call a command, which a signal interrupts.

    Parameters
    ----------
    command : what is called
    resumable : whether it goes on from where it was stopped, if it is run again

    Raises
    ------
    KeyboardInterrupt
        If a signal has come, also before it was called.
    """
    _stop.resumable, _stop.finished = resumable, False
    try:
        _stop.raises = True
        if _stop.number is not None:
            _stop.interrupt()
        command()
        _stop.finished = True
    finally:
        _stop.raises = False


def exit_code() -> int:
    """Return the exit code of a command that is stopped now."""
    return _stop.code


def received() -> str:
    """Return the name of the signal that has come first, "" if there was none."""
    return "" if _stop.number is None else signal.Signals(_stop.number).name


def raise_if_lost() -> None:
    """Interrupt once more what goes on although it was interrupted.

    Python drops what a signal raises within a destructor.
    """
    if _stop.raised and _stop.raises:
        raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    if not hasattr(signal, "pthread_kill"):
        return False
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False


def _write(text: str) -> None:
    # Not by print, which may be what the signal has interrupted.
    with suppress(OSError):
        os.write(2, text.encode())
