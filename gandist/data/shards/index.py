"""The index of a set of shards: where every image lies, its label, and a digest of it all.

How it is stored: :mod:`gandist.data.shards.index_files`.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gandist.data.order import Ints
from gandist.errors import DataError

ARRAYS = {"offset": np.int64, "size": np.int32, "label": np.int32}
"""The arrays of an index, one entry for each sample."""


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
    """

    shards: tuple[Shard, ...]
    resolution: int
    channels: Literal[1, 3]
    image_ext: tuple[str, ...]
    class_names: tuple[str, ...]
    source: str
    label_source: str | None
    transform: Mapping[str, Any]
    rejected: tuple[Mapping[str, str], ...]
    offset: NDArray[np.int64]
    size: NDArray[np.int32]
    label: NDArray[np.int32]

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.offset)

    @property
    def counts(self) -> Ints:
        """Samples in each shard."""
        return np.array([shard.samples for shard in self.shards], dtype=np.int64)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Samples of each class; empty where there are no labels."""
        return tuple(np.bincount(self.label[self.label >= 0], minlength=len(self.class_names)).tolist())

    @functools.cached_property
    def digest(self) -> str:
        """A digest of what the images are: the shards, and every sample's place and label."""
        shards = [asdict(shard) for shard in self.shards]
        digest = hashlib.sha256(json.dumps([self.resolution, self.channels, self.class_names, shards]).encode())
        for name, kind in ARRAYS.items():
            digest.update(getattr(self, name).astype(np.dtype(kind).newbyteorder("<")).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Kept:
    """The samples that a filter keeps: their numbers in the index, how many in each shard, and their labels."""

    samples: Ints
    counts: Ints
    labels: Ints
    class_names: tuple[str, ...]


def keep(index: Index, classes: Sequence[int] | None) -> Kept:
    """Return the samples of ``classes`` (all if None), labelled 0, 1, ... in the order of the class numbers.

    Raises:
        DataError: the set has no labels, has no such class, or holds no image of these classes.

    """
    if classes is None:
        return Kept(np.arange(index.samples), index.counts, index.label.astype(np.int64), index.class_names)
    chosen = check_classes(classes, index.class_names)
    renumbered = np.full(len(index.class_names) + 1, -1, dtype=np.int64)  # the last entry is for label -1
    renumbered[chosen] = np.arange(len(chosen))
    labels = renumbered[index.label]
    samples = np.flatnonzero(labels >= 0)
    if not len(samples):
        raise DataError(f"The shards hold no image of data.classes {chosen}.")
    shard = np.searchsorted(np.cumsum(index.counts), samples, side="right")
    counts = np.bincount(shard, minlength=len(index.shards)).astype(np.int64)
    return Kept(samples, counts, labels[samples], tuple(index.class_names[number] for number in chosen))


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
