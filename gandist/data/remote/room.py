"""Room in the cache's folder: what lies there, what may go, and what a download will need.

For a shard ``X`` the folder holds ``X`` itself, ``.X.sha256`` (its digest) and ``.X.lock``, and while it arrives
``.X.part`` and ``.X.tag`` (the server's name of the version). Who fetches a shard holds its lock, in which stands how
many bytes it will have; who uses a shard holds a shared lock on the shard itself. All locks are the system's own, which
end with the process that holds them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gandist.data.remote.part import CancelledError
from gandist.errors import MachineError

SPARE_BYTES = 64 << 20
"""Left free on the disk for others."""

_NAME = re.compile(r"[0-9a-f]{24}-[A-Za-z0-9._-]*")
ROOM_LOCK = ".room.lock"
_POLL_SECONDS = 0.05


class NoRoomError(Exception):
    """Everything in the cache is in use, and there is no room for one more shard."""


def beside(path: Path, kind: str) -> Path:
    """Return the place of a side file of the shard at ``path``."""
    return path.with_name(f".{path.name}.{kind}")


@dataclass(frozen=True)
class Entry:
    """A shard in the folder, whole or arriving."""

    path: Path
    bytes: int
    """On the disk now, or for an arriving one that somebody fetches, once it is whole."""
    missing_bytes: int
    """How many of them the disk does not hold yet."""
    used: float
    """When it was last used, by the clock of the folder."""
    arriving: bool


# --- locks -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(path: Path, stop: threading.Event | None = None) -> Iterator[int]:
    """Hold the lock file at ``path``, which is made if need be; yield its descriptor.

    Raises:
        CancelledError: ``stop`` was set before the lock was free.
        MachineError: the disk has no locks.

    """
    waiting = stop or threading.Event()
    while (descriptor := _try_lock(path)) is None:
        if waiting.wait(_POLL_SECONDS):
            raise CancelledError
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(path: Path, *, make: bool = True) -> int | None:
    """Return the descriptor of a lock file that is now ours, or None if it is somebody else's (or gone)."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if make else 0), 0o600)
    except FileNotFoundError:
        if make:
            raise
        return None
    if grab(descriptor, path, fcntl.LOCK_EX | fcntl.LOCK_NB):
        return descriptor
    os.close(descriptor)
    return None


def grab(descriptor: int, path: Path, how: int) -> bool:
    """Lock an open file; return False if it is not free, or no longer the file that stands at ``path``."""
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise MachineError(
                f"{path.parent}: this disk has no file locks ({error.strerror}). Choose one of the node's own with "
                "--execution.cache.dir."
            ) from None
        raise
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


# --- what lies there ---------------------------------------------------------------------------------------


def entries(folder: Path) -> list[Entry]:
    """Return the shards in the folder, whole and arriving; other files in it are none of ours."""
    found: dict[Path, Entry] = {}
    with os.scandir(folder) as listing:
        for file in listing:
            name = file.name
            arriving = name.startswith(".") and name.endswith(".part")
            path = folder / (name[1:-5] if arriving else name)
            if not _NAME.fullmatch(path.name):
                continue
            with contextlib.suppress(FileNotFoundError):  # it may go at any moment
                status = file.stat(follow_symlinks=False)
                whole = max(_announced(path), status.st_size) if arriving else status.st_size
                if not (arriving and path in found):  # it may become whole while we look
                    found[path] = Entry(path, whole, whole - status.st_size, status.st_mtime, arriving)
    return list(found.values())


def _announced(path: Path) -> int:
    """Return how many bytes an arriving shard will have; 0 if nobody fetches it."""
    lock = beside(path, "lock")
    descriptor = _try_lock(lock, make=False)
    if descriptor is not None:
        os.close(descriptor)
        return 0
    try:
        return int(lock.read_text() or 0)
    except (OSError, ValueError):
        return 0


def remove(entry: Entry) -> bool:
    """Remove a shard that nobody uses or fetches; return whether it is gone."""
    lock = _try_lock(beside(entry.path, "lock"))
    if lock is None:
        return False
    try:
        if entry.arriving and not beside(entry.path, "part").exists():
            return False  # it has become whole since we looked
        if not entry.arriving and not _remove_whole(entry.path):
            return False
        for kind in ("part", "tag", "lock") if entry.arriving else ("sha256", "lock"):
            beside(entry.path, kind).unlink(missing_ok=True)
        return True
    finally:
        os.close(lock)


def _remove_whole(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        free = grab(descriptor, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if free:
            path.unlink(missing_ok=True)
        return free
    finally:
        os.close(descriptor)


# --- making room -------------------------------------------------------------------------------------------


def make_room(path: Path, lock: int, wanted_bytes: int, limit_bytes: int | None, *, beyond: bool) -> bool:
    """Make room for the shard at ``path``, whose lock is ours, and announce how long it will be.

    What was used longest ago goes first. Where everything is in use, the bound is exceeded if ``beyond`` allows it.

    Returns:
        Whether the cache will be within its bound.

    Raises:
        NoRoomError: the bound would be exceeded or the disk has no room, and ``beyond`` is False.
        MachineError: the disk has no room.

    """
    folder = path.parent
    with locked(folder / ROOM_LOCK):  # one at a time, so that no two count on the same room
        there = entries(folder)
        others = sorted((entry for entry in there if entry.path != path), key=lambda entry: entry.used)
        missing = wanted_bytes - sum(e.bytes - e.missing_bytes for e in there if e.path == path)
        held = sum(entry.bytes for entry in others)
        pending = sum(entry.missing_bytes for entry in others)

        def fits() -> bool:
            return limit_bytes is None or held + wanted_bytes <= limit_bytes

        def disk_has_room() -> bool:
            return free_bytes(folder) >= missing + pending + SPARE_BYTES

        for entry in others:
            if fits() and disk_has_room():
                break
            if remove(entry):
                held -= entry.bytes
        if not beyond and not (fits() and disk_has_room()):
            raise NoRoomError
        if not disk_has_room():
            raise MachineError(
                f"{folder}: the disk has {_mb(free_bytes(folder))} MB free, a shard from afar needs {_mb(missing)} MB "
                f"more, and all {_mb(held)} MB of the cache are in use. Make room on this disk, or choose another with "
                "--execution.cache.dir."
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(wanted_bytes).encode(), 0)
        return fits()


def publish(part_path: Path, path: Path) -> None:
    """Move a whole shard to its place, at a moment when nobody counts what lies there."""
    with locked(path.parent / ROOM_LOCK):
        part_path.replace(path)


def free_bytes(folder: Path) -> int:
    """Return what the disk has free for us."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f}"
