"""Batches as a run reads them."""

from __future__ import annotations

import itertools
from typing import Any

from gandist.config import CacheConfig, DataConfig
from gandist.data.image_set import ImageSet
from gandist.data.images import open_images
from gandist.data.loader import batches

Digest = list[tuple[bytes, list[int], int]]


def taken(data: dict[str, Any], cache: CacheConfig | None = None, **how: int) -> Digest:
    """The first batches of a rank: pixels, labels, positions. Twelve of 24 are more than two epochs."""
    return taken_from(open_images(DataConfig(resolution=8, **data), 5, cache), **how)


def taken_from(
    images: ImageSet, *, rank: int = 0, world: int = 1, workers: int = 0, count: int = 12, batch: int = 24
) -> Digest:
    stream = batches(
        images, batch_images=batch, rank=rank, world=world, start=0, workers=workers, prefetch_batches=2,
        pin_memory=False, hflip=True, seed=5,
    )  # fmt: skip
    try:
        return [(b.images.numpy().tobytes(), b.labels.tolist(), b.position) for b in itertools.islice(stream, count)]
    finally:
        stream.close()
