"""Every error that gandist raises on purpose, and what a caller learns from its class.

::

    GandistError                     the message says where, what value, what to do; shown without a traceback
    ├── UserError                    the user's input is wrong: exit code 2, nothing was written or lost
    │   ├── ConfigError              a recipe, a flag, or a combination of knobs
    │   ├── DataError                a source, a shard, an index
    │   └── MachineError       the machine lacks what was asked for: a GPU, ranks, a package, space, a key
    ├── CheckpointError              a checkpoint is damaged or does not belong to this run
    │   └── ResumeError            the settings changed in a way that would make a different run (exit code 2)
    └── RunError                    the run itself went wrong (exit code 1)

An ``assert`` is for our own mistakes; a class of this tree is for the user's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_PREEMPTED = 75


class GandistError(Exception):
    """Root of the tree; ``str(error)`` is a complete message for a person."""

    exit_code = EXIT_FAILED


class UserError(GandistError):
    """The user's input is wrong."""

    exit_code = EXIT_USER_ERROR


class ConfigError(UserError):
    """A recipe, a flag, or a combination of knobs is wrong."""


class DataError(UserError):
    """A source, a shard or an index is missing, damaged or unfit."""


class MachineError(UserError):
    """The machine lacks what was asked for."""


class CheckpointError(GandistError):
    """A checkpoint is damaged or does not belong to this run."""


class ResumeError(CheckpointError):
    """The settings changed in a way that would make the continued run a different one."""

    exit_code = EXIT_USER_ERROR


class RunError(GandistError):
    """The run itself went wrong."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known word nearest to ``word``, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
