"""The images of indexed shards, each once per epoch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gandist.config import DataConfig
from gandist.data.decode import DecodeError, Decoder, quietly
from gandist.data.image_set import Images, ImageSet, Report
from gandist.data.order import Ints, Order
from gandist.data.shards.index import Index, keep
from gandist.data.shards.store import Places, Store
from gandist.errors import DataError

_NOTES = 5  # bad images that are named; the others are only counted
_REMEDY = "Copy it again or prepare the set again; 'gandist index --verify' finds all such images."


class ShardImages(ImageSet):
    """The images of a prepared set, each once per epoch, in the order of :class:`~gandist.data.order.Order`.

    An image that cannot be decoded is replaced by the next one of its shard that can, and by its label: which one that
    is depends on the bytes alone, so that all ranks and workers agree. Once a process has met more bad images than
    ``data.bad_images`` of the set, reading fails. Bytes that cannot be read at all are never replaced.
    """

    def __init__(self, index: Index, places: Places, data: DataConfig, seed: int) -> None:
        self._kept = keep(index, data.classes)
        self.resolution, self.channels = index.resolution, index.channels
        self.numbers, self.latents = index.numbers, index.latents
        self.class_names, self.class_counts = self._kept.class_names, self._kept.class_counts
        self._order = Order(
            self._kept.counts, seed, chunk=data.chunk, block=data.block, lanes=data.lanes, stripe=data.stripe
        )
        self.samples = self._order.samples
        chosen = None if data.classes is None else sorted(set(data.classes))
        self.fingerprint = self._order.fingerprint(f"{index.digest} {chosen}")
        self._shard_ends = np.cumsum(self._kept.counts)
        self._columns = index.columns
        self._numbers: NDArray[np.unsignedinteger[Any]] | None = None  # of the kept samples, where not all are
        self._store = Store(places)
        self._decoder = Decoder(index.resolution, index.channels, index.numbers)
        self._header = bytearray(len(self._decoder.header))
        self._bad = _BadImages(math.floor(data.bad_images * self.samples + 1e-9), self.samples)

    def read(self, positions: Ints, out: Images | None = None) -> tuple[Images, Ints]:
        """Return the images and labels at ``positions``."""
        samples = self._order.locate(positions)
        shards = np.searchsorted(self._shard_ends, samples, side="right").tolist()
        numbers, arrays = self._in_index(samples), self._columns.arrays()
        offsets, sizes, labels = arrays.offset[numbers].tolist(), arrays.size[numbers].tolist(), arrays.label[numbers]
        images = self._room(len(samples), out)
        with quietly():
            for i, (shard, offset, size) in enumerate(zip(shards, offsets, sizes, strict=True)):
                try:
                    self._decode(shard, offset, size, images[i])
                except DecodeError:
                    labels[i] = arrays.label[self._replace(int(samples[i]), shard, images[i])]
        return images, self._kept.labels(labels)

    def report(self) -> Report:
        """Return the bad images that this process met since the last call."""
        return self._bad.report()

    def _in_index(self, samples: Ints) -> Ints:
        """Return the numbers in the index of samples of the order."""
        if self._kept.renumbered is None:
            return samples
        if self._numbers is None:
            self._numbers = self._kept.samples(self._columns.arrays().label)
        numbers: Ints = self._numbers[samples].astype(np.int64)
        return numbers

    def _decode(self, shard: int, offset: int, size: int, image: Images) -> None:
        """Read an image to where it belongs; a raw one goes straight there."""
        if size != self._decoder.npy_bytes:
            self._decoder.into(self._store.read(shard, offset, size), image)
            return
        self._store.read_into(shard, offset, size, (memoryview(self._header), image.data))
        if self._header != self._decoder.header:
            self._decoder.into(bytes(self._header) + image.tobytes(), image)

    def _replace(self, sample: int, shard: int, image: Images) -> int:
        """Decode the next good image of the shard instead of a bad one; return its number in the index."""
        arrays, end = self._columns.arrays(), int(self._shard_ends[shard])
        first = end - int(self._kept.counts[shard])
        for candidate in (*range(sample, end), *range(first, sample)):
            number = int(self._in_index(np.array([candidate]))[0])
            offset, size = int(arrays.offset[number]), int(arrays.size[number])
            try:
                self._decode(shard, offset, size, image)
            except DecodeError as error:
                self._bad.add(number, f"{self._store.name(shard)}: byte {offset}: {error}.")
            else:
                return number
        raise DataError(f"{self._store.name(shard)}: none of its images can be decoded. {_REMEDY}")

    def __getstate__(self) -> dict[str, Any]:  # what has an entry for each sample is found again over there
        return {**self.__dict__, "_numbers": None}


class _BadImages:
    """The images that could not be decoded in this process: how many there may be, and what to say of them."""

    def __init__(self, allowed: int, samples: int) -> None:
        self._allowed, self._samples = allowed, samples
        self._known: set[int] = set()
        self._told, self._new_notes = 0, list[str]()

    def add(self, number: int, what: str) -> None:
        """Take down a bad image, which may have been met before.

        Raises:
            DataError: it is one too many.

        """
        if number in self._known:
            return
        self._known.add(number)
        if len(self._known) > self._allowed:
            raise DataError(f"{what} {self._too_many()} {_REMEDY}")
        if len(self._known) <= _NOTES:
            last = " Further ones are only counted." if len(self._known) == _NOTES else ""
            self._new_notes.append(f"{what} The next image of the shard takes its place.{last}")

    def report(self) -> Report:
        """Return how many are new since the last call, and words on them."""
        found = Report(len(self._known) - self._told, tuple(self._new_notes))
        self._told, self._new_notes = len(self._known), []
        return found

    def _too_many(self) -> str:
        if not self._allowed:
            return f"The shard is damaged, and data.bad_images allows no such image in {self._samples}."
        return f"It is one more than the {self._allowed} of {self._samples} that data.bad_images allows."
