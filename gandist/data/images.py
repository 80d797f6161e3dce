"""The real images of a run, by position: from a folder of indexed shards, or made as they are asked for."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gandist.config import DataConfig
from gandist.data import glyphs
from gandist.data.decode import DecodeError, Decoder
from gandist.data.index import Index, check_classes, keep, read_index
from gandist.data.order import Ints, Order
from gandist.data.store import Store
from gandist.errors import DataError

Images = NDArray[np.uint8]


class ImageSet(ABC):
    """Images at all positions of a run.

    Attributes:
        resolution: height and width in pixels.
        channels: 1 or 3.
        class_names: one for each label 0, 1, ...; empty for images without labels.
        class_counts: images of each class; ones for an endless set, whose classes are equally likely.
        samples: images in an epoch; None for an endless set.
        fingerprint: equal for two sets only if they hold the same image at every position.

    """

    resolution: int
    channels: int
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    samples: int | None
    fingerprint: str

    @abstractmethod
    def read(self, positions: Ints) -> tuple[Images, Ints]:
        """Return the images and labels (-1 for none) at ``positions``: shapes (n, H, W, C) and (n,).

        Raises:
            DataError: an image cannot be read or decoded; the message names its shard and byte.

        """


def open_images(data: DataConfig, seed: int) -> ImageSet:
    """Open the images that a recipe asks for; files are opened when they are first read.

    Raises:
        DataError: there is no prepared set at ``data.shards``, it is damaged, or it does not fit the recipe.

    """
    if data.shards == "glyphs":
        return GlyphImages(data, seed)
    folder = Path(data.shards).expanduser()
    index = read_index(folder)
    _check_fits(index, folder, data)
    return ShardImages(index, folder, data, seed)


def _check_fits(index: Index, folder: Path, data: DataConfig) -> None:
    if index.resolution != data.resolution:
        raise DataError(
            f"{folder}: holds images of {index.resolution} px, but data.resolution is {data.resolution}. "
            f"Train with --data.resolution {index.resolution}, or prepare the source again with "
            f"--resolution {data.resolution}."
        )
    if index.channels != data.channels:
        kinds = {1: "greyscale (1 channel)", 3: "RGB (3 channels)"}
        raise DataError(
            f"{folder}: holds {kinds[index.channels]} images, but data.channels is {data.channels}. "
            f"Train with --data.channels {index.channels}, or prepare the source again with "
            f"--channels {data.channels}."
        )


class ShardImages(ImageSet):
    """The images of a prepared set, each once per epoch, in the order of :class:`~gandist.data.order.Order`."""

    def __init__(self, index: Index, folder: Path, data: DataConfig, seed: int) -> None:
        kept = keep(index, data.classes)
        self.resolution, self.channels = index.resolution, index.channels
        self.class_names = kept.class_names
        self.class_counts = tuple(np.bincount(kept.labels[kept.labels >= 0], minlength=len(kept.class_names)).tolist())
        self.samples = len(kept.samples)
        self._order = Order(
            kept.counts.tolist(), seed, chunk=data.chunk, block=data.block, lanes=data.lanes, stripe=data.stripe
        )
        chosen = None if data.classes is None else sorted(set(data.classes))
        self.fingerprint = self._order.fingerprint(f"{index.digest} {chosen}")
        self._shard_ends = np.cumsum(kept.counts)
        self._offsets, self._sizes = index.offset[kept.samples], index.size[kept.samples]
        self._labels = kept.labels
        self._paths = [(folder / shard.url).absolute() for shard in index.shards]  # a worker may be elsewhere
        self._store = Store(self._paths, [shard.bytes for shard in index.shards])
        self._decoder = Decoder(index.resolution, index.channels)

    def read(self, positions: Ints) -> tuple[Images, Ints]:
        """Return the images and labels at ``positions``."""
        samples = self._order.locate(positions)
        shards = np.searchsorted(self._shard_ends, samples, side="right").tolist()
        offsets, sizes = self._offsets[samples].tolist(), self._sizes[samples].tolist()
        images = np.empty((len(samples), self.resolution, self.resolution, self.channels), dtype=np.uint8)
        for image, shard, offset, size in zip(images, shards, offsets, sizes, strict=True):
            try:
                self._decoder.into(self._store.read(shard, offset, size), image)
            except DecodeError as error:
                raise DataError(
                    f"{self._paths[shard]}: byte {offset}: {error}. The shard is damaged; prepare the set again."
                ) from None
        return images, self._labels[samples]


class GlyphImages(ImageSet):
    """An endless set of made digits; position ``t`` is sample ``t``."""

    samples = None

    def __init__(self, data: DataConfig, seed: int) -> None:
        names = glyphs.CLASS_NAMES
        self._classes = check_classes(data.classes, names) if data.classes is not None else list(range(len(names)))
        self._seed = seed
        self.resolution, self.channels = data.resolution, data.channels
        self.class_names = tuple(names[number] for number in self._classes)
        self.class_counts = (1,) * len(self._classes)
        parts = ("glyphs", glyphs.GLYPHS_VERSION, seed, self.resolution, self.channels, self._classes)
        self.fingerprint = hashlib.sha256(repr(parts).encode()).hexdigest()

    def read(self, positions: Ints) -> tuple[Images, Ints]:
        """Return the images and labels at ``positions``."""
        return glyphs.draw(
            positions, seed=self._seed, resolution=self.resolution, channels=self.channels, classes=self._classes
        )
