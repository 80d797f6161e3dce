"""The index of a set of shards: where every image lies, its label, and a digest of it all.

How it is stored: :mod:`gandist.data.shards.index_files`.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gandist.data.image_set import Numbers
from gandist.data.order import Ints
from gandist.data.shards.columns import ARRAYS, Arrays, Columns, pieces
from gandist.errors import DataError
from gandist.latents.space import LatentSpace


@dataclass(frozen=True)
class Shard:
    """One shard: its path relative to the index, and what it held when it was indexed."""

    url: str
    bytes: int
    samples: int
    sha256: str | None


@dataclass(frozen=True, eq=False)
class Index:
    """A set of shards and the places of all its samples; arrays have one entry per sample, in the order of the shards.

    ``class_names`` is empty for images without labels. ``label_source`` says where the labels were read: a field such
    as ``cls``, ``json:KEY``, ``folder``, or None. ``transform`` says how the images were made from their source.
    ``mapped`` is set where the arrays are those of a file. ``numbers`` says what the images are made of; other numbers
    than bytes are raw arrays, and ``latents`` says what they mean where they are an autoencoder's moments.
    """

    shards: tuple[Shard, ...]
    resolution: int
    channels: int
    image_ext: tuple[str, ...]
    class_names: tuple[str, ...]
    source: str
    label_source: str | None
    transform: Mapping[str, Any]
    rejected: tuple[Mapping[str, str], ...]
    offset: NDArray[np.int64]
    size: NDArray[np.int32]
    label: NDArray[np.int32]
    mapped: Columns | None = None
    numbers: Numbers = "uint8"
    latents: LatentSpace | None = None

    @property
    def columns(self) -> Columns:
        """The arrays in a form that travels light to another process."""
        return self.mapped or Columns(Arrays(self.offset, self.size, self.label))

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.offset)

    @functools.cached_property
    def counts(self) -> Ints:
        """Samples in each shard."""
        return np.array([shard.samples for shard in self.shards], dtype=np.int64)

    @functools.cached_property
    def class_counts(self) -> tuple[int, ...]:
        """Samples of each class; empty where there are no labels."""
        counts = np.zeros(len(self.class_names) + 1, dtype=np.int64)  # the first is for samples without a label
        for piece in pieces(self.samples):
            counts += np.bincount(self.label[piece] + 1, minlength=len(counts))
        return tuple(counts[1:].tolist())

    @functools.cached_property
    def digest(self) -> str:
        """A digest of what the images are: the shards, and every sample's place and label."""
        parts = [self.resolution, self.channels, self.class_names, [vars(shard) for shard in self.shards]]
        if self.numbers != "uint8" or self.latents is not None:
            parts += [self.numbers, self.latents and self.latents.as_json()]
        digest = hashlib.sha256(json.dumps(parts).encode())
        for name, kind in ARRAYS.items():
            digest.update(np.ascontiguousarray(getattr(self, name), dtype=np.dtype(kind).newbyteorder("<")).data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Kept:
    """The samples that a filter keeps: how many in each shard and class, and the label that each gets.

    ``renumbered`` holds the new label of every old one, -1 for those left out, and of -1 at its end; it is None where
    all samples are kept as they are.
    """

    counts: Ints
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    renumbered: Ints | None

    def samples(self, label: NDArray[np.int32]) -> NDArray[np.unsignedinteger[Any]]:
        """Return the numbers of the kept samples in the index."""
        if self.renumbered is None:
            return np.arange(len(label), dtype=np.uint64)
        small = np.uint32 if len(label) <= 1 << 32 else np.uint64
        found = [np.flatnonzero(self.renumbered[label[p]] >= 0) + p.start for p in pieces(len(label))]
        return np.concatenate([part.astype(small) for part in found])

    def labels(self, label: NDArray[np.int32]) -> Ints:
        """Return what labels of the index are among the kept classes."""
        return label.astype(np.int64) if self.renumbered is None else self.renumbered[label]


def keep(index: Index, classes: Sequence[int] | None) -> Kept:
    """Return the samples of ``classes`` (all if None), labelled 0, 1, ... in the order of the class numbers.

    Raises:
        DataError: the set has no labels, has no such class, or holds no image of these classes.

    """
    if classes is None:
        return Kept(index.counts, index.class_names, index.class_counts, None)
    chosen = check_classes(classes, index.class_names)
    renumbered = np.full(len(index.class_names) + 1, -1, dtype=np.int64)
    renumbered[chosen] = np.arange(len(chosen))
    ends = np.cumsum(index.counts)
    counts = np.zeros(len(index.shards), dtype=np.int64)
    for piece in pieces(index.samples):
        samples = np.flatnonzero(renumbered[index.label[piece]] >= 0) + piece.start
        counts += np.bincount(np.searchsorted(ends, samples, side="right"), minlength=len(counts))
    if not counts.any():
        raise DataError(f"The shards hold no image of data.classes {chosen}.")
    names = tuple(index.class_names[number] for number in chosen)
    return Kept(counts, names, tuple(index.class_counts[number] for number in chosen), renumbered)


def check_classes(classes: Sequence[int], class_names: Sequence[str]) -> list[int]:
    """Return the class numbers in rising order; a number without a class is a :class:`DataError`."""
    if not class_names:
        raise DataError(f"data.classes is {list(classes)}, but the images have no labels to choose by; leave it out.")
    chosen = sorted(set(classes))
    if wrong := [number for number in chosen if not 0 <= number < len(class_names)]:
        known = ", ".join(f"{number} = {name}" for number, name in list(enumerate(class_names))[:20])
        raise DataError(f"data.classes names {wrong}, but the classes are 0 to {len(class_names) - 1} ({known}).")
    if not chosen:
        raise DataError("data.classes is empty: name at least one class, or leave it out to train on all.")
    return chosen
