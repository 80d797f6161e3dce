"""Shards without an index, read as they come: for sets too large to look through first.

A consumer (a rank without workers, or one worker of a rank) reads, through a WebDataset pipeline:

1. numbers of shards, without end, each pass a new permutation of which the consumer takes its share;
2. each shard as a whole file on this machine: in place, from the cache, or from a command's output;
3. its samples, after a strict walk to its end: of a damaged shard nothing is used;
4. the samples of neighbouring shards shuffled in a buffer;
5. their pixels, where a bad image is replaced by the next.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from gandist.config import CacheConfig, DataConfig, StreamConfig
from gandist.data.decode import DecodeError, Decoder, quietly
from gandist.data.image_set import Follower, Images, Reading, Report
from gandist.data.order import Ints, key64
from gandist.data.remote.address import expand, is_remote
from gandist.data.remote.cache import open_cache
from gandist.data.shards.index import check_classes
from gandist.data.shards.labels import check_label_source
from gandist.data.stream.pipe import expand_pipe, is_pipe, pipe_shown
from gandist.data.stream.samples import BadSample, Sample, SampleReader
from gandist.data.stream.shards import Held, StreamShards, ahead, shard_order
from gandist.data.stream.tally import Tally
from gandist.errors import ConfigError, DataError

CAVEAT = (
    "Streamed data: there are no epochs; the order depends on how many ranks and workers read; a continued run "
    "begins new streams instead of going on exactly; near the border of two passes an image may come twice. "
    "`gandist index` with these shards gives exact order and exact resume."
)


class StreamedImages:
    """The images of shards without an index.

    Attributes:
        resolution: height and width in pixels.
        channels: 1 or 3.
        numbers: what an image is made of: bytes.
        latents: None, as these are pictures.
        class_names: the class numbers that are kept, as text.
        class_counts: ones, as nobody has counted.
        samples: None, as nobody has counted.
        fingerprint: equal for the same shards, by name, read in the same way.

    """

    samples = None
    numbers: Literal["uint8", "float16", "float32"] = "uint8"
    latents = None

    def __init__(self, urls: Sequence[str], data: DataConfig, seed: int, cache: CacheConfig) -> None:
        self.resolution, self.channels = data.resolution, data.channels
        classes = check_stream(data)
        self.class_names = tuple(map(str, classes))
        self.class_counts = (1,) * len(classes)
        renumbered = None if data.classes is None else {number: place for place, number in enumerate(classes)}
        self.sample_reader = SampleReader(data.stream.label, data.stream.class_count, renumbered)
        remote = any(is_remote(url) for url in urls)
        spool_folder = cache.dir if cache.dir is not None else Path(tempfile.gettempdir())
        self.shards = StreamShards(
            urls, open_cache(cache, allow_http=data.allow_http) if remote else None, spool_folder
        )
        self.seed, self.bad_images, self.shuffle_images = seed, data.bad_images, data.stream.shuffle_images
        names = [self.shards.name(number).rpartition("/")[2] for number in range(len(urls))]
        parts = ("stream", seed, names, self.resolution, self.channels, data.stream.label, classes)
        self.fingerprint = hashlib.sha256(repr(parts).encode()).hexdigest()

    def remarks(self, reading: Reading) -> tuple[str, ...]:  # noqa: ARG002 - it holds for every reading
        """Return what a person should know before a run reads a stream."""
        return (CAVEAT,)

    def follower(self, reading: Reading) -> Follower:  # noqa: ARG002 - each consumer fetches for itself
        """Return what is told how far a run has come."""
        return Follower()

    def begin(self, *, start: int, consumer: int, consumers: int) -> Stream:
        """Open the stream of one consumer of a run, or of a part of a run, that begins at position ``start``."""
        return Stream(self, start, consumer, consumers)


class Stream:
    """One consumer's images, without end."""

    def __init__(self, images: StreamedImages, start: int, consumer: int, consumers: int) -> None:
        import webdataset  # here, since only streams need it

        self._images = images
        self._tally = Tally(len(images.shards), images.bad_images)
        self._decoder = Decoder(images.resolution, images.channels)
        numbers = partial(
            shard_order, len(images.shards), seed=images.seed, start=start, consumer=consumer, consumers=consumers
        )
        buffer = max(1, images.shuffle_images // consumers)
        rng = random.Random(int(key64(images.seed, start, consumer, consumers, "stream")))
        self._samples: Generator[Sample, None, None] = iter(
            webdataset.DataPipeline(
                numbers, self._held, self._read, webdataset.shuffle(buffer, initial=buffer, rng=rng)
            )
        )

    def take(self, count: int) -> tuple[Images, Ints]:
        """Return the next images and labels: shapes (count, H, W, C) and (count,).

        Raises:
            DataError: too many shards are damaged, or too many images are bad.
            MachineError: this machine has no room for a shard.

        """
        side = self._images.resolution
        pixels = np.empty((count, side, side, self._images.channels), dtype=np.uint8)
        labels = np.empty(count, dtype=np.int64)
        filled = 0
        with quietly():
            while filled < count:
                sample = next(self._samples)
                try:
                    self._decoder.into(sample.raw, pixels[filled])
                except DecodeError as error:
                    self._tally.bad_image(self._images.shards.name(sample.shard), sample.key, f"is unfit: {error}")
                    continue
                self._tally.good_image()
                labels[filled] = sample.label
                filled += 1
        return pixels, labels

    def close(self) -> None:
        """Let go of the shard at hand."""
        self._samples.close()

    def report(self) -> Report:
        """Return what went wrong since the last call."""
        images, notes, shards = self._tally.report()
        return Report(images, (*notes, *self._images.shards.notes()), shards)

    def _held(self, numbers: Iterator[int]) -> Iterator[tuple[int, Held | DataError]]:
        """Make each shard whole on this machine; the next is fetched while the present one is read."""
        makers = (partial(self._hold, number) for number in numbers)
        return ahead(makers) if self._images.shards.slow else (maker() for maker in makers)

    def _hold(self, number: int) -> tuple[int, Held | DataError]:
        try:
            return number, self._images.shards.hold(number)
        except DataError as error:
            return number, error

    def _read(self, shards: Iterator[tuple[int, Held | DataError]]) -> Iterator[Sample]:
        """Yield the samples of one shard after another; what is bad is counted and told."""
        for number, held in shards:
            if isinstance(held, DataError):
                name = self._images.shards.name(number)
                self._tally.damaged_shard(name, str(held).removeprefix(f"{name}: "))
                continue
            try:
                yield from self._read_held(number, held)
            finally:
                held.close()

    def _read_held(self, number: int, held: Held) -> Iterator[Sample]:
        name, kept, whole = self._images.shards.name(number), 0, True
        for item in self._images.sample_reader.read(number, held.path):
            if isinstance(item, Sample):
                kept += 1
                yield item
            elif isinstance(item, BadSample):
                self._tally.bad_image(name, item.key, item.why)
            else:
                whole = False
                self._tally.damaged_shard(name, item.why)
        if whole:
            self._tally.read_shard(kept)


def is_stream(shards: str) -> bool:
    """Return whether ``data.shards`` names shards to stream: tar files, or commands that write them."""
    path = shards.partition("?")[0] if is_remote(shards) else shards
    return is_pipe(shards) or path.endswith(".tar")


def open_stream(data: DataConfig, seed: int, cache: CacheConfig, *, allow_pipe: bool) -> StreamedImages:
    """Return the images of the shards that ``data.shards`` names; none of them is opened yet.

    Raises:
        ConfigError: the knobs do not fit together, or a command is named that the user has not allowed.
        DataError: the pattern fits no shard.

    """
    if not is_pipe(data.shards):
        return StreamedImages(expand([data.shards], allow_http=data.allow_http), data, seed, cache)
    if not allow_pipe:
        raise ConfigError(
            f"data.shards {pipe_shown(data.shards)!r}: would run a command on this machine, which no recipe may do by "
            "itself. If you know the command and want it, add --allow-pipe to `gandist train`."
        )
    return StreamedImages(expand_pipe(data.shards), data, seed, cache)


def check_stream(data: DataConfig) -> list[int]:
    """Return the class numbers to train on, in rising order; none without labels.

    Raises:
        ConfigError: the knobs of the stream do not fit together.
        DataError: ``data.classes`` names classes that are not there.

    """
    stream: StreamConfig = data.stream
    check_label_source(stream.label)
    if stream.label == "folder":
        raise ConfigError(
            "data.stream.label folder: the names of folders become class numbers only once all are known. Index the "
            "shards with `gandist index SHARDS --label folder`."
        )
    if (stream.label == "none") != (stream.class_count == 0):
        raise ConfigError(
            f"data.stream: label is {stream.label} and class_count is {stream.class_count}. Give both for labelled "
            "shards, like --data.stream.label cls --data.stream.class_count 10, or neither."
        )
    numbers = range(stream.class_count)
    return check_classes(data.classes, [str(n) for n in numbers]) if data.classes is not None else list(numbers)
