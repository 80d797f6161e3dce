"""Looks through one shard: where its images are, what they are, their labels, and all that is wrong with it."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gandist.data.decode import DecodeError, Decoder, quietly
from gandist.data.shards import tar
from gandist.data.shards.index import Shard
from gandist.data.shards.index_files import IMAGE_EXTENSIONS
from gandist.data.shards.labels import READ_BYTES, LabelError, LabelReader
from gandist.data.shards.scan import Fields, groups
from gandist.data.survey.look import Look, UnfitError, look
from gandist.errors import DataError

LOOSE = "files that belong to no sample"
_KINDS_KEPT = 100  # of members that are skipped; a hostile shard may hold a million
_KIND_LETTERS = 20


@dataclass(frozen=True)
class Question:
    """What is asked of every shard.

    Attributes:
        image: the field that holds the image; None for the only one that can be one.
        label: the source of labels.
        label_optional: a sample without label is fine.
        resolution: height and width that images should have.
        raw_channels: channels that raw arrays should have.
        verify: decode every image.
        salvage: take what comes before the damage.
        rejected_kept: so many rejected images are described; the others are only counted.

    """

    image: str | None
    label: str
    label_optional: bool
    resolution: int
    raw_channels: int
    verify: bool
    salvage: bool
    rejected_kept: int


class Rejected(NamedTuple):
    """An image that cannot be trained on: where it is, why, and what kind of reason that is."""

    url: str
    key: str
    byte: int
    kind: str
    why: str


@dataclass(frozen=True, eq=False)
class Findings:
    """What a shard holds.

    Attributes:
        shard: its entry in the index.
        offset: of each accepted image.
        size: likewise, in bytes.
        label: likewise: a class number, the number of a name in ``names``, or -1.
        names: class names, in the order in which they came up; empty for class numbers.
        numbered: samples whose label is a class number.
        coloured: accepted images with three channels.
        raw_grey: accepted raw arrays with one channel.
        endings: of the accepted images' names.
        rejected: the first images that are not accepted.
        kinds: how many there are of each kind.
        imageless: samples without image.
        skipped: members that are neither image nor label, by kind.
        salvaged: where the damage is before which all this was found; None for a whole shard.

    """

    shard: Shard
    offset: NDArray[np.int64]
    size: NDArray[np.int32]
    label: NDArray[np.int32]
    names: tuple[str, ...]
    numbered: int
    coloured: int
    raw_grey: int
    endings: frozenset[str]
    rejected: tuple[Rejected, ...]
    kinds: Counter[str]
    imageless: tuple[str, ...]
    imageless_count: int
    skipped: Counter[str]
    salvaged: str | None


def probe(path: Path, called: str, url: str, question: Question) -> Findings:
    """Look through the shard at ``path``.

    Args:
        path: where it lies on this machine.
        called: its name in messages.
        url: its name in the index.
        question: what to look for.

    Raises:
        DataError: the shard is damaged, or a sample is torn, has two images, or lacks its label.

    """
    salvaged = None
    try:
        with quietly(), path.open("rb", buffering=0) as file:
            notes = _Notes(file.fileno(), called, url, question)
            try:
                for key, fields in groups(path, called):
                    notes.take(key, fields)
            except tar.DamageError as error:
                if not question.salvage:
                    raise
                salvaged = str(error)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        raise DataError(f"{called}: cannot be read ({error.strerror or error}).") from error
    return notes.findings(Shard(url, size, len(notes.offset), digest), salvaged)


def image_field(fields: Fields, wanted: str | None) -> str | None:
    """Return the field that holds a sample's image, or None where there is none.

    Raises:
        ValueError: several could, and none was asked for.

    """
    if wanted is not None:
        return wanted if wanted in fields else None
    found = [field for field in fields if field.rpartition(".")[2] in IMAGE_EXTENSIONS]
    if len(found) > 1:
        raise ValueError(f"has several images: {', '.join(sorted(found)[:5])}. Choose one: --image {sorted(found)[0]}")
    return found[0] if found else None


class _Notes:
    """What was found so far in a shard."""

    def __init__(self, descriptor: int, called: str, url: str, question: Question) -> None:
        self._descriptor, self._called, self._url, self._question = descriptor, called, url, question
        self._labels = LabelReader(question.label)
        self._decoders = {channels: Decoder(question.resolution, channels) for channels in (1, 3)}
        self.offset, self._size, self._label = array("q"), array("i"), array("i")
        self._names: dict[str, int] = {}
        self._numbered = self._coloured = self._raw_grey = self._imageless_count = 0
        self._endings: set[str] = set()
        self._rejected: list[Rejected] = []
        self._imageless: list[str] = []
        self._kinds, self._skipped = Counter[str](), Counter[str]()

    def take(self, key: str, fields: Fields) -> None:
        """Take in one sample, or under the key ``""`` a file that belongs to none."""
        if not key:
            self._skipped[LOOSE] += 1
            return
        try:
            field = image_field(fields, self._question.image)
        except ValueError as error:
            raise self._wrong(key, fields, str(error)) from None
        self._count_skipped(fields, field)
        if field is None:
            self._imageless_count += 1
            self._imageless += [key] * (len(self._imageless) < 3)
            return
        try:
            label = self._labels.read(key, fields, self._read_label)
        except LabelError as error:
            if not self._question.label_optional:
                raise self._wrong(key, fields, f"{error}; --label none goes without labels") from None
            label = None
        image = fields[field]
        try:
            self._accept(image, self._looked_at(image), field, label)
        except UnfitError as error:
            self._kinds[error.kind] += 1
            if len(self._rejected) < self._question.rejected_kept:
                self._rejected.append(Rejected(self._url, key, image.offset, error.kind, str(error)))

    def _looked_at(self, image: tar.Member) -> Look:
        found = look(lambda limit: self._bytes(image, limit), image.size)
        size = self._question.resolution
        if (found.width, found.height) != (size, size):
            raise UnfitError("another size", f"is {found.width}x{found.height} px, not {size}x{size}")
        if found.raw and found.channels != self._question.raw_channels:
            expected = self._question.raw_channels
            raise UnfitError(
                "another array", f"is a raw array with {found.channels} channels, the first has {expected}"
            )
        if self._question.verify:
            try:
                pixels = np.empty((size, size, found.channels), dtype=np.uint8)
                self._decoders[found.channels].into(self._bytes(image, image.size), pixels)
            except DecodeError as error:
                raise UnfitError("undecodable", f"cannot be decoded: {error}") from None
        return found

    def _accept(self, image: tar.Member, found: Look, field: str, label: int | str | None) -> None:
        self.offset.append(image.offset)
        self._size.append(image.size)
        self._endings.add(field.rpartition(".")[2])
        self._coloured += found.channels == 3
        self._raw_grey += found.raw and found.channels == 1
        if isinstance(label, int):
            self._numbered += 1
            self._label.append(label)
        elif label is None:
            self._label.append(-1)
        else:
            self._label.append(self._names.setdefault(label, len(self._names)))

    def findings(self, shard: Shard, salvaged: str | None) -> Findings:
        """Return all that was taken in."""
        return Findings(
            shard=shard,
            offset=np.array(self.offset, dtype=np.int64),
            size=np.array(self._size, dtype=np.int32),
            label=np.array(self._label, dtype=np.int32),
            names=tuple(self._names),
            numbered=self._numbered,
            coloured=self._coloured,
            raw_grey=self._raw_grey,
            endings=frozenset(self._endings),
            rejected=tuple(self._rejected),
            kinds=self._kinds,
            imageless=tuple(self._imageless),
            imageless_count=self._imageless_count,
            skipped=self._skipped,
            salvaged=salvaged,
        )

    def _count_skipped(self, fields: Fields, image: str | None) -> None:
        for field in fields:
            if field in (image, self._question.label) or (field == "json" and self._question.label.startswith("json:")):
                continue
            kind = f".{field.rpartition('.')[2][:_KIND_LETTERS]} members"
            self._skipped[kind if kind in self._skipped or len(self._skipped) < _KINDS_KEPT else "other members"] += 1

    def _read_label(self, member: tar.Member) -> bytes:
        return self._bytes(member, READ_BYTES)

    def _bytes(self, member: tar.Member, limit: int) -> bytes:
        return os.pread(self._descriptor, min(member.size, limit), member.offset)

    def _wrong(self, key: str, fields: Fields, what: str) -> DataError:
        byte = min(member.offset for member in fields.values())
        return DataError(f"{self._called}: byte {byte}: sample {tar.quoted(key)} {what}.")
