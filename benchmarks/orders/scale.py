"""What the order and the index cost, by the size of the set."""

from __future__ import annotations

import hashlib
import json
import pickle
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from rounds.report import Table

from gandist.config import DataConfig
from gandist.data.order import Ints, Order
from gandist.data.shard_images import ShardImages
from gandist.data.shards.columns import ARRAYS, pieces
from gandist.data.shards.index_files import FORMAT, INDEX_NAME, TENSORS_NAME, VERSION, load_index
from gandist.data.shards.store import LocalPlaces

T = TypeVar("T")

BATCH = 64
WHOLE = 1 << 31
STRIDE = 2048  # bytes from one image to the next in a shard


@dataclass(frozen=True)
class Size:
    """A set: shards of so many samples each, and how it is shuffled."""

    shards: int
    each: int
    chunk: int = 32
    lanes: int = 1

    @property
    def samples(self) -> int:
        return self.shards * self.each

    def order(self) -> Order:
        counts = np.full(self.shards, self.each)
        return Order(counts, 0, chunk=self.chunk, lanes=self.lanes, stripe=BATCH // self.lanes)

    def __str__(self) -> str:
        """Return the words by which tables call it."""
        chunk = "whole shards" if self.chunk == WHOLE else f"chunk {self.chunk}"
        return f"{self.samples:,} in {self.shards:,} shards, {chunk}" + (f", {self.lanes} lanes" * (self.lanes > 1))


SIZES = [
    Size(60, 1000),
    Size(1300, 1000),
    Size(10_000, 1000),
    Size(100_000, 1000),
    Size(100_000, 1000, WHOLE, 8),
]


def orders(*, quick: bool) -> Table:
    """Return what it takes to say which samples are next."""
    rows = []
    for size in SIZES[:2] if quick else SIZES:
        order, made = _timed(size.order)
        first = _timed(partial(order.locate, np.arange(BATCH)))[1]
        later = _per_batch(order, start=BATCH)
        near, far = (_timed(partial(_resumed, size, step))[1] for step in (10, 10_000_000))
        kept, peak = _memory(size)
        times = [_ms(made), _ms(first), f"{later * 1e6:.0f}", _ms(near), _ms(far)]
        rows.append([str(size), *times, f"{kept:.1f}", f"{peak:.1f}"])
    return Table(
        "Finding the samples of a batch",
        f"For a process that reads batches of {BATCH}: milliseconds to set the order up and for the first batch of an "
        "epoch, microseconds for each later one; milliseconds from nothing to the batch of step 10 and of step ten "
        "million, which is what a resumed run does; MiB that stay, and at most while an epoch is shuffled.",
        ["samples", "set up", "first batch", "later, us", "step 10", "step 10 M", "MiB", "peak MiB"],
        rows,
    )


def indexes(*, quick: bool) -> Table:
    """Return what it takes to open an index, and what travels to a worker."""
    rows = []
    for size in SIZES[:2] if quick else [SIZES[1], SIZES[3]]:
        with tempfile.TemporaryDirectory(prefix="gandist-order-") as folder:
            write_index(Path(folder), size)
            place = Path(folder)
            description = (place / INDEX_NAME).read_bytes()
            index, opened = _timed(partial(load_index, description, place / TENSORS_NAME, "index"))
            digest = _timed(partial(getattr, index, "digest"))[1]
            data = DataConfig(shards=folder, resolution=8)
            images, made = _timed(partial(ShardImages, index, LocalPlaces(place, index.shards), data, 0))
            sent, packed = _timed(partial(pickle.dumps, images))
            received = _timed(partial(pickle.loads, sent))[1]  # how a worker gets it
        name, arrays = f"{size.samples:,} in {size.shards:,} shards", f"{16 * size.samples / 1e6:,.0f}"
        sending = [f"{len(sent) / 1e6:.1f}", _ms(packed + received)]
        rows.append([name, arrays, _ms(opened), _ms(digest), _ms(made), *sending])
    return Table(
        "Opening an index",
        "Megabytes of its arrays; milliseconds to check them (their SHA-256, and that every sample lies inside its "
        "shard), for the digest that tells this set from others, and for the rest; megabytes and milliseconds to send "
        "the set to a worker: the names and sizes of its shards, none of the arrays, which are mapped there again.",
        ["samples", "arrays, MB", "check", "digest", "the rest", "sent, MB", "sending"],
        rows,
    )


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def _resumed(size: Size, step: int) -> None:
    size.order().locate(step * BATCH + np.arange(BATCH))


def _per_batch(order: Order, start: int, count: int = 1000) -> float:
    def many() -> None:
        for step in range(count):
            order.locate(start + step * BATCH + np.arange(BATCH))

    return _timed(many)[1] / count


def _memory(size: Size) -> tuple[float, float]:
    """Return the MiB that an order holds after its first batch, and the most that it held before."""
    tracemalloc.start()
    try:
        order = size.order()
        order.locate(np.arange(BATCH))
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return kept / 2**20, peak / 2**20


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:,.0f}"


def write_index(folder: Path, size: Size) -> None:
    """Write an index of raw 8 px images piece by piece, as one process could not hold it several times over."""
    places, at = {}, 0
    for name, kind in ARRAYS.items():
        length = size.samples * np.dtype(kind).itemsize
        stored = {8: "I64", 4: "I32"}[np.dtype(kind).itemsize]
        places[name] = {"dtype": stored, "shape": [size.samples], "data_offsets": [at, at + length]}
        at += length
    head = json.dumps(places).encode()
    head += b" " * (-len(head) % 8)
    digest = hashlib.sha256()
    with (folder / TENSORS_NAME).open("wb") as file:
        for part in (len(head).to_bytes(8, "little"), head, *_parts(size)):
            file.write(part)
            digest.update(part)
    shard = {"bytes": size.each * STRIDE, "samples": size.each, "sha256": "0" * 64}
    content = {
        "format": FORMAT,
        "version": VERSION,
        "source": "made",
        "resolution": 8,
        "channels": 3,
        "transform": {},
        "image_ext": ["npy"],
        "label": "cls",
        "class_names": [str(number) for number in range(10)],
        "samples": size.samples,
        "shards": [{"url": f"shard-{number:06d}.tar", **shard} for number in range(size.shards)],
        "rejected": [],
        "tensors_sha256": digest.hexdigest(),
    }
    (folder / INDEX_NAME).write_text(json.dumps(content))


def _parts(size: Size) -> Iterator[bytes]:
    """Yield the arrays of an index, one after the other, in pieces."""
    columns: dict[str, Callable[[Ints], Ints]] = {
        "offset": lambda number: number % size.each * STRIDE,
        "size": lambda number: np.full(len(number), 320),
        "label": lambda number: number % 10,
    }
    for name, kind in ARRAYS.items():
        for piece in pieces(size.samples):
            yield columns[name](np.arange(piece.start, piece.stop)).astype(kind).tobytes()
