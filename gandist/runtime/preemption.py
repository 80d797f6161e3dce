"""Requests to stop: a signal or a file only raises a flag; the loop saves and leaves at the end of a round."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType

STOP_FILE = "STOP"
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


class StopRequest:
    """Listens for TERM, USR1, USR2, Ctrl-C and for a file ``STOP`` in the run folder.

    A second Ctrl-C interrupts at once. The file is looked for at most once in ``poll_seconds``, by whoever asks:
    on a shared file system that should be rank 0 alone.
    """

    def __init__(self, folder: Path, poll_seconds: float = 1.0) -> None:
        self.file = folder / STOP_FILE
        self.reason: str | None = None
        self._poll_seconds = poll_seconds
        self._next_poll = 0.0
        self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason is not None:
            raise KeyboardInterrupt
        self.reason = self.reason or f"signal {signal.Signals(number).name}"

    def requested(self, look_for_file: bool) -> bool:
        """Return whether this process was asked to stop."""
        if look_for_file and self.reason is None and time.monotonic() >= self._next_poll:
            self._next_poll = time.monotonic() + self._poll_seconds
            if self.file.exists():
                self.reason = "file STOP"
        return self.reason is not None

    def close(self) -> None:
        """Give the signals back to whom they belonged."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class StopSignals:
    """Remembers the first request to stop, and whether Ctrl-C came again; for who supervises a run.

    A terminal that is closed asks to stop too, unless ``nohup`` says otherwise.
    """

    def __init__(self) -> None:
        self.first: str | None = None
        self.urgent = False
        heard = [*SIGNALS] + [signal.SIGHUP] * (signal.getsignal(signal.SIGHUP) != signal.SIG_IGN)
        self._previous = {number: signal.signal(number, self._receive) for number in heard}

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.urgent = self.urgent or (number == signal.SIGINT and self.first is not None)
        self.first = self.first or f"signal {signal.Signals(number).name}"

    def close(self) -> None:
        """Give the signals back to whom they belonged."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def remove_stale_request(folder: Path) -> bool:
    """Remove the file of an answered or forgotten request; return whether there was one."""
    file = folder / STOP_FILE
    existed = file.exists()
    file.unlink(missing_ok=True)
    return existed
