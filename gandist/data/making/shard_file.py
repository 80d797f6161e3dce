"""One shard as it is written: a plain ustar archive, the same bytes for the same samples, and where they lie in it.

Python's ``tarfile`` spends more time on the two headers of a small image than Pillow on its pixels. A member here is a
name of at most 100 bytes and a size; everything else in its header never changes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from gandist.data.shards.scan import LABEL_FIELD

_BLOCK = 512
_RECORD = 20 * _BLOCK  # archives end on a whole record, as POSIX has it
_CHUNK_BYTES = 1 << 20

_HEADER = bytearray(_BLOCK)
for _at, _field in ((100, b"0000444\0"), (108, b"0000000\0"), (116, b"0000000\0"), (136, b"00000000000\0"),
                    (148, b" " * 8), (156, b"0"), (257, b"ustar\x0000")):  # fmt: skip
    _HEADER[_at : _at + len(_field)] = _field
_BEFORE_SIZE, _BEFORE_SUM, _AFTER_SUM = bytes(_HEADER[100:124]), bytes(_HEADER[136:148]), bytes(_HEADER[156:])
_CONSTANT_SUM = sum(_HEADER)


def header(name: bytes, size: int) -> bytes:
    """Return the ustar header of a read-only file of user 0, last changed at time 0."""
    assert 0 < len(name) <= 100, name
    size_field = b"%011o\0" % size
    checksum = _CONSTANT_SUM + sum(name) + sum(size_field)
    parts = (name.ljust(100, b"\0"), _BEFORE_SIZE, size_field, _BEFORE_SUM, b"%06o\0 " % checksum, _AFTER_SUM)
    return b"".join(parts)


class ShardFile:
    """A shard that is open for writing.

    Attributes:
        bytes: written so far, from the beginning of the file.
        offsets: of each image's first byte.
        sizes: of each image, in bytes.
        labels: of each image; -1 for none.

    """

    def __init__(self, path: Path, image_ext: str) -> None:
        self.path, self.bytes = path, 0
        self.offsets: list[int] = []
        self.sizes: list[int] = []
        self.labels: list[int] = []
        self._ends = {False: b".%s" % image_ext.encode(), True: b".%s" % LABEL_FIELD.encode()}
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._digest = hashlib.sha256()
        self._file = path.open("wb", buffering=0)

    def add(self, number: int, image: bytes, label: int) -> None:
        """Append a sample, whose key is its number."""
        key = b"%09d" % number
        if label >= 0:
            self._member(key + self._ends[True], b"%d" % label)
        self.offsets.append(self.bytes + _BLOCK)
        self.sizes.append(len(image))
        self.labels.append(label)
        self._member(key + self._ends[False], image)

    def close(self) -> str:
        """End the archive; return the SHA-256 of all that was written. It may not be on the disk yet."""
        self._put(bytes(2 * _BLOCK))
        self._put(bytes(-self.bytes % _RECORD))
        self._write()
        self._file.close()
        return self._digest.hexdigest()

    def abandon(self) -> None:
        """Close and remove the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _member(self, name: bytes, content: bytes) -> None:
        self._put(header(name, len(content)))
        self._put(content)
        self._put(bytes(-len(content) % _BLOCK))
        if self._waiting_bytes >= _CHUNK_BYTES:
            self._write()

    def _put(self, piece: bytes) -> None:
        self._waiting.append(piece)
        self._waiting_bytes += len(piece)
        self.bytes += len(piece)

    def _write(self) -> None:
        chunk = b"".join(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        self._digest.update(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest) :]


def digest_on_disk(path: Path) -> str:
    """Bring a file's bytes to the disk; return the SHA-256 of what is read back."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
