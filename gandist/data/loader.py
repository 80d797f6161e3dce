"""Batches of real images for one rank, in an order that neither workers nor ranks nor restarts can change.

1. The trainer says at which position of the run to begin.
2. A queue hands out the positions of global batches: ``start``, ``start + batch``, ...
3. A worker works out its rank's slice of the batch, reads and decodes those images to a place on a shelf, and mirrors
   some of them.
4. Batches come back in the order of the queue, whichever worker was first.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from gandist.data.image_set import Follower, Images, ImageSet, Reading
from gandist.data.order import Ints, coins
from gandist.data.processes import begin_worker, worker_context
from gandist.data.shelf import Place, Shelf
from gandist.data.stream.images import StreamedImages
from gandist.errors import ConfigError, MachineError, RunError, UserError
from gandist.runtime.machine import local_ranks

_SHARED_MEMORY = "/dev/shm"  # where workers put the batches of a stream for the trainer
_WORKER_DEATHS = 3  # after which a run does not start new workers any more
_PLACES_IN_USE = 16  # batches that the trainer may have at a time; a place costs no memory before it is used


class WorkerDiedError(RunError):
    """A process that reads images is gone, and with it what it was reading."""


@dataclass(frozen=True)
class Batch:
    """The real images of one D step on one rank.

    Attributes:
        images: uint8, shape (batch / ranks, height, width, bytes of one place over all channels).
        labels: int64, shape (batch / ranks,); -1 where there is none.
        position: in the run, of the first image of the global batch.
        bad_images: undecodable samples that its process met for the first time while it read this batch.
        notes: what a person should know of the reading, each a sentence or two.
        damaged_shards: shards of a stream that its process met and left out while it read this batch.

    """

    images: Tensor
    labels: Tensor
    position: int
    bad_images: int = 0
    notes: tuple[str, ...] = ()
    damaged_shards: int = 0


class Parcel(NamedTuple):
    """A batch on its way from the process that read it; its fields are those of :class:`Batch`.

    Images lie on a shelf, if one of its places is free. Arrays travel by value; a tensor costs a handshake between the
    processes to share its memory.
    """

    images: Place | Images | Tensor
    labels: Ints
    position: int
    bad_images: int = 0
    notes: tuple[str, ...] = ()
    damaged_shards: int = 0


def batches(
    images: ImageSet | StreamedImages,
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
        WorkerDiedError: raised by the iterator where workers died again and again, or one that read a stream.

    """
    check_divides(batch_images, world)
    flip_seed = seed if hflip else None
    share: _Share | _StreamShare
    if isinstance(images, StreamedImages):
        share = _StreamShare(images, batch_images, rank, world, start, flip_seed)
        if workers:
            _check_shared_memory(share.batch_bytes, workers * prefetch_batches + 1)
    else:
        share = _Share(images, batch_images, rank, world, flip_seed)

    def begin(position: int) -> Iterator[Parcel | UserError]:
        sampler = None
        if isinstance(share, _Share):
            share.shelf = Shelf(workers * prefetch_batches + _PLACES_IN_USE, share.batch_bytes) if workers else None
            sampler = _Positions(position, batch_images, share.shelf)
        return iter(
            DataLoader(
                share,
                batch_size=None,
                sampler=sampler,
                collate_fn=_unchanged,
                num_workers=workers,
                prefetch_factor=prefetch_batches if workers else None,
                multiprocessing_context=worker_context(__name__) if workers else None,
                worker_init_fn=begin_worker if workers else None,
                pin_memory=pin_memory,
            )
        )

    reading = describe_reading(batch_images, rank, world, start=start, ahead_batches=workers * prefetch_batches)
    deaths = 0 if isinstance(images, StreamedImages) else _WORKER_DEATHS
    return _deliver(_again_after_deaths(begin, begin(start), start, batch_images, deaths), images.follower(reading))


def describe_reading(batch_images: int, rank: int, world: int, *, start: int, ahead_batches: int) -> Reading:
    """Return how this rank reads, with the number of ranks on its machine."""
    return Reading(batch_images, rank, world, local_ranks(world), start, ahead_batches)


def warm_up() -> None:
    """Begin to start what workers are forked from, without waiting: it takes a second that other work can fill."""
    worker_context(__name__)


def _deliver(source: Iterator[Parcel], follower: Follower) -> Iterator[Batch]:
    with follower:
        for item in source:
            follower.passed(item.position)
            yield Batch(
                _tensor(item.images),
                torch.from_numpy(item.labels),
                item.position,
                item.bad_images,
                tuple(item.notes),  # pinning makes it a list
                item.damaged_shards,
            )


