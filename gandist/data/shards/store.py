"""Reads pieces of shards, with as few open files as needed."""

from __future__ import annotations

import itertools
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gandist.data.shards.index import Shard
from gandist.errors import DataError

_OPEN_LIMIT = 256  # half of the smallest usual limit of a process
_TRIES = 3  # network file systems drop a handle now and then
_FIRST_PAUSE_SECONDS = 0.1
_LOOKED_AT = 16

T = TypeVar("T")


class Places(Protocol):
    """Where the shards of a set are. It can be sent to another process."""

    def open(self, shard: int) -> int:
        """Return a new file descriptor of a shard, which has the size that the index recorded.

        Raises:
            DataError: the shard has another size, or cannot be had at all.
            OSError: it cannot be read just now.

        """

    def name(self, shard: int) -> str:
        """Return what to call a shard in a message."""


class LocalPlaces:
    """Shards below a folder."""

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._folder = folder.absolute()  # a worker may be elsewhere
        self._shards = [(shard.url, shard.bytes) for shard in shards]

    def open(self, shard: int) -> int:
        """Return a new file descriptor of a shard, after a look at its size."""
        url, size = self._shards[shard]
        path = self._folder / url
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            check_size(path, os.fstat(descriptor).st_size, size)
        except DataError:
            os.close(descriptor)
            raise
        return descriptor

    def name(self, shard: int) -> str:
        """Return the shard's path."""
        return str(self._folder / self._shards[shard][0])


class Store:
    """The shards of one set, opened when first read from.

    Safe to copy into another process, by pickling or forking: open files are not shared.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._open: OrderedDict[int, int] = OrderedDict()  # shard number -> file descriptor
        self._owner = os.getpid()

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """Return ``size`` bytes at ``offset`` of a shard.

        Raises:
            DataError: the shard is gone, has another size than when it was indexed, or cannot be read.

        """
        data = self._patiently(shard, lambda descriptor: os.pread(descriptor, size, offset))
        self._check_whole(shard, offset, len(data), size)
        return data

    def read_into(self, shard: int, offset: int, size: int, buffers: Sequence[memoryview]) -> None:
        """Fill the buffers, which hold ``size`` bytes together, with what lies at ``offset`` of a shard.

        Raises:
            DataError: as :meth:`read`.

        """
        done = self._patiently(shard, lambda descriptor: os.preadv(descriptor, buffers, offset))
        self._check_whole(shard, offset, done, size)

    def name(self, shard: int) -> str:
        """Return what to call a shard in a message."""
        return self._places.name(shard)

    def close(self) -> None:
        """Close every open file."""
        for shard in list(self._open):
            self._forget(shard)

    def _patiently(self, shard: int, read: Callable[[int], T]) -> T:
        """Return what ``read`` makes of a shard's descriptor; what may be a passing error gets another try."""
        for attempt in range(_TRIES):
            try:
                return read(self._descriptor(shard))
            except OSError as error:
                self._forget(shard)
                if attempt + 1 == _TRIES or isinstance(error, FileNotFoundError):
                    raise DataError(f"{self.name(shard)}: cannot be read ({error.strerror or error}).") from error
                time.sleep(_FIRST_PAUSE_SECONDS * 4**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _check_whole(self, shard: int, offset: int, done: int, size: int) -> None:
        if done != size:
            raise DataError(f"{self.name(shard)}: ends at byte {offset + done}; it changed while it was read.")

    def _descriptor(self, shard: int) -> int:
        if self._owner != os.getpid():  # after a fork the parent's descriptors are its own to close
            self._open, self._owner = OrderedDict(), os.getpid()
        descriptor = self._open.get(shard)
        if descriptor is not None:
            self._open.move_to_end(shard)
            return descriptor
        self._let_go_of_deleted()
        descriptor = self._open[shard] = self._places.open(shard)
        if len(self._open) > _OPEN_LIMIT:
            self._forget(next(iter(self._open)))
        return descriptor

    def _let_go_of_deleted(self) -> None:
        """Close shards that a cache has deleted, since an open file keeps its space on the disk.

        Those that were longest unused are looked at; the others' turn comes, and looking costs time.
        """
        for shard in [*itertools.islice(self._open, _LOOKED_AT)]:
            if os.fstat(self._open[shard]).st_nlink == 0:
                self._forget(shard)

    def _forget(self, shard: int) -> None:
        descriptor = self._open.pop(shard, None)
        if descriptor is not None:
            os.close(descriptor)

    def __getstate__(self) -> dict[str, Any]:
        return {"places": self._places}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def check_size(path: Path, size: int, indexed: int) -> None:
    """Raise :class:`DataError` unless a shard still has the size that the index recorded."""
    if size != indexed:
        raise DataError(
            f"{path}: has {size} bytes, the index recorded {indexed}: the shard changed since it was indexed. "
            "Restore it, or prepare the set again."
        )
