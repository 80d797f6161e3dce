"""A strict walk through a tar file: every member is found, or the damage is named with its byte position.

Python's ``tarfile`` ends quietly at the first header it cannot read, so a damaged archive looks like a short one. Here
whatever is not exactly a plain tar archive (ustar, GNU or pax names) is an error. Nothing is extracted: a member is a
name, a place and a size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from gandist.errors import DataError

MEMBER_LIMIT_BYTES = 64 << 20
"""Larger members are refused: no image of a data set is that large."""

_BLOCK = 512
_NAME_LIMIT = 4096
_EXTENSIONS = {b"x": 1 << 20, b"g": 1 << 20, b"L": _NAME_LIMIT + 1, b"K": _NAME_LIMIT + 1}
"""Headers that only describe the next member (pax, pax for all, GNU long name, GNU long link): their size limits."""
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK": "zip"}

Kind = Literal["file", "folder", "link", "special"]
_KINDS: dict[bytes, Kind] = {
    b"0": "file", b"\0": "file", b"5": "folder", b"1": "link", b"2": "link", b"3": "special", b"4": "special",
    b"6": "special",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive: its name, what it is, and where its data lies in the file."""

    name: str
    kind: Kind
    offset: int
    size: int


def walk(path: Path) -> Iterator[Member]:
    """Yield every member of the uncompressed tar file at ``path``, in order.

    Raises:
        DataError: the file cannot be read, is not a plain tar archive, or is damaged, cut or continued somewhere.

    """
    try:
        if path.exists() and not path.is_file():  # opening a named pipe would wait for ever
            raise DataError(f"{path}: is not a regular file.")
        with path.open("rb") as file:
            yield from _Walk(path, file, os.fstat(file.fileno()).st_size).members()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