def _again_after_deaths(
    begin: Callable[[int], Iterator[Parcel | UserError]],
    source: Iterator[Parcel | UserError],
    start: int,
    batch_images: int,
    deaths: int,
) -> Iterator[Parcel]:
    """Go on with new workers where one has died, at most so many times: the order does not depend on them."""
    position, notes = start, list[str]()
    while True:
        try:
            for item in _received(source):
                yield item._replace(notes=(*item.notes, *notes))
                position, notes = item.position + batch_images, []
        except WorkerDiedError as died:
            if deaths == 0:
                raise
            deaths -= 1
            notes.append(f"{died} New ones go on where it was.")
            source = begin(position)


def _received(source: Iterator[Parcel | UserError]) -> Iterator[Parcel]:
    while True:
        try:
            item = next(source)
        except (RuntimeError, OSError, EOFError) as error:
            if isinstance(error, RuntimeError) and "DataLoader worker (pid" not in str(error):
                raise  # these words are all that torch gives a dead worker away by
            raise WorkerDiedError(
                f"A process that reads images died ({error}). Usually the machine ran out of memory: "
                "try fewer execution.workers, or --execution.workers 0 to read in the trainer."
            ) from error
        if isinstance(item, UserError):
            raise item
        yield item


def _tensor(images: Place | Images | Tensor) -> Tensor:
    if isinstance(images, Place):
        return images.tensor()
    return images if isinstance(images, Tensor) else torch.from_numpy(images)


def _unchanged(parcel: Any) -> Any:
    """Keep torch from making a tensor of every array."""
    return parcel


class _Positions(Sampler[tuple[int, int | None]]):
    """The positions of all global batches from ``start`` on, each with a place on the shelf if one is free."""

    def __init__(self, start: int, batch_images: int, shelf: Shelf | None) -> None:
        self._start, self._batch_images, self._shelf = start, batch_images, shelf

    def __iter__(self) -> Iterator[tuple[int, int | None]]:
        for position in itertools.count(self._start, self._batch_images):
            yield position, self._shelf.find() if self._shelf else None


class _Share(Dataset[Parcel | UserError]):
    """One rank's part of every global batch, by the position of the batch and a place for it on the shelf."""

    def __init__(self, images: ImageSet, batch_images: int, rank: int, world: int, flip_seed: int | None) -> None:
        self._images, self._flip_seed = images, flip_seed
        size = batch_images // world
        self._slice = np.arange(rank * size, (rank + 1) * size, dtype=np.int64)
        self._shape = (size, images.resolution, images.resolution, images.pixel_bytes)
        self.batch_bytes = math.prod(self._shape)
        self.shelf: Shelf | None = None

    def __getitem__(self, asked: tuple[int, int | None]) -> Parcel | UserError:
        """Return a batch; an error is a value here, so that it crosses processes unchanged."""
        position, number = asked
        positions = position + self._slice
        out = self.shelf.room(number, self._shape) if self.shelf and number is not None else None
        try:
            images, labels = self._images.read(positions, out)
        except UserError as error:
            return error
        _mirror(images, positions, self._flip_seed)
        shelved = self.shelf.place(number, self._shape) if self.shelf and number is not None else None
        return Parcel(shelved or images, labels, position, *self._images.report())


class _StreamShare(IterableDataset[Parcel | UserError]):
    """One rank's part of every global batch of a stream; with workers, each reads every so many-th of them."""

    def __init__(
        self, images: StreamedImages, batch_images: int, rank: int, world: int, start: int, flip_seed: int | None
    ) -> None:
        self._images, self._flip_seed = images, flip_seed
        self._batch_images, self._rank, self._world, self._start = batch_images, rank, world, start
        self._size = batch_images // world
        self.batch_bytes = self._size * (images.resolution**2 * images.channels + 8)

    def __iter__(self) -> Iterator[Parcel | UserError]:
        """Yield the batches of this process; an error is a value here, so that it crosses processes unchanged."""
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        stream = self._images.begin(
            start=self._start, consumer=self._rank * workers + worker, consumers=self._world * workers
        )
        mine = self._rank * self._size + np.arange(self._size, dtype=np.int64)
        try:
            for position in itertools.count(self._start + worker * self._batch_images, workers * self._batch_images):
                images, labels = stream.take(self._size)
                _mirror(images, position + mine, self._flip_seed)
                yield Parcel(torch.from_numpy(images), labels, position, *stream.report())
        except UserError as error:
            yield error
        finally:
            stream.close()


def _mirror(images: Images, positions: Ints, flip_seed: int | None) -> None:
    """Mirror the images at about half of the positions, in place; none without a seed."""
    if flip_seed is not None:
        mirrored = coins(positions, flip_seed, "hflip")
        images[mirrored] = images[mirrored, :, ::-1]


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
