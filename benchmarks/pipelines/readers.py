"""The ways to read a set that are compared: gandist's own, and what else people use, as their documentation shows it.

All yield batches of uint8 images and labels for ever, in a shuffled order, through torch's loader.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from gandist.config import DataConfig
from gandist.data.decode import Decoder
from gandist.data.images import open_images
from gandist.data.loader import batches
from gandist.data.shard_images import ShardImages
from pipelines.pictures import CLASSES, Stored

PREFETCH = 2

Reader = Callable[[Stored, int, int], Iterator[Any]]
"""Begins to read batches of a size with so many workers."""


def opened(stored: Stored, *, fast: bool) -> ShardImages:
    """Return gandist's set, decoding JPEG with simplejpeg or with Pillow."""
    images = open_images(DataConfig(shards=str(stored.shards), resolution=stored.kind.resolution), 0)
    assert isinstance(images, ShardImages)
    images._decoder = Decoder(images.resolution, images.channels, fast=fast)
    return images


def _gandist(stored: Stored, batch: int, workers: int, *, fast: bool) -> Iterator[Any]:
    return batches(
        opened(stored, fast=fast),
        batch_images=batch,
        rank=0,
        world=1,
        start=0,
        workers=workers,
        prefetch_batches=PREFETCH,
        pin_memory=False,
        hflip=False,
        seed=0,
    )


def gandist_pillow(stored: Stored, batch: int, workers: int) -> Iterator[Any]:
    """Read with gandist as it is installed by default."""
    return _gandist(stored, batch, workers, fast=False)


def gandist_simplejpeg(stored: Stored, batch: int, workers: int) -> Iterator[Any]:
    """Read with gandist and its extra ``fast``."""
    return _gandist(stored, batch, workers, fast=True)


def webdataset(stored: Stored, batch: int, workers: int) -> Iterator[Any]:
    """Read the same shards with WebDataset's own pipeline."""
    import webdataset as wds

    urls = [str(path) for path in sorted(stored.shards.glob("*.tar"))]
    ending = stored.kind.ending
    data = wds.WebDataset(urls, shardshuffle=100, seed=0).shuffle(1000)
    data = (data.decode() if ending == "npy" else data.decode("pil")).to_tuple(ending, "cls").map(_to_tensors).repeat()
    return _loader(data, batch, workers)


def _to_tensors(sample: tuple[Any, int]) -> tuple[Tensor, int]:
    return torch.from_numpy(np.array(sample[0])), sample[1]


def image_folder(stored: Stored, batch: int, workers: int) -> Iterator[Any]:
    """Read a folder of classes with torchvision."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import PILToTensor

    return _loader(ImageFolder(str(stored.folder), transform=PILToTensor()), batch, workers)


def zip_file(stored: Stored, batch: int, workers: int) -> Iterator[Any]:
    """Read a zip file, as the datasets of StyleGAN and its descendants do."""
    return _loader(ZipImages(stored.zipped), batch, workers)


class ZipImages(Dataset[tuple[Tensor, int]]):
    """The images of a zip file, which each process opens for itself."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._archive: zipfile.ZipFile | None = None
        with zipfile.ZipFile(path) as archive:
            self._names = sorted(archive.namelist())

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        if self._archive is None:
            self._archive = zipfile.ZipFile(self._path)
        with self._archive.open(self._names[number]) as file:
            content = io.BytesIO(file.read())
        pixels = np.load(content) if self._names[number].endswith("npy") else np.array(Image.open(content))
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), number % CLASSES


def _loader(data: Any, batch: int, workers: int) -> Iterator[Any]:
    whole = hasattr(data, "__len__")
    sampler = RandomSampler(data, replacement=True, num_samples=1 << 40) if whole else None
    return iter(
        DataLoader(
            data,
            batch_size=batch,
            sampler=sampler,
            num_workers=workers,
            prefetch_factor=PREFETCH if workers else None,
            multiprocessing_context="forkserver" if workers else None,
        )
    )


READERS: dict[str, Reader] = {
    "gandist": gandist_pillow,
    "gandist[fast]": gandist_simplejpeg,
    "WebDataset, shuffle(1000)": webdataset,
    "torchvision ImageFolder": image_folder,
    "zip file": zip_file,
}
