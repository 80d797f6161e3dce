"""Writes the images of a plan into WebDataset shards: made by many processes, written in one order, shard by shard."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gandist.data.making import pixels
from gandist.data.making.ledger import Ledger, finished
from gandist.data.making.pixels import EXTENSIONS, Recipe, Rejected, Size
from gandist.data.making.shard_file import ShardFile
from gandist.data.making.source import Source
from gandist.data.order import Ints
from gandist.data.processes import begin_worker, worker_context
from gandist.errors import DataError, MachineError
from gandist.runtime.files import write_json

SHOWN = 10
"""Rejected images that a message lists."""

Made = tuple[bytes | Rejected, Size | None]

_TASK_IMAGES = 32
_TASKS_AHEAD = 4  # for each worker
_WORTH_A_POOL = 256  # fewer images are done before a pool has started


@dataclass(frozen=True, eq=False)
class Part:
    """Images of a source that become one set: their numbers in the order of writing, and their labels (-1: none)."""

    name: str
    numbers: Ints
    labels: Ints


@dataclass(frozen=True)
class Limits:
    """How much may go wrong, and when a shard is full."""

    rejected: int
    shard_images: int
    shard_bytes: int


def write_shards(
    source: Source, parts: Sequence[Part], recipe: Recipe, folder: Path, ledger: Ledger, ledger_path: Path,
    *, limits: Limits, workers: int,
) -> Ledger:  # fmt: skip
    """Write what the ledger lacks of the plan; every finished shard is on the disk before the ledger names it.

    Args:
        source: where the images come from.
        parts: the plan; each part gets a folder of its name.
        recipe: how every image is made.
        folder: an existing folder.
        ledger: what is finished already.
        ledger_path: where to write down what is finished.
        limits: how much may go wrong, and when a shard is full.
        workers: processes that make images; 0 for none.

    Returns:
        The ledger of the whole work.

    Raises:
        DataError: more images than allowed cannot be used, or none can.
        MachineError: a worker died.

    """
    left = np.concatenate([part.numbers for part in parts])[ledger.consumed :]
    total = ledger.consumed + len(left)
    made = _made(source, left, recipe, workers if len(left) >= _WORTH_A_POOL else 0)
    progress = tqdm(total=total, initial=ledger.consumed, desc="images", unit="", disable=None, leave=False)
    with _Shards(folder, EXTENSIONS[recipe.format], limits, ledger, ledger_path) as shards, closing(made), progress:
        first = 0
        for part in parts:
            shards.begin(part.name, len(part.numbers))
            done = min(max(0, ledger.consumed - first), len(part.numbers))
            for label, image in zip(part.labels[done:].tolist(), made, strict=False):
                shards.take(image, label)
                progress.update()
                if len(shards.rejected) >= limits.rejected + SHOWN:  # the rest would tell nothing new
                    raise too_many(source, parts, shards.rejected, limits.rejected, f"At least {len(shards.rejected)}")
            shards.end_part()
            first += len(part.numbers)
        if len(shards.rejected) > limits.rejected:
            raise too_many(source, parts, shards.rejected, limits.rejected, str(len(shards.rejected)))
        if shards.empty:
            raise too_many(source, parts, shards.rejected, limits.rejected, "All")
    written = shards.reached()
    for part in parts:
        if not any(done.part == part.name for done in written.shards):
            raise DataError(f"None of the {len(part.numbers)} images for {part.name} can be used; choose more.")
    return written


def too_many(
    source: Source, parts: Sequence[Part], rejected: Sequence[tuple[int, Rejected]], allowed: int, how_many: str
) -> DataError:
    """Return the error that lists the first images that cannot be used, and says what can be done."""
    numbers = np.concatenate([part.numbers for part in parts])
    named = [(printable(source.name(int(numbers[position]))), why) for position, why in rejected]
    lines = [f"{how_many} of {len(numbers)} images cannot be used, {allowed} may be rejected (--max-rejected):"]
    lines += [f"  {name}: {why.reason}" for name, why in named[:SHOWN]]
    kinds = Counter(why.kind for _, why in named)
    if small := [(min(why.size), name, why.size) for name, why in named if why.kind == "too small" and why.size]:
        _, name, (width, height) = min(small)
        lines.append(
            f"The smallest is {name} with {width}x{height} px. Surround such images with black "
            "(--fit pad), enlarge them (--allow-upscale), or choose a smaller --resolution."
        )
    if kinds["not square"]:
        lines.append("Images that are not square are made so by --fit crop or --fit pad.")
    if kinds.total() > kinds["too small"] + kinds["not square"]:
        lines.append("Repair or remove what cannot be read, or leave it out with a larger --max-rejected.")
    return DataError("\n".join(lines))


def printable(name: str, limit: int = 200) -> str:
    """Return a name that is safe and short enough to show on a terminal."""
    shown = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in name)
    return shown if len(shown) <= limit else f"{shown[: limit // 2]}...{shown[-limit // 2 :]}"


class _Shards:
    """The shards of a plan, one after the other; while one is written, the one before is brought to the disk."""

    def __init__(self, folder: Path, image_ext: str, limits: Limits, ledger: Ledger, ledger_path: Path) -> None:
        self.settled = ledger
        self.rejected = list(ledger.rejected)
        self._folder, self._ext, self._limits, self._path = folder, image_ext, limits, ledger_path
        self._consumed = ledger.consumed
        self._widths, self._heights = Counter(ledger.widths), Counter(ledger.heights)
        self._file: ShardFile | None = None
        self._settling: Future[None] | None = None
        self._aside = ThreadPoolExecutor(1)  # the disk and the digests of a shard need no Python

    def begin(self, part: str, images: int) -> None:
        """Begin, or go on with, a part of so many images."""
        self._part = part
        (self._folder / part).mkdir(exist_ok=True)
        before = [done for done in self.settled.shards if done.part == part]
        self._shard, self._number = len(before), sum(done.shard.samples for done in before)
        self._full = -(-images // -(-images // self._limits.shard_images))  # no short shard at the end

    def take(self, made: Made, label: int) -> None:
        """Take in the next image of the plan."""
        image, size = made
        position, self._consumed = self._consumed, self._consumed + 1
        if size is not None:
            self._widths[size[0]] += 1
            self._heights[size[1]] += 1
        if isinstance(image, Rejected):
            self.rejected.append((position, image))
            return
        if self._file is None:
            self._file = ShardFile(self._folder / self._part / f"shard-{self._shard:06d}.tar", self._ext)
        self._file.add(self._number, image, label)
        self._number += 1
        if len(self._file.sizes) == self._full or self._file.bytes >= self._limits.shard_bytes:
            self._finish()

    def end_part(self) -> None:
        """Finish the last shard of a part, with what was rejected since."""
        if self._file is not None:
            self._finish()

    @property
    def empty(self) -> bool:
        """Whether no shard is finished, or being brought to the disk."""
        return not self.settled.shards and self._settling is None

    def reached(self) -> Ledger:
        """Return how far the work is, with the shards that are settled."""
        return Ledger(
            self.settled.fingerprint, list(self.settled.shards), self._consumed, list(self.rejected),
            Counter(self._widths), Counter(self._heights),
        )  # fmt: skip

    def _finish(self) -> None:
        """Close the shard; a thread brings it to the disk, verifies it, and only then writes it down."""
        assert self._file is not None
        digest = self._file.close()
        self._wait()
        part, file, self._file = self._part, self._file, None
        self._shard += 1
        reached = self.reached()

        def settle() -> None:
            reached.shards.append(finished(part, file, digest))
            write_json(self._path, reached.as_json())
            self.settled = reached

        self._settling = self._aside.submit(settle)

    def _wait(self) -> None:
        settling, self._settling = self._settling, None
        if settling is not None:
            settling.result()

    def __enter__(self) -> _Shards:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._file is not None:
                self._file.abandon()
            if kind is None:
                self._wait()
        finally:
            self._aside.shutdown()


def _made(source: Source, numbers: Ints, recipe: Recipe, workers: int) -> Generator[Made]:
    """Yield the made images in the order of ``numbers``, a bounded number of tasks ahead of what is taken."""
    tasks = (numbers[first : first + _TASK_IMAGES].tolist() for first in range(0, len(numbers), _TASK_IMAGES))
    payloads = ([source.payload(i) for i in task] for task in tasks)
    if workers == 0:
        for task in payloads:
            yield from pixels.make_and_measure(task, recipe)
        return
    pool = ProcessPoolExecutor(workers, mp_context=worker_context(pixels.__name__), initializer=begin_worker)
    ahead: deque[Future[list[Made]]] = deque()
    try:
        for task in payloads:
            ahead.append(pool.submit(pixels.make_and_measure, task, recipe))
            if len(ahead) > workers * _TASKS_AHEAD:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()
    except BrokenProcessPool as error:
        raise MachineError(
            "A process that makes images died; usually the machine ran out of memory. Use fewer with --workers."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
