"""Hangs end: a rank that gets no further says where it stands, on the screen and in a file, and is gone.

A rank that waits in a collective operation for another one that never comes would wait for hours, and hold its GPUs.
All ranks wait then, so each of them leaves its stacks in ``RUN/stacks/``, and comparing these shows who was elsewhere.

Two clocks run. A thread of Python looks at the last sign of life. Where no Python can run, since something in C keeps
the interpreter's lock, :mod:`faulthandler` fires a little later: it prints the stacks to standard error and exits.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import gandist
from gandist.errors import EXIT_FAILED

STACKS = "stacks"

_STANDARD_ERROR = 2
_LAST_WORDS_SECONDS = 30.0  # for writing to a disk that may hang as well
_HOME = str(Path(gandist.__file__).parent)


class Watchdog:
    """Ends this process if :meth:`alive` is not called for ``seconds``.

    Args:
        folder: of the run; stacks are written below it.
        rank: of this process.
        seconds: without a sign of life.
        say: tells a person; called with one message just before the end.

    """

    def __init__(self, folder: Path, rank: int, seconds: float, say: Callable[[str], None]) -> None:
        self._path = folder / STACKS / f"rank{rank:05d}.txt"
        self._seconds = seconds
        self._say = say
        self._last = time.monotonic()
        self._main = threading.get_ident()
        self._closed = threading.Event()
        with suppress(OSError):
            self._path.unlink()  # of an earlier attempt, which has told of it
        self._arm(seconds + _LAST_WORDS_SECONDS)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def alive(self) -> None:
        """Give a sign of life."""
        self._last = time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        tick = min(self._seconds / 10, 10.0)
        while not self._closed.wait(tick):
            left = self._last + self._seconds - time.monotonic()
            if left <= 0:
                self._end()
            self._arm(left + _LAST_WORDS_SECONDS)
        faulthandler.cancel_dump_traceback_later()

    @staticmethod
    def _arm(seconds: float) -> None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=_STANDARD_ERROR)

    def _end(self) -> None:
        self._arm(_LAST_WORDS_SECONDS)
        try:
            where = standing(sys._current_frames().get(self._main))
            stacks = "Its stacks could not be written."
            with suppress(OSError):
                self._write_stacks()
                stacks = f"Its stacks: {self._path}."
            self._say(
                f"got no further for {self._seconds:g} s (execution.timeout_seconds), {where}. {stacks} Usually "
                "another rank died or hangs, or the network between them is cut: compare the stacks of all ranks. "
                "The same command continues from the last checkpoint."
            )
        finally:
            os._exit(EXIT_FAILED)

    def _write_stacks(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("w", encoding="utf-8") as file:
            faulthandler.dump_traceback(file=file, all_threads=True)


def standing(frame: FrameType | None) -> str:
    """Return where a stack stands: its innermost function, and the innermost one of gandist."""
    if frame is None:
        return "at a place that is not known"
    inner = f"in {frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
    ours: FrameType | None = frame
    while ours is not None and not ours.f_code.co_filename.startswith(_HOME):
        ours = ours.f_back
    if ours is None or ours is frame:
        return inner
    return f"{inner}, called from {ours.f_code.co_name} ({ours.f_code.co_filename}:{ours.f_lineno})"
