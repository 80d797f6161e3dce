"""The images of indexed shards, each once per epoch."""

from __future__ import annotations

import numpy as np

from gandist.config import DataConfig
from gandist.data.decode import DecodeError, Decoder
from gandist.data.image_set import Images, ImageSet
from gandist.data.order import Ints, Order
from gandist.data.shards.index import Index, keep
from gandist.data.shards.store import Places, Store
from gandist.errors import DataError


class ShardImages(ImageSet):
    """The images of a prepared set, each once per epoch, in the order of :class:`~gandist.data.order.Order`."""

    def __init__(self, index: Index, places: Places, data: DataConfig, seed: int) -> None:
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
        self._store = Store(places)
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
                    f"{self._store.name(shard)}: byte {offset}: {error}. The shard is damaged; prepare the set again."
                ) from None
        return images, self._labels[samples]
