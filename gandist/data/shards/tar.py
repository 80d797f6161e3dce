"""A strict walk through a tar file: every member is found, or the damage is named with its byte position.

Python's ``tarfile`` ends quietly at the first header it cannot read, so a damaged archive looks like a short one. Here
whatever is not exactly a plain tar archive (ustar, GNU or pax names) is an error. Nothing is extracted: a member is a
name, a place and a size.

What a tar file itself cannot tell: its checksums cover headers only, not what the members hold, and not the bodies of
the extended headers that carry long names. Digests in the index cover both from then on.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from gandist.errors import DataError

MEMBER_LIMIT_BYTES = 64 << 20
"""Larger members are refused: no image of a data set is that large."""

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_WINDOW_BYTES = 16 << 10  # what is read at a time: a few small members with their headers
_NAME_LIMIT = 4096
_EXTENSIONS = {b"x": 1 << 20, b"g": 1 << 20, b"L": _NAME_LIMIT + 1, b"K": _NAME_LIMIT + 1}
"""Headers that only describe the next member (pax, pax for all, GNU long name, GNU long link): their size limits."""
_TRAILING_LIMIT_BYTES = 1 << 20
"""Programs fill the last record with zeros; more of them are what a crash leaves of a file that had been longer."""
_META = re.compile(r"__[^/]*__(/|$)")  # what WebDataset leaves out
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK": "zip"}

Kind = Literal["file", "folder", "link", "special"]
_KINDS: dict[bytes, Kind] = {
    b"0": "file", b"\0": "file", b"5": "folder", b"1": "link", b"2": "link", b"3": "special", b"4": "special",
    b"6": "special",
}  # fmt: skip


class Member(NamedTuple):
    """One member of an archive: its name, what it is, and where its data lies in the file."""

    name: str
    kind: Kind
    offset: int
    size: int


class DamageError(DataError):
    """The archive is damaged at a byte; what was yielded before is whole."""


def walk(path: Path, called: str | None = None) -> Iterator[Member]:
    """Yield every member of the uncompressed tar file at ``path``, in order.

    Args:
        path: the file.
        called: what to call it in messages, where that is not its path.

    Raises:
        DamageError: it is not a plain tar archive all through: damaged, cut or continued somewhere.
        DataError: it cannot be read, or is compressed.

    """
    called = str(path) if called is None else called
    try:
        if path.exists() and not path.is_file():  # opening a named pipe would wait for ever
            raise DataError(f"{called}: is not a regular file.")
        with path.open("rb", buffering=0) as file:
            yield from _Walk(called, file.fileno()).members()
    except OSError as error:
        raise DataError(f"{called}: cannot be read ({error.strerror or error}).") from error


class _Walk:
    """The state of one walk: the file, its size, how far it has been read, and the bytes read ahead."""

    def __init__(self, called: str, descriptor: int) -> None:
        self.called, self.descriptor, self.position = called, descriptor, 0
        self.total_bytes = os.fstat(descriptor).st_size
        self.window, self.window_start = b"", 0

    def members(self) -> Iterator[Member]:
        name: str | None = None  # from a header that only carries the next member's name
        while (header := self._header()) is not None:
            kind, size = header[156:157], self._number(header, 124, 12, "size")
            if kind in _EXTENSIONS:
                found = self._extension(kind, size)
                name = found if found is not None else name
                continue
            name = name if name is not None else self._decoded(_short_name(header), self.position)
            yield self._member(name, kind, size)
            name = None
        if name is not None:
            raise self._damage(self.position, "the archive ends after a header that announces another member")
        self._end()

    def _member(self, name: str, kind: bytes, size: int) -> Member:
        start, what = self.position, _KINDS.get(kind)
        if what == "file" and not name.endswith("/"):  # a slash is how archives older than ustar mark folders
            if size > MEMBER_LIMIT_BYTES:
                raise self._damage(
                    start - _BLOCK, f"member {quoted(name)} claims {size} bytes, the limit is {MEMBER_LIMIT_BYTES}"
                )
            self._skip(size, name)
            return Member(name, what, start, size)
        if what is None:
            reason = "is a sparse file" if kind == b"S" else f"has the unknown type {kind!r}"
            raise self._damage(start - _BLOCK, f"member {quoted(name)} {reason}; pack it again as plain tar")
        if what in ("file", "folder") and size:
            raise self._damage(start - _BLOCK, f"member {quoted(name)} is a folder, yet claims {size} bytes")
        return Member(name, "folder" if what == "file" else what, start, 0)

    def _header(self) -> bytes | None:
        """Return the next header, or None at the end marker."""
        header = self._read(_BLOCK)
        if header == _ZEROS:
            return None
        if len(header) < _BLOCK:
            self._refuse_other_formats(header)
            if self.position == len(header):
                raise self._damage(0, f"it is empty or shorter than one tar header ({len(header)} bytes)")
            cut = "in the middle of a header" if header else "without an end marker"
            raise self._damage(self.position - len(header), f"the file ends {cut}: it has been cut short")
        claimed = self._number(header, 148, 8, "checksum", blank_ok=False)
        if claimed != _byte_sum(header) - sum(header[148:156]) + 8 * 0x20:
            self._refuse_other_formats(header)
            raise self._damage(self.position - _BLOCK, "the header's checksum is wrong")
        return header

    def _refuse_other_formats(self, header: bytes) -> None:
        if self.position > _BLOCK:
            return
        for magic, name in _COMPRESSED.items():
            if header.startswith(magic):
                raise DataError(f"{self.called}: is a {name} file, not an uncompressed tar; unpack it first.")

    def _end(self) -> None:
        """Check that a second empty block ends the archive and that nothing but some zeros follows."""
        if self._read(_BLOCK) != _ZEROS:
            raise self._damage(self.position, "the end marker (two blocks of zeros) is incomplete")
        end = self.position
        while chunk := self._read(_TRAILING_LIMIT_BYTES):
            if chunk.count(0) != len(chunk):
                where = self.position - len(chunk.lstrip(b"\0"))
                raise self._damage(where, "there is data after the end marker (archives joined together?)")
        if self.position - end > _TRAILING_LIMIT_BYTES:
            raise self._damage(
                end, f"{self.position - end} zeros follow the end marker, as after a crash: the rest is lost"
            )

    def _extension(self, kind: bytes, size: int) -> str | None:
        """Read a header that describes the next member; return that member's name if it holds one."""
        start, limit = self.position, _EXTENSIONS[kind]
        if size > limit:
            raise self._damage(start - _BLOCK, f"an extended header of {size} bytes; the limit is {limit}")
        text = self._read(size)
        if len(text) < size or self.position + -size % _BLOCK > self.total_bytes:
            raise self._damage(start, "the file ends inside an extended header: it has been cut short")
        self.position += -size % _BLOCK
        if kind == b"K":
            return None
        return self._decoded(text.split(b"\0")[0], start) if kind == b"L" else self._pax_name(text, start, kind)

    def _pax_name(self, text: bytes, start: int, kind: bytes) -> str | None:
        """Return the path in a pax header, if it has one; sizes, sparse maps and one path for all are refused."""
        name, at = None, 0
        while at < len(text):
            length_text, space, _ = text[at : at + 20].partition(b" ")
            length = int(length_text) if space and length_text.isdigit() else 0
            record = text[at : at + length]
            key, equals, value = record[len(length_text) + 1 : -1].partition(b"=")
            if length < 5 or at + length > len(text) or not equals or record[-1:] != b"\n":
                raise self._damage(start + at, "a pax header that cannot be read")
            if key == b"size" or key.startswith(b"GNU.sparse") or (key == b"path" and kind == b"g"):
                raise self._damage(start + at, f"a pax header with {str(key[:60])[1:]}; pack it again as plain tar")
            if key == b"path":
                name = self._decoded(value, start)
            at += length
        return name

    def _decoded(self, raw: bytes, start: int) -> str:
        if len(raw) > _NAME_LIMIT:
            raise self._damage(start, f"a name of {len(raw)} bytes; the limit is {_NAME_LIMIT}")
        return raw.decode("utf-8", errors="surrogateescape")

    def _number(self, header: bytes, at: int, length: int, what: str, *, blank_ok: bool = True) -> int:
        """Return the number in a header field: octal digits, or base 256 where the first bit is set."""
        field = header[at : at + length]
        digits = field.strip(b" \0")
        if digits.isdigit() and b"8" not in digits and b"9" not in digits:
            return int(digits, 8)
        if field[0] == 0x80:
            return int.from_bytes(field[1:], "big")
        if not digits and blank_ok:
            return 0
        self._refuse_other_formats(header)
        raise self._damage(self.position - _BLOCK, f"the header's {what} field cannot be read")

    def _skip(self, size: int, name: str) -> None:
        end = self.position + size
        if end > self.total_bytes:
            what = f"member {quoted(name)} lacks its last {end - self.total_bytes} bytes"
            raise self._damage(self.position, f"{what}: the file was cut short")
        self.position = end + -size % _BLOCK
        if self.position > self.total_bytes:
            raise self._damage(self.total_bytes, "the file ends inside a member's padding: it has been cut short")

    def _read(self, size: int) -> bytes:
        """Return the next bytes, fewer only at the end of the file."""
        start = self.position - self.window_start
        data = self.window[start : start + size]
        if len(data) < size:
            self.window, self.window_start = self._fetched(max(size, _WINDOW_BYTES)), self.position
            data = self.window[:size]
        self.position += len(data)
        return data

    def _fetched(self, size: int) -> bytes:
        data = os.pread(self.descriptor, size, self.position)
        while len(data) < size and (more := os.pread(self.descriptor, size - len(data), self.position + len(data))):
            data += more
        return data

    def _damage(self, where: int, what: str) -> DamageError:
        return DamageError(f"{self.called}: damaged at byte {where}: {what}.")


