"""Where the bytes of one source image are, and how a worker gets them: small to send, safe to read.

Names of files and members never become paths here: a member of an archive is a place in the archive's file.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE_LIMIT_BYTES = 64 << 20
"""Larger image files are rejected before they are read; so is a zip member that inflates beyond it."""

NPY_MAGIC = b"\x93NUMPY"
"""How the ``.npy`` form of an image begins."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LIKELY_NAMES_BYTES = 512
STORED, DEFLATED = 0, 8


class PayloadError(ValueError):
    """The image cannot be had; the message says why, and the caller adds the name. ``kind`` is for counting."""

    def __init__(self, reason: str, kind: str = "unreadable") -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class WholeFile:
    """An image file."""

    path: Path

    def read(self) -> bytes:
        """Return the file's bytes."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a named pipe must not block
        except OSError as error:
            raise PayloadError(f"cannot be opened ({error.strerror})") from None
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise PayloadError("is not a regular file")
            _check_limit(status.st_size)
            try:
                return file.read(FILE_LIMIT_BYTES)
            except OSError as error:
                raise PayloadError(f"cannot be read ({error.strerror})") from None

    def mark(self) -> bytes:
        """Return what tells this image from another of the same name."""
        try:
            status = self.path.stat()
        except OSError:
            return b"gone;"
        return b"%d %d;" % (status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member of an uncompressed tar archive."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the member's bytes."""
        return _read_at(self.path, self.offset, self.size)

    def mark(self) -> bytes:
        """Return what tells this image from another of the same name."""
        return b"%d %d;" % (self.offset, self.size)


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A member of a zip archive, stored or deflated."""

    path: Path
    header: int
    stored_size: int
    size: int
    method: int
    crc: int

    def read(self) -> bytes:
        """Return the member's bytes, checked against the size and the checksum in the archive's directory."""
        _check_limit(max(self.size, self.stored_size))
        # the names in the header are of unknown length: usually one read is enough
        head = _read_at(self.path, self.header, _LOCAL_HEADER.size, self.stored_size + _LIKELY_NAMES_BYTES)
        signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack_from(head)
        if signature != b"PK\3\4":
            raise PayloadError("has no header where the zip's directory says (the archive is damaged)")
        begin = _LOCAL_HEADER.size + name_bytes + extra_bytes
        raw = head[begin : begin + self.stored_size]
        if len(raw) < self.stored_size:
            raw = _read_at(self.path, self.header + begin, self.stored_size)
        if self.method == DEFLATED:
            inflate = zlib.decompressobj(-15)
            try:
                raw = inflate.decompress(raw, self.size + 1)  # one more than promised shows a false promise
            except zlib.error as error:
                raise PayloadError(f"cannot be inflated ({error})") from None
        if len(raw) != self.size or zlib.crc32(raw) != self.crc:
            raise PayloadError("does not match its size or checksum in the zip (the archive is damaged)")
        return raw

    def mark(self) -> bytes:
        """Return what tells this image from another of the same name."""
        return b"%d %d;" % (self.size, self.crc)


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """An image that is decoded already: uint8, shape (height, width) or (height, width, 3)."""

    pixels: NDArray[np.uint8]

    def mark(self) -> bytes:
        """Return what tells this image from another of the same name."""
        return b"%d;" % zlib.crc32(np.ascontiguousarray(self.pixels).data)


@dataclass(frozen=True, slots=True)
class Broken:
    """An image that could not be had when it was looked up."""

    reason: str
    kind: str = "unreadable"

    def read(self) -> bytes:
        """Say so."""
        raise PayloadError(self.reason, self.kind)

    def mark(self) -> bytes:
        """Return what tells this image from another of the same name."""
        return self.reason.encode(errors="replace") + b";"


Payload = WholeFile | TarMember | ZipMember | Pixels | Broken


def _read_at(path: Path, offset: int, size: int, more: int = 0) -> bytes:
    """Return ``size`` bytes at ``offset``, and up to so many more that follow."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, size + more, offset)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise PayloadError(f"cannot be read ({error.strerror})") from None
    if len(data) < size:
        raise PayloadError("is cut short (the archive is damaged)")
    return data


def _check_limit(size: int) -> None:
    if size > FILE_LIMIT_BYTES:
        raise PayloadError(f"has {size} bytes, the limit is {FILE_LIMIT_BYTES}")
    if size == 0:
        raise PayloadError("is empty")
