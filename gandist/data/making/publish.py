"""A folder that appears whole or not at all, and work on it that can be gone on with after anything that ends it.

The work lies in one hidden folder beside the destination until it is done::

    .partial-0123456789ab/
      lock          locked while somebody works here
      ledger.json   what is finished
      unpacked/     archives that had to be unpacked
      set/          what will be the destination
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gandist.errors import DataError, GandistError, MachineError
from gandist.runtime.files import flush_folder

_NO_SPACE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file reached the size limit that is set for this process",
}
_KEPT = "What is finished is kept: the same command goes on from there"


@dataclass
class Scratch:
    """The places in the hidden folder; ``begun`` says that this run has taken it over."""

    folder: Path
    begun: bool = False

    @property
    def set(self) -> Path:
        """What will be the destination."""
        return self.folder / "set"

    @property
    def unpacked(self) -> Path:
        """For archives that must be unpacked."""
        return self.folder / "unpacked"

    @property
    def ledger(self) -> Path:
        """Where it is written down what is finished; there is no such file before something is."""
        return self.folder / "ledger.json"


@contextmanager
def published(destination: Path) -> Iterator[Scratch]:
    """Give a scratch folder beside ``destination``; what is in its ``set`` at the end becomes ``destination``.

    After an error of the user nothing stays. After anything else that ends the work, what the ledger names stays.

    Raises:
        DataError: the destination exists, cannot be written, or is being made by another process.
        MachineError: there is no space left, or a worker died.

    """
    check_free(destination)
    with _in_words(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(os.fsencode(destination.name)).hexdigest()[:12]
        scratch = Scratch(destination.parent / f".partial-{name}")
        lock = _locked(scratch.folder, destination)
    try:
        with _in_words(destination, scratch):
            yield scratch
            flush_folder(scratch.set)
            check_free(destination)
            scratch.set.rename(destination)
            flush_folder(destination.parent)
    except BaseException as error:
        fault = isinstance(error, GandistError) and not isinstance(error, MachineError)
        if scratch.ledger.exists() and not (fault and scratch.begun):
            shutil.rmtree(scratch.unpacked, ignore_errors=True)
            if isinstance(error, KeyboardInterrupt):
                print(f"\ngandist: interrupted. {_KEPT}.", file=sys.stderr)
        else:
            _discard(scratch.folder)
        raise
    else:
        _discard(scratch.folder)
    finally:
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
def _in_words(destination: Path, scratch: Scratch | None = None) -> Iterator[None]:
    """Turn the operating system's errors into messages for people, and say whether something is kept."""

    def kept() -> str:
        return _KEPT if scratch is not None and scratch.ledger.exists() else "Nothing was left behind"

    try:
        yield
    except MachineError as error:
        raise MachineError(f"{error} {kept()}.") from error
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise MachineError(
                f"{destination}: {_NO_SPACE[error.errno]}. {kept()}; free some space, or write to another disk."
            ) from error
        raise DataError(f"{destination}: cannot be written ({error.strerror or error}).") from error


def _locked(folder: Path, destination: Path) -> int:
    """Make the folder and lock it; return the descriptor that holds the lock.

    The lock is on a file, since network file systems lock no folders. One that knows no locks is taken as it is.
    """
    path = folder / "lock"
    while True:
        folder.mkdir(exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue  # its owner has just finished and removed it
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DataError(
                f"{destination}: another process is making it just now. Wait for it, or give another folder."
            ) from None
        except OSError:
            return descriptor
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)  # it was removed between opening and locking


def _discard(folder: Path) -> None:
    """Remove the scratch folder; under another name, so that nobody who comes now begins to work in it."""
    gone = folder.with_name(f"{folder.name}-gone")
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(OSError):
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
