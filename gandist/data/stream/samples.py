"""The samples of one whole shard of a stream: each complete and with its own label, or named as bad."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gandist.data.shards.index_files import IMAGE_EXTENSIONS
from gandist.data.shards.labels import READ_BYTES, LabelError, LabelReader
from gandist.data.shards.scan import samples
from gandist.data.shards.tar import MEMBER_LIMIT_BYTES, Member
from gandist.errors import DataError


@dataclass(frozen=True, slots=True)
class Sample:
    """An image as it lies in its shard, and its label (-1 for none)."""

    shard: int
    key: str
    raw: bytes
    label: int


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that cannot be used, and why; the words follow its name."""

    shard: int
    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Damage:
    """A shard that cannot be used, and why."""

    shard: int
    why: str


class UnfitError(ValueError):
    """The members of a sample are not what a stream can use; the message has no place in it."""


@dataclass(frozen=True)
class SampleReader:
    """Reads the samples of shards. It can be sent to another process.

    Args:
        label_source: ``none``, a field such as ``cls``, or ``json:KEY``.
        class_count: labels are below it; 0 without labels.
        classes: the number in the run of each class to keep; None keeps all as they are.

    """

    label_source: str
    class_count: int
    classes: Mapping[int, int] | None

    def read(self, shard: int, path: Path) -> Iterator[Sample | BadSample | Damage]:
        """Yield the samples of a shard, which is walked to its end before the first of them; or its damage.

        Members that are neither image nor label are not read.
        """
        try:
            found = list(samples(path))
            labels = LabelReader(self.label_source)
            with _Members(path) as members:
                for key, fields in found:
                    try:
                        label = self._label(labels, key, fields, members)
                        if label is not None:
                            yield Sample(shard, key, members.read(_image(fields)), label)
                    except (LabelError, UnfitError) as error:
                        yield BadSample(shard, key, str(error))
        except DataError as error:
            yield Damage(shard, str(error).removeprefix(f"{path}: "))

    def _label(self, labels: LabelReader, key: str, fields: Mapping[str, Member], members: _Members) -> int | None:
        """Return the label in the run, -1 where there are none, or None for a class that is left out."""
        if not self.class_count:
            return -1
        label = labels.read(key, fields, members.begin)
        if not isinstance(label, int):
            raise UnfitError(f"has the name {label!r} as its label, where a stream needs a class number")
        if label >= self.class_count:
            raise UnfitError(f"has label {label}, where data.stream.class_count is {self.class_count}")
        return label if self.classes is None else self.classes.get(label)


class _Members:
    """Reads the content of members of one file, while it is open."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _Members:
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error.strerror or error}).") from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def begin(self, member: Member) -> bytes:
        """Return as much of a member as a label can need."""
        return self.read(member, READ_BYTES)

    def read(self, member: Member, limit_bytes: int = MEMBER_LIMIT_BYTES) -> bytes:
        """Return the content of a member, or its beginning."""
        size = min(member.size, limit_bytes)
        try:
            data = os.pread(self._descriptor, size, member.offset)
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error.strerror or error}).") from None
        if len(data) != size:
            raise DataError(f"{self._path}: ends at byte {member.offset + len(data)}; it changed while it was read.")
        return data


def _image(fields: Mapping[str, Member]) -> Member:
    """Return the one image among the members of a sample."""
    images = [name for name in IMAGE_EXTENSIONS if name in fields]
    if len(images) == 1:
        return fields[images[0]]
    others = ", ".join(sorted(fields)[:10])
    raise UnfitError(f"has {len(images)} images ({', '.join(images)})" if images else f"has no image, only {others}")