def _byte_sum(block: bytes) -> int:
    """Return the sum of 512 bytes.

    Adler-32 (RFC 1950) keeps one plus the sum of the bytes, modulo 65521, in its low half; 256 bytes stay below that.
    """
    return (zlib.adler32(block[:256]) & 0xFFFF) + (zlib.adler32(block[256:]) & 0xFFFF) - 2


def _short_name(header: bytes) -> bytes:
    """Return the name in a header, with its ustar prefix."""
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def split_name(name: str) -> tuple[str, str]:
    """Return the sample key and the lower-case field of a member, cut at the first dot of its file name.

    This is how WebDataset groups members. The key is empty for names that belong to no sample: hidden files, names
    without a field, and what lies in a folder like ``__meta__`` (a file ``__meta__.json`` is a sample to WebDataset, so
    it is one here; it holds no image).
    """
    if name.startswith("__") and _META.match(name):
        return "", ""
    folder, slash, base = name.rpartition("/")
    stem, dot, field = base.partition(".")
    return (folder + slash + stem, field.lower()) if stem and dot else ("", "")


def quoted(name: str, limit: int = 200) -> str:
    """Return a name that came with the data in quotes: control characters escaped, and short enough to show."""
    return repr(name if len(name) <= limit else f"{name[: limit // 2]}...{name[-limit // 2 :]}")
