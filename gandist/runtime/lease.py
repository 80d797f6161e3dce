"""One writer for each run folder: who holds it, and how an attempt that was given up learns that it may not write.

Two guards. A lock on the file keeps a second process from starting while the first lives, and is gone with it, however
it ends. The name in the file is the fence: whoever starts writes its own there, and an older attempt that is still
alive somewhere (cut off by the network, or on a node whose locks are not seen here) finds another's name before it
publishes anything more, and stops.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
import uuid
import weakref
from pathlib import Path
from typing import Any

from gandist.errors import MachineError, RunError
from gandist.runtime.files import flush_file

LEASE_NAME = "lease.json"

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # file systems that have none


class Lease:
    """This process's hold on a run folder, until it is closed or the process ends."""

    def __init__(self, path: Path, owner: str, descriptor: int) -> None:
        self._path, self._owner, self._descriptor = path, owner, descriptor
        self.close = weakref.finalize(self, os.close, descriptor)  # lets go of the folder, at the latest when forgotten

    @classmethod
    def take(cls, folder: Path) -> Lease:
        """Take the folder, which is made if need be, from nobody or from an attempt that is over.

        An earlier attempt of the same Slurm job is over because Slurm started this one, even where its lock lingers.

        Raises:
            MachineError: another process is training in this folder, or it cannot be written.

        """
        path = folder / LEASE_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise MachineError(f"{folder}: cannot be written ({error.strerror}). Choose another --run.root.") from None
        lease = cls(path, uuid.uuid4().hex, descriptor)
        holder = _read(path)
        if not _locked(descriptor) and not _earlier_attempt(holder):
            lease.close()
            where = f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"
            raise MachineError(
                f"{folder}: another job is training in this folder ({where}). Wait for it, stop it with "
                f"touch '{folder / 'STOP'}', or start another run with --run.name NAME."
            )
        try:
            lease._sign()
        except OSError as error:
            lease.close()
            raise MachineError(f"{path}: cannot be written ({error.strerror}); free some space.") from None
        return lease

    def _sign(self) -> None:
        """Write our name in place: a new file would not carry the lock."""
        content = {
            "owner": self._owner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "attempt": _attempt(),
            "since": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        text = json.dumps(content).encode() + b"\n"
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))
        flush_file(self._path)

    @property
    def held(self) -> bool:
        """Whether the folder is still ours."""
        return _read(self._path).get("owner") == self._owner

    def check(self) -> None:
        """Raise :class:`RunError` if another attempt has taken the folder; called before anything is published."""
        holder = _read(self._path)
        if holder.get("owner") == self._owner:
            return
        taken = f"process {holder.get('pid')} on {holder.get('host')} has taken it over since {holder.get('since')}"
        what = taken if holder else f"{LEASE_NAME}, which says whose it is, was removed"
        raise RunError(f"{self._path.parent}: this run is no longer ours: {what}. This attempt writes nothing more.")


def _locked(descriptor: int) -> bool:
    """Return whether we hold the lock, or nobody here can."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True


def _earlier_attempt(holder: dict[str, Any]) -> bool:
    job = os.environ.get("SLURM_JOB_ID")
    attempt = holder.get("attempt")
    return job is not None and holder.get("slurm_job") == job and isinstance(attempt, int) and attempt < _attempt()


def _attempt() -> int:
    """Return how often Slurm has put this job back into the queue."""
    count = os.environ.get("SLURM_RESTART_COUNT", "0")
    return int(count) if count.isdigit() else 0


def _read(path: Path) -> dict[str, Any]:
    """Return what the file says; nothing where it is new, gone or half-written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
