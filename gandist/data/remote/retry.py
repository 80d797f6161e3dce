"""Attempts at a file until all of it is here: how often, and how long between them."""

from __future__ import annotations

import random
from collections.abc import Callable

from gandist.data.remote.address import shown
from gandist.data.remote.part import Part, TransientError
from gandist.errors import DataError

TRIES_IN_A_ROW = 6
"""Attempts without a new byte after which we give up."""
TRIES_IN_ALL = 100
"""Attempts at one file after which we give up, however many bytes they brought."""
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 30.0
LONGEST_ASKED_PAUSE_SECONDS = 120.0
"""The longest wait that a server may ask for."""

_jitter = random.Random()  # of our own: nobody else's draws may depend on how often a server failed


def finish(part: Part, attempt: Callable[[Part], None]) -> None:
    """Call ``attempt`` until ``part`` is complete.

    An attempt that brings bytes beyond those that were ever here begins the count of failures in a row anew, unless
    they came too slowly.

    Raises:
        DataError: the file is not there, is not what it should be, or did not arrive in all these attempts.
        MachineError: this machine cannot fetch or keep it.

    """
    reached, failures, problem = part.length, 0, TransientError("nothing was tried")
    for _ in range(TRIES_IN_ALL):
        if part.complete:
            return
        try:
            attempt(part)
            if part.complete:
                return
            problem = TransientError("the body ended early")
        except TransientError as error:
            problem = error
        failures = 1 if part.length > reached and not problem.slow else failures + 1
        reached = max(reached, part.length)
        if failures >= TRIES_IN_A_ROW:
            break
        part.pause(pause_seconds(failures, problem.retry_after_seconds))
    whole = f" of {part.size}" if part.size is not None else ""
    raise DataError(
        f"{shown(part.url)}: could not be fetched: {problem}, after {part.length}{whole} bytes and several attempts. "
        "Look at the server and the network; the same command continues."
    )


def pause_seconds(failures: int, asked_seconds: float | None) -> float:
    """Return how long to wait after so many failures in a row: what the server asked for, or twice as long each time.

    Up to half as much is added at random, so that many readers do not come back all at once.
    """
    doubled = min(FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1), LONGEST_PAUSE_SECONDS)
    asked = min(max(asked_seconds or 0.0, 0.0), LONGEST_ASKED_PAUSE_SECONDS)
    return max(doubled, asked) * (1 + _jitter.random() / 2)