class _Walk:
    """The state of one walk: the file, its size, and how far it has been read."""

    def __init__(self, path: Path, file: BinaryIO, total_bytes: int) -> None:
        self.path, self.file, self.total_bytes, self.position = path, file, total_bytes, 0

    def members(self) -> Iterator[Member]:
        name: str | None = None  # from a header that only carries the next member's name
        while (header := self._header()) is not None:
            kind, size = header[156:157], self._number(header, 124, 12, "size")
            start = self.position
            if kind in _EXTENSIONS:
                found = self._extension(kind, size)
                name = found if found is not None else name
                continue
            name = name if name is not None else self._decoded(_short_name(header), start)
            yield self._member(name, kind, size)
            name = None
        if name is not None:
            raise self._damage(self.position, "the archive ends after a header that announces another member")
        self._end()

    def _member(self, name: str, kind: bytes, size: int) -> Member:
        start, what = self.position, _KINDS.get(kind)
        if what is None:
            reason = "is a sparse file" if kind == b"S" else f"has the unknown type {kind!r}"
            raise self._damage(start - _BLOCK, f"member {name!r} {reason}; pack it again as plain tar")
        if what != "file":
            return Member(name, what, start, 0)
        if name.endswith("/"):  # how archives older than ustar mark folders
            return Member(name, "folder", start, 0)
        if size > MEMBER_LIMIT_BYTES:
            raise self._damage(
                start - _BLOCK, f"member {name!r} claims {size} bytes, the limit is {MEMBER_LIMIT_BYTES}"
            )
        self._skip(size, name)
        return Member(name, what, start, size)

    def _header(self) -> bytes | None:
        """Return the next header, or None at the end marker."""
        header = self._read(_BLOCK)
        if header == bytes(_BLOCK):
            return None
        if len(header) < _BLOCK:
            self._refuse_other_formats(header)
            if self.position == len(header):
                raise DataError(f"{self.path}: is empty or shorter than one tar header ({len(header)} bytes).")
            cut = "in the middle of a header" if header else "without an end marker"
            raise self._damage(self.position - len(header), f"the file ends {cut}: it has been cut short")
        claimed = self._number(header, 148, 8, "checksum", blank_ok=False)
        if claimed != sum(header) - sum(header[148:156]) + 8 * 0x20:
            self._refuse_other_formats(header)
            raise self._damage(self.position - _BLOCK, "the header's checksum is wrong")
        return header

    def _refuse_other_formats(self, header: bytes) -> None:
        if self.position > _BLOCK:
            return
        for magic, name in _COMPRESSED.items():
            if header.startswith(magic):
                raise DataError(f"{self.path}: is a {name} file, not an uncompressed tar; unpack it first.")

    def _end(self) -> None:
        """Check that a second empty block ends the archive and that nothing but zeros follows."""
        if self._read(_BLOCK) != bytes(_BLOCK):
            raise self._damage(self.position, "the end marker (two blocks of zeros) is incomplete")
        while chunk := self._read(1 << 20):
            if chunk.count(0) != len(chunk):
                where = self.position - len(chunk.lstrip(b"\0"))
                raise self._damage(where, "there is data after the end marker (archives joined together?)")

    def _extension(self, kind: bytes, size: int) -> str | None:
        """Read a header that describes the next member; return that member's name if it holds one."""
        start, limit = self.position, _EXTENSIONS[kind]
        if size > limit:
            raise self._damage(start - _BLOCK, f"an extended header of {size} bytes; the limit is {limit}")
        text = self._read(size)
        if len(text) < size:
            raise self._damage(start, "the file ends inside an extended header: it has been cut short")
        self._skip_padding(size)
        if kind in (b"x", b"g"):
            found = self._pax_name(text, start)
            return found if kind == b"x" else None
        return self._decoded(text.split(b"\0")[0], start) if kind == b"L" else None

    def _pax_name(self, text: bytes, start: int) -> str | None:
        """Return the path in a pax header, if it has one; sizes and sparse maps are refused."""
        name, at = None, 0
        while at < len(text):
            length_text, space, _ = text[at : at + 20].partition(b" ")
            length = int(length_text) if space and length_text.isdigit() else 0
            record = text[at : at + length]
            key, equals, value = record[len(length_text) + 1 : -1].partition(b"=")
            if length < 5 or at + length > len(text) or not equals or record[-1:] != b"\n":
                raise self._damage(start + at, "a pax header that cannot be read")
            if key == b"size" or key.startswith(b"GNU.sparse"):
                raise self._damage(start + at, f"a pax header with {key.decode()!r}; pack it again as plain tar")
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
        if field[0] == 0x80:
            return int.from_bytes(field[1:], "big")
        digits = field.strip(b" \0")
        if digits.isdigit() and b"8" not in digits and b"9" not in digits:
            return int(digits, 8)
        if not digits and blank_ok:
            return 0
        self._refuse_other_formats(header)
        raise self._damage(self.position - _BLOCK, f"the header's {what} field cannot be read")

    def _skip(self, size: int, name: str) -> None:
        if self.position + size > self.total_bytes:
            missing = self.position + size - self.total_bytes
            raise self._damage(self.position, f"member {name!r} lacks its last {missing} bytes: the file was cut short")
        self.file.seek(size, os.SEEK_CUR)
        self.position += size
        self._skip_padding(size)

    def _skip_padding(self, size: int) -> None:
        padding = -size % _BLOCK
        if len(self._read(padding)) < padding:
            raise self._damage(self.position, "the file ends inside a member's padding: it has been cut short")

    def _read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.position += len(data)
        return data

    def _damage(self, where: int, what: str) -> DataError:
        return DataError(f"{self.path}: damaged at byte {where}: {what}.")


def _short_name(header: bytes) -> bytes:
    """Return the name in a header, with its ustar prefix."""
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def split_name(name: str) -> tuple[str, str]:
    """Return the sample key and the lower-case field of a member, cut at the first dot of its file name.

    This is how WebDataset groups members; the key is empty for names that belong to no sample.
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, field = base.partition(".")
    return (folder + slash + stem, field.lower()) if stem and dot else ("", "")
