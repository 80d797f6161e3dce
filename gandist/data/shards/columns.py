"""The arrays of an index, one entry for each sample: in memory, or mapped from their file and read where touched.

A set of a hundred million samples has 1.6 GB of them. Mapped, all processes of a node share one copy of the pages that
they look at, and what travels to a worker is the name of the file.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from gandist.errors import DataError

ARRAYS = {"offset": np.int64, "size": np.int32, "label": np.int32}
"""The arrays of an index and their kinds."""

_STORED = {"offset": "I64", "size": "I32", "label": "I32"}  # how safetensors calls these kinds
_HEADER_LIMIT_BYTES = 1 << 16
_PIECE = 1 << 22

Raw = bytes | mmap.mmap


class Arrays(NamedTuple):
    """For each sample: where its image lies in its shard, how many bytes it has, and its label, -1 for none."""

    offset: NDArray[np.int64]
    size: NDArray[np.int32]
    label: NDArray[np.int32]


class Columns:
    """The arrays of one index.

    Sent to another process, mapped arrays stay behind: the other maps the file when it first looks.
    """

    def __init__(self, arrays: Arrays | None, path: Path | None = None) -> None:
        self._arrays, self._path = arrays, path
        self._mark: tuple[int, ...] | None = None  # what tells this file from another of its name

    @classmethod
    def mapped(cls, path: Path) -> tuple[Columns, mmap.mmap]:
        """Return the arrays in the file at ``path``, not yet looked at, and its bytes for a check of them all.

        Raises:
            DataError: the file cannot be read.

        """
        columns = cls(None, path.absolute())  # a worker may be elsewhere
        return columns, columns._map()

    def arrays(self) -> Arrays:
        """Return the arrays.

        Raises:
            DataError: their file cannot be read, is no safetensors file, or is not the one that it was.

        """
        if self._arrays is None:
            assert self._path is not None
            self._arrays = parse(self._map(), str(self._path))
        return self._arrays

    def _map(self) -> mmap.mmap:
        assert self._path is not None
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                mark = (status.st_ino, status.st_size, status.st_mtime_ns)
                raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise DataError(f"{self._path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error
        if self._mark not in (None, mark):
            raise DataError(f"{self._path}: was replaced since this run started; start the run again.")
        self._mark = mark
        return raw

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": None if self._path else self._arrays}


def parse(raw: Raw, where: str) -> Arrays:
    """Return the arrays in the bytes of a safetensors file, without copying them.

    Raises:
        DataError: an array is missing, of another kind, or not inside the file.

    """
    length = int.from_bytes(raw[:8], "little")
    start = 8 + length
    if len(raw) < start or length > _HEADER_LIMIT_BYTES:
        raise DataError(f"{where}: is not a safetensors file (its header has {length} bytes).")
    try:
        header = json.loads(raw[8:start])
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not a safetensors file ({error}).") from None
    return Arrays(**{name: _array(raw, start, header, name, where) for name in ARRAYS})


def _array(raw: Raw, start: int, header: Any, name: str, where: str) -> NDArray[Any]:
    if not isinstance(header, dict) or not isinstance(entry := header.get(name), dict):
        raise DataError(f"{where}: lacks the array {name!r}.")
    kind, shape, place = entry.get("dtype"), _numbers(entry.get("shape")), _numbers(entry.get("data_offsets"))
    if kind != _STORED[name] or len(shape) != 1:
        raise DataError(f"{where}: {name!r} is {kind} of shape {entry.get('shape')}, not {_STORED[name]} in a row.")
    count, stored = shape[0], np.dtype(ARRAYS[name]).newbyteorder("<")
    if len(place) != 2 or place[1] - place[0] != count * stored.itemsize or start + place[1] > len(raw):
        raise DataError(f"{where}: {name!r} of {count} entries cannot lie at {entry.get('data_offsets')} of the file.")
    return np.frombuffer(raw, dtype=stored, count=count, offset=start + place[0])


def _numbers(values: object) -> list[int]:
    """Return a list of whole numbers that are not negative as it is, anything else as an empty list."""
    fine = isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
    return list(cast("list[int]", values)) if fine else []


def pieces(count: int) -> Iterator[slice]:
    """Cut ``0..count-1`` into runs that are worked on one at a time, so that no copy is as large as the whole."""
    return (slice(first, min(first + _PIECE, count)) for first in range(0, count, _PIECE))
