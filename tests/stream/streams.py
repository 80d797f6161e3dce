"""Shards whose images say who they are, and streams of them."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gandist.config import CacheConfig, DataConfig
from gandist.data.loader import Batch, batches
from gandist.data.stream.images import StreamedImages, open_stream

SIDE = 4
CLASSES = 10
Name = tuple[int, int]
"""Shard and place in it of an image."""


def image(shard: int, place: int) -> NDArray[np.uint8]:
    """A greyscale image that holds its shard, its place and its label in its pixels; the left half is darker."""
    pixels = np.zeros((SIDE, SIDE, 1), dtype=np.uint8)
    pixels[:3, 2:, 0] = 128
    pixels[:3, :, 0] += np.array([[shard], [place], [label_of(shard, place)]], dtype=np.uint8)
    return pixels


def label_of(shard: int, place: int) -> int:
    return (3 * shard + place) % CLASSES


def name_of(pixels: NDArray[np.uint8]) -> tuple[Name, int, bool]:
    """Return which image this is, the label that its pixels hold, and whether it is mirrored."""
    mirrored = bool(pixels[0, 0, 0] >= 128)
    shard, place, label, _ = (int(value) % 128 for value in pixels[:, 0, 0])
    return (shard, place), label, mirrored


def npy(pixels: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    return buffer.getvalue()


def members(shard: int, places: Sequence[int]) -> dict[str, bytes]:
    """The members of a shard; keys restart in every shard, so that a mix-up of shards would go unnoticed by name."""
    found: dict[str, bytes] = {}
    for place in places:
        found[f"{place:04d}.npy"] = npy(image(shard, place))
        found[f"{place:04d}.cls"] = str(label_of(shard, place)).encode()
    return found


def write_tar(path: Path, content: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_shards(folder: Path, shards: int, images: int) -> Path:
    for shard in range(shards):
        write_tar(folder / f"{shard:03d}.tar", members(shard, range(images)))
    return folder


def opened(pattern: object, seed: int = 0, *, allow_pipe: bool = False, **knobs: Any) -> StreamedImages:
    """Open a stream; its buffer holds a single image unless asked otherwise, so that shards come one by one."""
    stream = {"label": "cls", "class_count": CLASSES, "shuffle_images": 1, **knobs.pop("stream", {})}
    data = {"shards": str(pattern), "resolution": SIDE, "channels": 1, "stream": stream, **knobs}
    return open_stream(DataConfig.model_validate(data), seed, CacheConfig(), allow_pipe=allow_pipe)


def taken(images: StreamedImages, count: int, batch_images: int = 6, **options: Any) -> list[Batch]:
    """Return the first batches of one rank."""
    defaults = {"rank": 0, "world": 1, "start": 0, "workers": 0, "prefetch_batches": 2, "hflip": False, "seed": 0}
    stream = batches(images, batch_images=batch_images, pin_memory=False, **{**defaults, **options})
    try:
        return list(itertools.islice(stream, count))
    finally:
        stream.close()  # type: ignore[attr-defined]


def names(found: Sequence[Batch]) -> list[Name]:
    """Return which images the batches hold, after a look that each carries its own label."""
    seen = []
    for batch in found:
        for pixels, label in zip(batch.images.numpy(), batch.labels.tolist(), strict=True):
            name, painted, _ = name_of(pixels)
            assert label == painted == label_of(*name), f"image {name} is labelled {label}"
            seen.append(name)
    return seen
