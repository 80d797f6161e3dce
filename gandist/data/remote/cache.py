"""Shards from afar, kept on a disk of this node, where all its processes share them.

A shard is fetched by one process while the others wait for its lock, continued where a dropped connection or a killed
process left it, checked against its size and digest, and renamed to its place. Who reads it holds a lease; what nobody
leases may go when another shard needs the room.
"""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import io
import os
import re
import stat
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from gandist.config import CacheConfig
from gandist.data.remote import https, room
from gandist.data.remote.address import WEB_SCHEMES, base_name, check_address, scheme_of, shown
from gandist.data.remote.part import Part
from gandist.data.remote.retry import finish
from gandist.errors import DataError, MachineError
from gandist.runtime.files import digest

_NAME_LETTERS = 80
_PATIENCE_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.4)
"""A reader waits so long for leases that are about to be given back before the cache grows beyond its bound."""


class Lease:
    """A shard on this disk, which stays there while the lease is open: until ``close``, or the end of the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Give the shard back; once is enough."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Cache:
    """The shards from afar that are on this node. It can be sent to another process, and shared between them."""

    def __init__(self, folder: Path, limit_bytes: int | None, *, allow_http: bool = False) -> None:
        self.folder, self.limit_bytes, self._allow_http = folder, limit_bytes, allow_http
        self._notes: list[str] = []
        self._said_full = False

    def lease(
        self,
        url: str,
        *,
        size: int | None = None,
        sha256: str | None = None,
        beyond: bool = True,
        stop: threading.Event | None = None,
    ) -> Lease:
        """Return a lease on the file at ``url``, which is fetched if it is not here.

        Args:
            url: of the file.
            size: its bytes, where they are known.
            sha256: its digest, where it is known.
            beyond: whether the cache may exceed its bound where everything in it is leased.
            stop: gives up the download when it is set.

        Raises:
            ConfigError: the url is of a kind that is not accepted.
            DataError: the file cannot be had, or is not the one that was indexed.
            MachineError: this machine cannot fetch or keep it.
            NoRoomError: only without ``beyond``: everything is leased.
            CancelledError: only with ``stop``.

        """
        path = self.path(url)
        lease = self._held(path, size, sha256)
        if lease is not None:
            return lease
        check_address(url, allow_http=self._allow_http)
        _make_folder(self.folder)
        with room.locked(room.beside(path, "lock"), stop) as lock:
            _mend_record(path)
            lease = self._held(path, size, sha256)  # somebody may have fetched it while we waited
            if lease is not None:
                return lease
            path.unlink(missing_ok=True)  # another version: who reads it goes on with what is open
            try:
                return self._fetched(url, path, lock, size, sha256, beyond, stop)
            finally:
                os.ftruncate(lock, 0)  # nothing is to come any more
                _drop_empty(room.beside(path, "part"))

    def read(self, url: str, limit_bytes: int) -> bytes:
        """Return the bytes of a small file, which is not kept; errors are those of :meth:`lease`."""
        check_address(url, allow_http=self._allow_http)
        content = io.BytesIO()
        finish(Part(url, content, limit_bytes=limit_bytes), self._attempt(url))
        return content.getvalue()

    def path(self, url: str) -> Path:
        """Return where the file at ``url`` is kept."""
        name = re.sub(r"[^A-Za-z0-9._-]", "_", base_name(url))[-_NAME_LETTERS:]
        return self.folder / f"{hashlib.sha256(url.encode()).hexdigest()[:24]}-{name}"

    def capacity_bytes(self) -> int:
        """Return how much the cache can hold: its bound, or what the disk has room for if that is less."""
        held = sum(entry.bytes - entry.missing_bytes for entry in room.entries(self.folder))
        disk = held + room.free_bytes(self.folder) - room.SPARE_BYTES
        return disk if self.limit_bytes is None else min(disk, self.limit_bytes)

    def notes(self) -> tuple[str, ...]:
        """Return what a person should know of what happened in this process since the last call."""
        said, self._notes = tuple(self._notes), []
        return said

    def _attempt(self, url: str) -> Callable[[Part], None]:
        if scheme_of(url) in WEB_SCHEMES:
            return partial(https.fetch, allow_http=self._allow_http)
        from gandist.data.remote import object_store  # its drivers take a while to import

        return object_store.fetch

    def _held(self, path: Path, size: int | None, sha256: str | None) -> Lease | None:
        """Return a lease on the shard if it is here and the one that is meant."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        kept = False
        try:
            # The record is read before we look whether the file still stands there: it changes after the file went.
            fits = sha256 is None or _recorded_digest(path) == sha256
            fits = fits and (size is None or os.fstat(descriptor).st_size == size)
            kept = room.grab(descriptor, path, fcntl.LOCK_SH) and fits
            if not kept:
                return None
            os.utime(descriptor)
            return Lease(path, descriptor)
        finally:
            if not kept:
                os.close(descriptor)

    def _fetched(
        self,
        url: str,
        path: Path,
        lock: int,
        size: int | None,
        sha256: str | None,
        beyond: bool,
        stop: threading.Event | None,
    ) -> Lease:
        part_path = room.beside(path, "part")
        for _ in range(2):
            with part_path.open("ab", buffering=0) as file:  # so that nothing that arrived is lost with the process
                part = Part(
                    url,
                    file,
                    size=size,
                    proven=sha256 is not None,
                    tag_file=room.beside(path, "tag"),
                    make_room=partial(self._make_room, path, lock, beyond, stop or threading.Event()),
                    stop=stop,
                )
                finish(part, self._attempt(url))
                os.fsync(file.fileno())
            found = digest(part_path)
            if sha256 is None or found == sha256:
                return _publish(path, part_path, found)
            part_path.unlink()
        raise DataError(
            f"{shown(url)}: arrived twice with the SHA-256 {found[:16]}..., the index recorded {str(sha256)[:16]}...: "
            "the shard changed since it was indexed. Restore it, or index the set again."
        )

    def _make_room(self, path: Path, lock: int, beyond: bool, stop: threading.Event, wanted_bytes: int) -> None:
        for pause_seconds in _PATIENCE_SECONDS:
            try:
                room.make_room(path, lock, wanted_bytes, self.limit_bytes, beyond=False)
                return
            except room.NoRoomError:
                if not beyond:
                    raise
            stop.wait(pause_seconds)
        within = room.make_room(path, lock, wanted_bytes, self.limit_bytes, beyond=True)
        if not within and not self._said_full:
            assert self.limit_bytes is not None
            self._said_full = True
            self._notes.append(
                f"{self.folder}: all shards in the cache are in use, so that it grows beyond execution.cache.gb "
                f"{self.limit_bytes / 1e9:g}. A larger bound would save downloads."
            )


