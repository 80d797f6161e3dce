"""Finds the samples of a shard by a strict walk: each whole, each once, or an error that names the place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np

from gandist.data.order import Ints
from gandist.data.shards import tar
from gandist.data.shards.index import Shard
from gandist.data.shards.labels import TEXT_LIMIT_BYTES
from gandist.errors import DataError

LABEL_FIELD = "cls"

Fields = Mapping[str, tar.Member]
"""The members of one sample, by lower-case field."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A shard and, for each of its samples in order, the image's place, its size and the label (-1 for none)."""

    shard: Shard
    offset: Ints
    size: Ints
    label: Ints


def scan(folder: Path, url: str, *, image_ext: str, classes: int) -> Scan:
    """Walk through the whole shard at ``folder / url``.

    Args:
        folder: where the index lies.
        url: path of the shard relative to it.
        image_ext: the field of a sample that holds its image.
        classes: number of classes; 0 for samples without labels.

    Raises:
        DataError: the shard is damaged, or a sample lacks its image or label, has them twice, or is torn apart.

    """
    path = folder / url
    rows: list[tuple[int, int, int]] = []
    with path.open("rb") as file:
        for key, fields in samples(path):
            if image_ext not in fields:
                raise DataError(f"{path}: sample {key!r} has no {image_ext} member, only {sorted(fields)}.")
            image = fields[image_ext]
            rows.append((image.offset, image.size, _label(path, file, key, fields, classes) if classes else -1))
        digest = hashlib.file_digest(_rewound(file), "sha256").hexdigest()
        size = file.tell()
    columns = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return Scan(Shard(url, size, len(rows), digest), *columns)


def samples(path: Path, called: str | None = None) -> Iterator[tuple[str, Fields]]:
    """Yield the samples of a shard: key, and members by field. Folders and names without a field belong to none."""
    return ((key, fields) for key, fields in groups(path, called) if key)


def groups(path: Path, called: str | None = None) -> Iterator[tuple[str, Fields]]:
    """Yield the samples of a shard, and each file that belongs to none under the key ``""``, by its name.

    Args:
        path: the shard.
        called: what to call it in messages, where that is not its path.

    Raises:
        DataError: the shard is damaged, holds links or devices, or a sample is torn apart or has a member twice.

    """
    where = str(path) if called is None else called
    seen: set[str] = set()
    key, fields = "", dict[str, tar.Member]()
    for member in tar.walk(path, called):
        if member.kind == "folder":
            continue
        if member.kind != "file":
            raise _wrong(where, member, f"is a {member.kind}, not a file")
        member_key, field = tar.split_name(member.name)
        if not member_key:
            yield "", {member.name: member}
            continue
        if member_key != key:
            if fields:
                yield key, fields
            if member_key in seen:
                raise _wrong(where, member, "stands apart from the other members of its sample")
            key, fields = member_key, {}
            seen.add(key)
        if field in fields:
            raise _wrong(where, member, "is there twice")
        fields[field] = member
    if fields:
        yield key, fields


def _label(path: Path, file: BufferedReader, key: str, fields: Fields, classes: int) -> int:
    member = fields.get(LABEL_FIELD)
    if member is None:
        raise DataError(f"{path}: sample {key!r} has no label ({LABEL_FIELD} member), though the set has classes.")
    file.seek(member.offset)
    text = file.read(min(member.size, TEXT_LIMIT_BYTES + 1)).strip()
    if len(text) > TEXT_LIMIT_BYTES or not text.isdigit() or int(text) >= classes:
        raise _wrong(str(path), member, f"holds {text[:40]!r}, not a class number from 0 to {classes - 1}")
    return int(text)


def _rewound(file: BufferedReader) -> BufferedReader:
    file.seek(0)
    return file


def _wrong(where: str, member: tar.Member, what: str) -> DataError:
    return DataError(f"{where}: byte {member.offset}: member {tar.quoted(member.name)} {what}.")
