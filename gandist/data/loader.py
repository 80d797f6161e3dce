"""Batches of real images for one rank, in an order that neither workers nor ranks nor restarts can change.

1. The trainer says at which position of the run to begin.
2. A queue hands out the positions of global batches: ``start``, ``start + batch``, ...
3. A worker works out its rank's slice of the batch, reads and decodes those images, and mirrors some of them.
4. Batches come back in the order of the queue, whichever worker was first.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gandist.data.image_set import ImageSet
from gandist.data.order import coins
from gandist.data.processes import begin_worker, worker_context
from gandist.errors import ConfigError, DataError, MachineError, RunError

_SHARED_MEMORY = "/dev/shm"  # where workers put batches for the trainer


@dataclass(frozen=True)
class Batch:
    """The real images of one D step on one rank.

    Attributes:
        images: uint8, shape (batch / ranks, height, width, channels).
        labels: int64, shape (batch / ranks,); -1 where there is none.
        position: in the run, of the first image of the global batch.

    """

    images: Tensor
    labels: Tensor
    position: int


def batches(
    images: ImageSet,
    *,
    batch_images: int,
    rank: int,
    world: int,
    start: int,
    workers: int,
    prefetch_batches: int,
    pin_memory: bool,
    hflip: bool,
    seed: int,
) -> Iterator[Batch]:
    """Return an endless iterator over this rank's share of the global batches; workers start to read at once.

    Args:
        images: the set to read.
        batch_images: size of the global batch; rank r of R takes its r-th contiguous part.
        rank: of this process.
        world: number of ranks.
        start: position of the first global batch, in images.
        workers: processes that read and decode; 0 does it in this process.
        prefetch_batches: batches that each worker keeps ready.
        pin_memory: put the batches into memory that a GPU can read directly.
        hflip: mirror every image with probability one half, a pure function of ``(seed, position)``.
        seed: of the run.

    Raises:
        ConfigError: the batch cannot be shared evenly.
        DataError: raised by the iterator where an image cannot be read.
        MachineError: the machine has too little shared memory for the workers.
        RunError: raised by the iterator where a worker died.

    """
    check_divides(batch_images, world)
    share = _Share(images, batch_images, rank, world, seed if hflip else None)
    if workers:
        _check_shared_memory(share.batch_bytes, workers * prefetch_batches + 1)
    source: Iterator[tuple[Tensor, Tensor, int] | DataError] = iter(
        DataLoader(
            share,
            batch_size=None,
            sampler=_Positions(start, batch_images),
            num_workers=workers,
            prefetch_factor=prefetch_batches if workers else None,
            multiprocessing_context=worker_context(__name__) if workers else None,
            worker_init_fn=begin_worker if workers else None,
            pin_memory=pin_memory,
        )
    )
    return _deliver(source)


def warm_up() -> None:
    """Begin to start what workers are forked from, without waiting: it takes a second that other work can fill."""
    worker_context(__name__)


def _deliver(source: Iterator[tuple[Tensor, Tensor, int] | DataError]) -> Iterator[Batch]:
    while True:
        try:
            item = next(source)
        except (RuntimeError, OSError, EOFError) as error:
            if isinstance(error, RuntimeError) and "DataLoader worker (pid" not in str(error):
                raise  # these words are all that torch gives a dead worker away by
            raise RunError(
                f"A process that reads images died ({error}). Usually the machine ran out of memory: "
                "try fewer execution.workers, or --execution.workers 0 to read in the trainer."
            ) from error
        if isinstance(item, DataError):
            raise item
        yield Batch(*item)


class _Positions(Sampler[int]):
    """The positions of all global batches from ``start`` on."""

    def __init__(self, start: int, batch_images: int) -> None:
        self._start, self._batch_images = start, batch_images

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self._start, self._batch_images)


class _Share(Dataset[tuple[Tensor, Tensor, int] | DataError]):
    """One rank's part of every global batch, by the position of the batch."""

    def __init__(self, images: ImageSet, batch_images: int, rank: int, world: int, flip_seed: int | None) -> None:
        self._images, self._flip_seed = images, flip_seed
        size = batch_images // world
        self._slice = np.arange(rank * size, (rank + 1) * size, dtype=np.int64)
        self.batch_bytes = size * (images.resolution**2 * images.channels + 8)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, int] | DataError:
        """Return images, labels and ``position``; an error is a value here, so that it crosses processes unchanged."""
        positions = position + self._slice
        try:
            images, labels = self._images.read(positions)
        except DataError as error:
            return error
        if self._flip_seed is not None:
            mirrored = coins(positions, self._flip_seed, "hflip")
            images[mirrored] = images[mirrored, :, ::-1]
        return torch.from_numpy(images), torch.from_numpy(labels), position


def check_divides(batch_images: int, world: int) -> None:
    """Raise :class:`ConfigError` unless every rank gets the same number of images."""
    if batch_images % world == 0:
        return
    ranks = [n for n in range(1, batch_images + 1) if batch_images % n == 0]
    near = sorted(ranks, key=lambda n: (abs(n - world), n))[:4]
    below, above = batch_images // world * world, (batch_images // world + 1) * world
    sizes = f"{below} or {above}" if below else str(above)
    raise ConfigError(
        f"update.batch_images {batch_images} cannot be shared evenly by {world} ranks. "
        f"Use --update.batch_images {sizes}, or run on {', '.join(map(str, sorted(near)))} ranks."
    )


def _check_shared_memory(batch_bytes: int, batches_ready: int) -> None:
    try:
        status = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return  # torch finds another place where this one is missing
    free, needed = status.f_bavail * status.f_frsize, batch_bytes * batches_ready
    if needed > free:
        raise MachineError(
            f"{_SHARED_MEMORY} has {free >> 20} MiB free; the workers' batches need {(needed >> 20) + 1} MiB. "
            "Lower execution.workers or execution.prefetch_batches, or give the container more (docker --shm-size)."
        )
