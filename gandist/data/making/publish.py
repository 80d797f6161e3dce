"""A folder that appears whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gandist.errors import DataError, MachineError

_NO_SPACE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file reached the size limit that is set for this process",
}


@contextmanager
def published(destination: Path) -> Iterator[Path]:
    """Give a scratch folder beside ``destination``, and rename it to that at the end; after an error it is removed.

    What an earlier process that was killed left behind is removed too.

    Raises:
        DataError: the destination exists, or cannot be written.
        MachineError: there is no space left.

    """
    check_free(destination)
    prefix = ".partial-" + hashlib.sha256(os.fsencode(destination.name)).hexdigest()[:12] + "-"
    with _in_words(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        _sweep(destination.parent, prefix)
        scratch = destination.parent / f"{prefix}{os.getpid()}"
        scratch.mkdir()
        lock = _locked(scratch)
        try:
            yield scratch
            _sync(scratch)
            check_free(destination)
            scratch.rename(destination)
            _sync(destination.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            if lock is not None:
                os.close(lock)


def check_free(destination: Path) -> None:
    """Raise :class:`DataError` unless ``destination`` can be made: it is not there yet, or is an empty folder."""
    if not os.path.lexists(destination):
        return
    if destination.is_dir() and not destination.is_symlink() and not any(destination.iterdir()):
        return
    raise DataError(
        f"{destination}: exists already, and nothing is ever overwritten. "
        f"Give another folder, or remove it first: rm -r '{destination}'"
    )


@contextmanager
def _in_words(destination: Path) -> Iterator[None]:
    """Turn the operating system's errors into messages for people."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise MachineError(
                f"{destination}: {_NO_SPACE[error.errno]}. Nothing was left behind; "
                "free some space, or write to another disk."
            ) from error
        raise DataError(f"{destination}: cannot be written ({error.strerror or error}).") from error


def _locked(folder: Path) -> int | None:
    """Return the folder, open and locked, so that nobody takes it for a leftover; None if another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _sweep(parent: Path, prefix: str) -> None:
    for leftover in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            lock = _locked(leftover)
            if lock is not None:
                shutil.rmtree(leftover, ignore_errors=True)
                os.close(lock)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
