"""Finds the images in folders and archives, by what their names end in. Nothing is decoded here, or extracted."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import stat
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from gandist.data.making.payload import DEFLATED, STORED, Payload, TarMember, WholeFile, ZipMember
from gandist.data.shards import tar
from gandist.errors import DataError

IMAGE_ENDINGS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm", ".pnm")
)
_COMPRESSED_TAR = {
    ".tar.gz": gzip.open, ".tgz": gzip.open, ".tar.bz2": bz2.open, ".tbz2": bz2.open, ".tar.xz": lzma.open,
    ".txz": lzma.open,
}  # fmt: skip
ARCHIVE_ENDINGS = (".zip", ".tar", *_COMPRESSED_TAR)

_INFLATION_LIMIT = 200  # times the compressed size; images hardly shrink, a bomb grows a thousandfold
_INFLATION_FREE_BYTES = 64 << 20
_ENCRYPTED = 0x1


@dataclass(eq=False)
class Found:
    """Images as they are found: path inside the source, name for people, place; and what was skipped, by kind.

    ``seals`` change when an archive that the images lie in does.
    """

    paths: list[tuple[str, ...]] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    payloads: list[Payload] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    seals: list[str] = field(default_factory=list)

    def add(self, name: str, shown: str, payload: Payload) -> None:
        """Take in a file called ``name`` (slashes between folders) if its name is an image's."""
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if not parts or any(part.startswith(".") or part == "__MACOSX" for part in parts):
            self.skipped["hidden files"] += 1
            return
        ending = os.path.splitext(parts[-1])[1].lower()  # noqa: PTH122 - a name, not a path
        if ending not in IMAGE_ENDINGS:
            self.skipped[f"{ending} files" if ending else "files without an ending"] += 1
            return
        self.paths.append(parts)
        self.shown.append(shown)
        self.payloads.append(payload)

    def extend(self, other: Found) -> None:
        """Take in everything that ``other`` found."""
        self.paths += other.paths
        self.shown += other.shown
        self.payloads += other.payloads
        self.skipped += other.skipped
        self.seals += other.seals

    def identity(self) -> str:
        """Return a digest of the images' names and sizes and of when they were last changed."""
        digest = hashlib.sha256("\0".join([*self.seals, *self.shown]).encode(errors="surrogateescape"))
        for payload in self.payloads:
            digest.update(payload.mark())
        return digest.hexdigest()


def is_archive(path: Path) -> bool:
    """Return whether a file is called like an archive that can be read."""
    return path.name.lower().endswith(ARCHIVE_ENDINGS) and not path.is_dir()


def folder_files(folder: Path) -> Found:
    """Find the images below ``folder``, in the order of their names; links are followed, in circles only once."""
    found = Found()
    visited: set[tuple[int, int]] = set()

    def refused(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror}).") from error

    for root, folders, files in os.walk(folder, followlinks=True, onerror=refused):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders.sort()
        for name in sorted(files):
            path = Path(root, name)
            inside = path.relative_to(folder).as_posix()
            found.add(inside, inside, WholeFile(path))
    return found


def archive_members(path: Path, scratch: Path) -> Found:
    """Find the images in a zip or tar file; a compressed tar is unpacked to the file ``scratch`` first."""
    name = path.name.lower()
    if name.endswith(".zip"):
        return _zip_members(path)
    for ending, opener in _COMPRESSED_TAR.items():
        if name.endswith(ending):
            _decompress(path, opener, scratch)
            return _tar_members(scratch, path)
    return _tar_members(path, path)


def _zip_members(path: Path) -> Found:
    found = Found()
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path}: cannot be read as a zip file ({error}); it is damaged or cut short.") from None
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.is_dir():
            continue
        if kind not in (0, stat.S_IFREG):
            found.skipped["links" if kind == stat.S_IFLNK else "special files"] += 1
            continue
        if member.flag_bits & _ENCRYPTED:
            raise DataError(f"{path}: {member.filename!r} is encrypted. Unpack the archive and give the folder.")
        if member.compress_type not in (STORED, DEFLATED):
            raise DataError(
                f"{path}: {member.filename!r} is compressed with method {member.compress_type}; only stored and "
                "deflated members can be read. Unpack the archive and give the folder."
            )
        payload = ZipMember(
            path, member.header_offset, member.compress_size, member.file_size, member.compress_type, member.CRC
        )
        found.add(member.filename, f"{path.name}: {member.filename}", payload)
    return found


def _tar_members(path: Path, original: Path) -> Found:
    found = Found(seals=[seal(original)])
    for member in tar.walk(path):
        if member.kind == "file":
            found.add(member.name, f"{original.name}: {member.name}", TarMember(path, member.offset, member.size))
        elif member.kind != "folder":
            found.skipped["links" if member.kind == "link" else "special files"] += 1
    return found


def seal(path: Path) -> str:
    """Return what changes when an archive does."""
    status = path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


def _decompress(path: Path, opener: object, scratch: Path) -> None:
    """Unpack a compressed file to ``scratch``, as long as it does not grow beyond what images can."""
    limit = _INFLATION_FREE_BYTES + _INFLATION_LIMIT * path.stat().st_size
    assert callable(opener)
    try:
        source: IO[bytes] = opener(path, "rb")
        with source, scratch.open("wb") as target:
            while chunk := _read_some(source, path):
                limit -= len(chunk)
                if limit < 0:
                    raise DataError(f"{path}: unpacks to more than {_INFLATION_LIMIT} times its size; not images.")
                target.write(chunk)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None


def _read_some(source: IO[bytes], path: Path) -> bytes:
    try:
        return source.read(1 << 20)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); it is damaged or cut short.") from None
