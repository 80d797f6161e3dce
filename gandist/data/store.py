"""Reads pieces of local shards, with as few open files as needed."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gandist.errors import DataError

_OPEN_LIMIT = 256  # half of the smallest usual limit of a process
_TRIES = 3  # network file systems drop a handle now and then
_FIRST_PAUSE_SECONDS = 0.1


class Store:
    """The shards of one set, opened when first read from and checked against the size that the index recorded.

    Safe to copy into another process, by pickling or forking: open files are not shared.
    """

    def __init__(self, paths: Sequence[Path], sizes: Sequence[int]) -> None:
        self._paths, self._sizes = list(paths), list(sizes)
        self._open: OrderedDict[int, int] = OrderedDict()  # shard number -> file descriptor
        self._owner = os.getpid()

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """Return ``size`` bytes at ``offset`` of a shard.

        Raises:
            DataError: the shard is gone, has another size than when it was indexed, or cannot be read.

        """
        for attempt in range(_TRIES):
            try:
                data = os.pread(self._descriptor(shard), size, offset)
                break
            except OSError as error:
                self._forget(shard)
                if attempt + 1 == _TRIES or isinstance(error, FileNotFoundError):
                    raise DataError(f"{self._paths[shard]}: cannot be read ({error.strerror or error}).") from error
                time.sleep(_FIRST_PAUSE_SECONDS * 4**attempt)
        if len(data) != size:
            raise DataError(f"{self._paths[shard]}: ends at byte {offset + len(data)}; it changed while it was read.")
        return data

    def close(self) -> None:
        """Close every open file."""
        for shard in list(self._open):
            self._forget(shard)

    def _descriptor(self, shard: int) -> int:
        if self._owner != os.getpid():  # after a fork the parent's descriptors are its own to close
            self._open, self._owner = OrderedDict(), os.getpid()
        descriptor = self._open.get(shard)
        if descriptor is not None:
            self._open.move_to_end(shard)
            return descriptor
        descriptor = os.open(self._paths[shard], os.O_RDONLY | os.O_CLOEXEC)
        self._open[shard] = descriptor
        check_size(self._paths[shard], os.fstat(descriptor).st_size, self._sizes[shard])
        if len(self._open) > _OPEN_LIMIT:
            self._forget(next(iter(self._open)))
        return descriptor

    def _forget(self, shard: int) -> None:
        descriptor = self._open.pop(shard, None)
        if descriptor is not None:
            os.close(descriptor)

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self._paths, "sizes": self._sizes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def check_size(path: Path, size: int, indexed: int) -> None:
    """Raise :class:`DataError` unless a shard still has the size that the index recorded."""
    if size != indexed:
        raise DataError(
            f"{path}: has {size} bytes, the index recorded {indexed}: the shard changed since it was indexed. "
            "Restore it, or prepare the set again."
        )
