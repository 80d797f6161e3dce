"""A file that is arriving: the bytes so far, and what is known of the whole."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from gandist.data.remote.address import shown
from gandist.errors import DataError, MachineError


class CancelledError(Exception):
    """Nobody wants the file any more."""


class TransientError(Exception):
    """An attempt failed in a way that the next one may not.

    Attributes:
        retry_after_seconds: how long the server asked us to wait.
        slow: the bytes came too slowly, so that they count for nothing.

    """

    def __init__(self, what: str, *, retry_after_seconds: float | None = None, slow: bool = False) -> None:
        super().__init__(what)
        self.retry_after_seconds, self.slow = retry_after_seconds, slow


class Part:
    """The bytes of ``url`` so far, in an open file; what is missing is appended.

    Attributes:
        length: bytes so far.
        size: bytes of the whole, or None while nobody has said it.
        tag: the server's name for the version that the bytes belong to, or None where it gives none.
        proven: whether a digest will tell in the end that all bytes are of one version.

    """

    def __init__(
        self,
        url: str,
        file: BinaryIO,
        *,
        size: int | None = None,
        limit_bytes: int | None = None,
        proven: bool = False,
        tag_file: Path | None = None,
        make_room: Callable[[int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.url, self.size, self.proven = url, size, proven
        self._file, self._tag_file, self._limit_bytes = file, tag_file, limit_bytes
        self._make_room, self._stop = make_room, stop or threading.Event()
        self.length = file.seek(0, 2)
        self.tag = self._saved_tag()
        if size is not None and self.length > size:
            self.restart(None)
        if size is not None and make_room is not None:
            make_room(size)

    @property
    def complete(self) -> bool:
        """Whether every byte is here."""
        return self.length == self.size

    @property
    def resumable(self) -> bool:
        """Whether more bytes may be appended to these without mixing two versions unseen."""
        return self.length > 0 and (self.tag is not None or self.proven)

    def expect(self, total: int) -> None:
        """Learn from the server how long the whole is.

        Raises:
            DataError: it is not what was expected, or too long.

        """
        if self.size is None:
            if self._limit_bytes is not None and total > self._limit_bytes:
                raise DataError(f"{shown(self.url)}: has {total} bytes; at most {self._limit_bytes} belong there.")
            if self._make_room is not None:
                self._make_room(total)
            self.size = total
        elif total != self.size:
            raise self.unequal(str(total))

    def unequal(self, found: str) -> DataError:
        """Return the error that the file has ``found`` bytes, and not as many as the index recorded."""
        return DataError(
            f"{shown(self.url)}: has {found} bytes, the index recorded {self.size}: the shard changed since it was "
            "indexed. Restore it, or index the set again."
        )

    def restart(self, tag: str | None) -> None:
        """Throw the bytes away; what comes next is of the version ``tag``."""
        self._file.seek(0)
        self._file.truncate()
        self.length, self.tag = 0, tag
        if self._tag_file is not None:
            if tag is None:
                self._tag_file.unlink(missing_ok=True)
            else:
                self._tag_file.write_text(tag, encoding="utf-8")

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            DataError: there are more than the whole can have.
            MachineError: the disk takes no more.
            CancelledError: nobody wants them any more.

        """
        if self._stop.is_set():
            raise CancelledError
        most = self.size if self.size is not None else self._limit_bytes
        if most is not None and self.length + len(data) > most:
            raise (
                self.unequal(f"more than {most}")
                if self.size is not None
                else DataError(f"{shown(self.url)}: has more than the {most} bytes that belong there.")
            )
        try:
            left = memoryview(data)
            while left:  # an unbuffered file may take less than it is given
                written = self._file.write(left)
                self.length += written
                left = left[written:]
        except OSError as error:
            raise MachineError(
                f"{shown(self.url)}: cannot be kept on this machine ({error.strerror or error}) after {self.length} "
                "bytes. Make room there, or choose another disk with --execution.cache.dir."
            ) from error

    def pause(self, seconds: float) -> None:
        """Wait before the next attempt; raises :class:`CancelledError` at once when nobody wants the file any more."""
        if self._stop.wait(seconds):
            raise CancelledError

    def _saved_tag(self) -> str | None:
        try:
            return self._tag_file.read_text(encoding="utf-8") or None if self._tag_file is not None else None
        except (OSError, UnicodeDecodeError):
            return None