def _publish(path: Path, part_path: Path, sha256: str) -> Lease:
    """Move a whole file to its place, leased before anybody can find it there."""
    descriptor = os.open(part_path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        room.beside(path, "sha256").write_text(sha256)
        room.publish(part_path, path)
        os.utime(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    room.beside(path, "tag").unlink(missing_ok=True)
    return Lease(path, descriptor)


def _drop_empty(part_path: Path) -> None:
    if part_path.is_file() and part_path.stat().st_size == 0:
        part_path.unlink()


def _recorded_digest(path: Path) -> str | None:
    """Return the digest that a shard arrived with, or None where there is no record of it."""
    try:
        return room.beside(path, "sha256").read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _mend_record(path: Path) -> None:
    """Record the digest of a shard whose record was lost; its lock is ours."""
    if _recorded_digest(path) is None and path.is_file():
        room.beside(path, "sha256").write_text(digest(path))


# --- the folder --------------------------------------------------------------------------------------------


def open_cache(settings: CacheConfig, *, allow_http: bool = False) -> Cache:
    """Return the cache that a recipe asks for.

    Raises:
        MachineError: its folder cannot be made, or belongs to somebody else.

    """
    folder = settings.dir if settings.dir is not None else Path(tempfile.gettempdir()) / f"gandist-{_user()}"
    folder = folder.expanduser().absolute()  # a worker may be elsewhere
    _make_folder(folder)
    limit = None if settings.gb is None else int(settings.gb * 1e9)
    return Cache(folder, limit, allow_http=allow_http)


def _user() -> str:
    try:
        return re.sub(r"[^A-Za-z0-9._-]", "_", getpass.getuser())
    except (KeyError, OSError):
        return str(os.getuid())


def _make_folder(folder: Path) -> None:
    """Make the folder for us alone; one that others own or may write to could hold anything."""
    advice = "Give a folder of your own with --execution.cache.dir."
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.lstat(folder)
    except OSError as error:
        raise MachineError(f"{folder}: cannot be the cache's folder ({error.strerror or error}). {advice}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise MachineError(f"{folder}: is a link or a file, not the cache's folder. {advice}")
    if status.st_uid != os.getuid():
        raise MachineError(f"{folder}: belongs to another user, who could put anything there. {advice}")
    if status.st_mode & 0o022:
        raise MachineError(
            f"{folder}: others may write there, and so put anything there. Close it with chmod go-w, or another way: "
            f"{advice}"
        )
