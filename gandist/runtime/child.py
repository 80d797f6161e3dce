"""A command run as a child in a session of its own, and an end to everything that it leaves behind.

A launcher that is killed leaves its ranks behind, and they go on holding the run folder. Linux gives such orphans to
the nearest ancestor that has asked for them: this process asks, so it can find and end every one of them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gandist.errors import ConfigError

_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.05


class Child:
    """A running command; one at a time, as its orphans are known by being ours."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        adopt_orphans()
        try:
            self._process = subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True)
        except OSError as error:
            raise ConfigError(f"{command[0]}: cannot be started ({error.strerror}). Is it installed?") from None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the command runs."""
        _reap(all_but=self._process.pid)
        return self._process.poll()

    def end(self, grace_seconds: float, hurry: Callable[[], bool] = lambda: False) -> int:
        """End the command and all that it left: TERM, then KILL after a while or in a ``hurry``; return how many."""
        first = living_descendants()
        limit = time.monotonic() + grace_seconds
        _signal(first, signal.SIGTERM)
        while left := living_descendants():
            if hurry() or time.monotonic() > limit:
                _signal(left, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
            self.poll()
        return len(first)

    def kill(self) -> None:
        """Kill the command and all that it left, at once."""
        self.end(0, hurry=lambda: True)


def adopt_orphans() -> bool:
    """Become the parent of descendants whose own parent dies; return whether this system can do that."""
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):  # no Linux
        return False


def living_descendants() -> list[int]:
    """Return the processes below this one that have not ended."""
    children: dict[int, list[int]] = {}
    ended = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = entry.read_text(errors="replace").rpartition(")")[2].split()[:2]
        except OSError:  # ended meanwhile
            continue
        pid = int(entry.parent.name)
        children.setdefault(int(parent), []).append(pid)
        if state in "ZX":
            ended.add(pid)
    found, waiting = [], [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return [pid for pid in found if pid not in ended]


def _signal(processes: Sequence[int], number: signal.Signals) -> None:
    for pid in processes:
        try:
            os.kill(pid, number)
        except ProcessLookupError:  # ended meanwhile
            continue


def _reap(all_but: int) -> None:
    """Let ended orphans go; the command itself is left to its own ``poll``."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == all_but:
            return
        os.waitpid(ended.si_pid, 0)
