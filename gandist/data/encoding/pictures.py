"""Reads the pictures of indexed shards in their order, a shard at a time, decoded by several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gandist.data.decode import DecodeError, Decoder, quietly
from gandist.data.image_set import Images
from gandist.data.shards.index import Index
from gandist.data.shards.store import LocalPlaces, Store
from gandist.errors import DataError

_TASK_IMAGES = 8


class Pictures:
    """The pictures of a set, in batches.

    Args:
        index: of the set.
        folder: that its shards lie in.
        workers: threads that decode.

    """

    def __init__(self, index: Index, folder: Path, workers: int) -> None:
        self._index, self._workers = index, workers
        self._store = Store(LocalPlaces(folder, index.shards))
        self._decoder = Decoder(index.resolution, index.channels)
        self._ends = np.cumsum(index.counts)

    def samples(self, shard: int) -> range:
        """Return the numbers of a shard's samples in the index."""
        end = int(self._ends[shard])
        return range(end - int(self._index.counts[shard]), end)

    def batches(self, shard: int, size: int) -> Iterator[Images]:
        """Yield a shard's pictures in order, ``size`` at a time: uint8, shape (n, H, W, channels).

        While one batch is worked on, the next is decoded.

        Raises:
            DataError: a picture cannot be read or decoded; the message names its shard and byte.

        """
        samples = self.samples(shard)
        pieces = [samples[first : first + size] for first in range(0, len(samples), size)]
        ahead: deque[tuple[Images, list[Future[None]]]] = deque()
        with quietly(), ThreadPoolExecutor(self._workers) as pool:
            for piece in pieces:
                ahead.append(self._begin(pool, shard, piece))
                if len(ahead) > 1:
                    yield _finished(*ahead.popleft())
            while ahead:
                yield _finished(*ahead.popleft())

    def close(self) -> None:
        """Close the shards."""
        self._store.close()

    def _begin(self, pool: ThreadPoolExecutor, shard: int, piece: range) -> tuple[Images, list[Future[None]]]:
        side, channels = self._index.resolution, self._index.channels
        out = np.empty((len(piece), side, side, channels), dtype=np.uint8)
        tasks = []
        for first in range(0, len(piece), _TASK_IMAGES):
            places = [
                (int(self._index.offset[n]), int(self._index.size[n])) for n in piece[first : first + _TASK_IMAGES]
            ]
            raws = [self._store.read(shard, *place) for place in places]
            tasks.append(pool.submit(self._decode, shard, places, raws, out[first : first + _TASK_IMAGES]))
        return out, tasks

    def _decode(self, shard: int, places: list[tuple[int, int]], raws: list[bytes], out: Images) -> None:
        for (offset, _), raw, image in zip(places, raws, out, strict=True):
            try:
                self._decoder.into(raw, image)
            except DecodeError as error:
                raise DataError(
                    f"{self._store.name(shard)}: byte {offset}: {error}. Prepare the set again, without this image."
                ) from None


def _finished(images: Images, tasks: list[Future[None]]) -> Images:
    for task in tasks:
        task.result()
    return images
