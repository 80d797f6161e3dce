"""Writes the images of a source into WebDataset shards: made by many processes, written in one order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from tqdm import tqdm

from gandist.data.decode import Decoder
from gandist.data.making import pixels
from gandist.data.making.pixels import EXTENSIONS, Recipe, Rejected
from gandist.data.making.preview import Preview
from gandist.data.making.sources import Source
from gandist.data.order import Ints
from gandist.data.processes import begin_worker, worker_context
from gandist.data.shards.scan import LABEL_FIELD
from gandist.errors import DataError, MachineError

SHOWN = 10
"""Rejected images that a message lists."""

_TASK_IMAGES = 32
_TASKS_AHEAD = 4  # for each worker
_WORTH_A_POOL = 256  # fewer images are done before a pool has started


@dataclass(frozen=True)
class Limits:
    """How much may go wrong, and when a shard is full."""

    rejected: int
    shard_images: int
    shard_bytes: int


@dataclass
class Written:
    """What was written: shard files by name, images that were rejected (name, reason), and a few images to look at."""

    preview: Preview
    shards: list[str] = field(default_factory=list)
    rejected: list[tuple[str, Rejected]] = field(default_factory=list)
    images: int = 0


def write_shards(
    source: Source, chosen: Ints, labels: Ints, class_names: Sequence[str], recipe: Recipe, folder: Path,
    *, limits: Limits, workers: int,
) -> Written:  # fmt: skip
    """Write the ``chosen`` images of a source, in that order, into shards in ``folder``.

    Args:
        source: where the images come from.
        chosen: numbers of images in the source.
        labels: class of each chosen image; -1 for none.
        class_names: of the labels; empty for none.
        recipe: how every image is made.
        folder: an existing folder.
        limits: how much may go wrong, and when a shard is full.
        workers: processes that make images; 0 for none.

    Raises:
        DataError: more images than allowed cannot be used, or none can.
        MachineError: a worker died.

    """
    written = Written(Preview(class_names))
    decoder = Decoder(recipe.resolution, recipe.channels)
    made = _made(source, chosen, recipe, workers if len(chosen) >= _WORTH_A_POOL else 0)
    progress = tqdm(made, desc="images", total=len(chosen), unit="", disable=None, leave=False)
    per_shard = -(-len(chosen) // -(-len(chosen) // limits.shard_images))  # no short shard at the end
    with _Shards(folder, EXTENSIONS[recipe.format], per_shard, limits.shard_bytes, written.shards) as shards, progress:
        for i, label, image in zip(chosen.tolist(), labels.tolist(), progress, strict=True):
            if isinstance(image, Rejected):
                written.rejected.append((source.name(i), image))
                if len(written.rejected) >= limits.rejected + SHOWN:  # the rest would tell nothing new
                    raise _too_many(written.rejected, limits.rejected, f"At least {len(written.rejected)}", len(chosen))
                continue
            shards.write(image, label)
            written.images += 1
            if written.preview.wants(label):
                shape = (recipe.resolution, recipe.resolution, recipe.channels)
                decoder.into(image, shown := np.empty(shape, dtype=np.uint8))
                written.preview.add(label, shown)
    if len(written.rejected) > limits.rejected:
        raise _too_many(written.rejected, limits.rejected, str(len(written.rejected)), len(chosen))
    if not written.images:
        raise _too_many(written.rejected, limits.rejected, "All", len(chosen))
    return written


def _too_many(rejected: Sequence[tuple[str, Rejected]], allowed: int, how_many: str, total: int) -> DataError:
    lines = [f"{how_many} of {total} images cannot be used, {allowed} may be rejected (--max-rejected):"]
    lines += [f"  {printable(name)}: {why.reason}" for name, why in rejected[:SHOWN]]
    small = [(min(why.size), name, why.size) for name, why in rejected if why.size is not None]
    if small:
        _, name, (width, height) = min(small)
        lines.append(
            f"The smallest is {printable(name)} with {width}x{height} px. Enlarge such images with --allow-upscale, "
            "or choose a smaller --resolution."
        )
    if len(small) < len(rejected):
        lines.append("Repair or remove what cannot be read, or leave it out with a larger --max-rejected.")
    return DataError("\n".join(lines))


def printable(name: str, limit: int = 200) -> str:
    """Return a name that is safe and short enough to show on a terminal."""
    shown = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in name)
    return shown if len(shown) <= limit else f"{shown[: limit // 2]}...{shown[-limit // 2 :]}"


class _Shards:
    """A WebDataset shard writer on plain files: the same bytes on every run, and on disk when it closes.

    The whole-number ``mtime`` matters: a float would cost a pax header, 1 KiB, for every member.
    """

    def __init__(self, folder: Path, image_ext: str, shard_images: int, shard_bytes: int, names: list[str]) -> None:
        import webdataset  # imports torch: a second that only writing needs

        self._folder, self._ext, self._names = folder, image_ext, names
        self._file: BinaryIO | None = None
        self._count = 0
        self._writer = webdataset.ShardWriter(
            "shard-%06d.tar", maxcount=shard_images, maxsize=shard_bytes, verbose=0,
            opener=self._open, post=self._finish, encoder=False, compress=False, mtime=0,
        )  # fmt: skip

    def write(self, image: bytes, label: int) -> None:
        """Append one sample; its key is its running number."""
        sample = {"__key__": f"{self._count:09d}", self._ext: image}
        if label >= 0:
            sample[LABEL_FIELD] = str(label).encode()
        self._writer.write(sample)
        self._count += 1

    def _open(self, name: str) -> BinaryIO:
        self._file = (self._folder / name).open("wb")
        return self._file

    def _finish(self, name: str) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._names.append(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        if kind is None:
            self._writer.close()
            return
        with suppress(OSError, ValueError):  # the first error is the one to tell
            self._writer.tarstream.close()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


def _made(source: Source, chosen: Ints, recipe: Recipe, workers: int) -> Iterator[bytes | Rejected]:
    """Yield the made images in the order of ``chosen``, a bounded number of tasks ahead of what is taken."""
    tasks = (chosen[first : first + _TASK_IMAGES].tolist() for first in range(0, len(chosen), _TASK_IMAGES))
    payloads = ([source.payload(i) for i in task] for task in tasks)
    if workers == 0:
        for task in payloads:
            yield from pixels.make_all(task, recipe)
        return
    pool = ProcessPoolExecutor(workers, mp_context=worker_context(pixels.__name__), initializer=begin_worker)
    ahead: deque[Future[list[bytes | Rejected]]] = deque()
    try:
        for task in payloads:
            ahead.append(pool.submit(pixels.make_all, task, recipe))
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
