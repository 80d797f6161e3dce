"""Reads WebDataset shards that somebody else made as a source: members group into samples of an image and a label."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gandist.data.making.files import IMAGE_ENDINGS, Found, seal
from gandist.data.making.payload import Broken, Payload, TarMember
from gandist.data.order import Ints
from gandist.data.shards import tar
from gandist.data.shards.index_files import INDEX_NAME, read_index
from gandist.data.shards.labels import READ_BYTES, LabelError, LabelReader, class_names_of
from gandist.data.shards.scan import LABEL_FIELD, samples
from gandist.errors import DataError

_LOOKED_AT = 1000  # members, to see whether a tar has labels
_IMAGE_FIELDS = frozenset(ending[1:] for ending in IMAGE_ENDINGS) | {"npy"}

Label = int | str | None


def holds_labels(path: Path) -> bool:
    """Return whether there is a ``.cls`` member among the first of a tar file."""
    members = islice(tar.walk(path), _LOOKED_AT)
    return any(tar.split_name(member.name)[1] == LABEL_FIELD for member in members)


def find_samples(paths: Sequence[Path], label: str, image: str | None) -> tuple[Found, list[Label]]:
    """Return the images in tar shards and the label of each, read from its sample.

    Args:
        paths: of the shards.
        label: where the label is, as :mod:`gandist.data.shards.labels` has it.
        image: the field that holds the image; whichever is one when None.

    Raises:
        DataError: a shard is damaged, a sample has several images, or not one label can be read.

    """
    reader, found, labels = LabelReader(label), Found(), list[Label]()
    wrong: list[str] = []
    for path in paths:
        found.seals.append(seal(path))
        with path.open("rb") as file:
            for key, fields in samples(path):
                field = _image_field(path, key, fields, image)
                if field is None:
                    found.skipped["samples without an image"] += 1
                    continue
                value = _label(reader, key, fields, file)
                name = f"{path.name}: {key}.{field}"
                if isinstance(value, LabelError):
                    wrong.append(f"{name} {value}")
                found.paths.append((key,))
                found.shown.append(name)
                found.payloads.append(_payload(path, fields[field], value))
                labels.append(None if isinstance(value, LabelError) else value)
    if wrong and len(wrong) == len(labels):
        raise DataError(f"Not one label can be read with --label {label}; the first: {wrong[0]}.")
    return found, labels


def _label(reader: LabelReader, key: str, fields: Mapping[str, tar.Member], file: BinaryIO) -> Label | LabelError:
    def content(member: tar.Member) -> bytes:
        return os.pread(file.fileno(), min(member.size, READ_BYTES), member.offset)

    try:
        return reader.read(key, fields, content)
    except LabelError as error:
        return error


def _payload(path: Path, image: tar.Member, label: Label | LabelError) -> Payload:
    if isinstance(label, LabelError):
        return Broken(str(label), "without a label")
    return TarMember(path, image.offset, image.size)


def numbered(labels: Sequence[Label], where: str) -> tuple[tuple[str, ...], Ints]:
    """Return the names of the classes and every image's class number; -1 for none.

    Numbers keep their meaning, so class 7 is number 7 even where no image is of class 3.
    """
    kinds = {type(label) for label in labels if label is not None}
    if len(kinds) > 1:
        raise DataError(f"{where}: some labels are numbers and some are names; they must be one or the other.")
    if kinds == {str}:
        names = class_names_of(label for label in labels if isinstance(label, str))
        number: Mapping[Label, int] = {name: n for n, name in enumerate(names)}
    else:
        names = [str(n) for n in range(1 + max((label for label in labels if isinstance(label, int)), default=-1))]
        number = {n: n for n in range(len(names))}
    return tuple(names), np.array([number.get(label, -1) for label in labels], dtype=np.int64)


def names_beside(paths: Sequence[Path], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that an index beside the shards gives to the classes, or the numbers where there is none."""
    folder = paths[0].parent
    if not (folder / INDEX_NAME).is_file():
        return names
    known = read_index(folder).class_names
    return known if len(known) >= len(names) else names


def _image_field(path: Path, key: str, fields: Mapping[str, tar.Member], wanted: str | None) -> str | None:
    if wanted is not None:
        return wanted if wanted in fields else None
    images = sorted(_IMAGE_FIELDS & fields.keys())
    if len(images) > 1:
        raise DataError(
            f"{path}: sample {key!r} has several images ({', '.join(images)}). Say which to take: --image {images[0]}"
        )
    return images[0] if images else None
