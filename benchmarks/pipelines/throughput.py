"""Processor time for each image: of decoding alone, and of whole pipelines in this process and in workers.

A worker's time is all that its process spends, so with unpacking, collating and handing over. All pipelines of a kind
stay open and take turns, block by block, with decoding in between, so that all meet the same machine.
"""

from __future__ import annotations

import gc
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image
from rounds.report import Table

from pipelines.pictures import Stored
from pipelines.readers import READERS

BATCH = 64
LIMITS = {"gandist[fast]": "simplejpeg"}  # which decoder a pipeline is measured against; the others use Pillow's
TARGETS = {256: 0.75, 32: 0.6}


@dataclass(frozen=True)
class Figure:
    """Microseconds of processor time for an image, block by block, and the same of decoding alone beside each."""

    kind: str
    name: str
    workers: int
    costs: list[float]
    limits: list[float]

    @property
    def cost(self) -> float:
        return median(self.costs)

    @property
    def share(self) -> float:
        """The share of the time that is decoding: 1 for a pipeline that costs nothing beside."""
        return median(limit / cost for limit, cost in zip(self.limits, self.costs, strict=True))


def measure(stored: Stored, *, blocks: int, images: int) -> list[Figure]:
    """Measure every pipeline on a set, in this process and with 1 and 2 workers."""
    found = []
    for workers in (0, 1, 2):
        readers = {
            name: _Open(partial(begin, stored, BATCH, workers), workers)
            for name, begin in READERS.items()
            if not (stored.kind.ending == "npy" and name in ("gandist[fast]", "torchvision ImageFolder"))
        }
        costs: dict[str, list[float]] = {name: [] for name in readers}
        limits: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(blocks):
            for name, reader in readers.items():
                decoder = LIMITS.get(name, "Pillow")
                before = decoding(stored, decoder, images // 2)
                costs[name].append(reader.cost(-(-images // BATCH)))
                limits[name].append((before + decoding(stored, decoder, images // 2)) / 2)
        found += [Figure(str(stored.kind), name, workers, costs[name], limits[name]) for name in readers]
        readers.clear()
        gc.collect()
    return found


def decoding(stored: Stored, decoder: str, images: int) -> float:
    """Return the microseconds that decoding alone takes for an image that lies in memory."""
    decode = _decode_npy if stored.kind.ending == "npy" else _DECODERS[decoder]
    raws = [stored.raws[number % len(stored.raws)] for number in range(images)]
    start = time.process_time()
    for raw in raws:
        decode(raw)
    return (time.process_time() - start) / images * 1e6


def _decode_npy(raw: bytes) -> None:
    np.load(io.BytesIO(raw))


def _decode_pillow(raw: bytes) -> None:
    np.asarray(Image.open(io.BytesIO(raw)))


def _decode_simplejpeg(raw: bytes) -> None:
    import simplejpeg

    simplejpeg.decode_jpeg(raw)


_DECODERS: dict[str, Callable[[bytes], None]] = {"Pillow": _decode_pillow, "simplejpeg": _decode_simplejpeg}


class _Open:
    """A pipeline at work, and the clock of the processes that do it: its workers, or this one where it has none."""

    def __init__(self, begin: Callable[[], Iterator[Any]], workers: int) -> None:
        before = _descendants(os.getpid())
        self._source = begin()
        for _ in range(workers + 1):  # by then every worker has begun
            next(self._source)
        self._pids = _descendants(os.getpid()) - before if workers else {os.getpid()}

    def cost(self, batches: int) -> float:
        """Return the microseconds of processor time for an image, over some batches."""
        start = self._settled()
        for _ in range(batches):
            next(self._source)
        return (self._settled() - start) / (batches * BATCH) * 1e6

    def _settled(self) -> float:
        """Return the seconds that the processes have worked once they rest, all their queues being full."""
        if self._pids == {os.getpid()}:
            return time.process_time()
        seen = [-1.0, -2.0, -3.0]
        while max(seen) - min(seen) > 1e-4:
            time.sleep(0.02)
            seen = [*seen[1:], sum(map(_processor_seconds, self._pids))]
        return seen[-1]


def _processor_seconds(pid: int) -> float:
    """Return how long the threads of a process have worked."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread may end meanwhile
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def _descendants(pid: int) -> set[int]:
    """Return the processes below one."""
    below: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                below |= {child} | _descendants(child)
    return below


def table(found: list[Figure]) -> Table:
    """Return pipelines as rows, and how they run as columns."""
    rows = []
    for kind, name in dict.fromkeys((figure.kind, figure.name) for figure in found):
        of = {figure.workers: figure for figure in found if (figure.kind, figure.name) == (kind, name)}
        cells = [c for n in (0, 1, 2) for c in (f"{of[n].cost:.0f}", f"{of[n].share:.2f}")]
        rows.append([f"{kind}: {name}", f"{median(of[1].limits):.0f}", *cells])
    return Table(
        "Reading images",
        "Microseconds of processor time for an image, all that a worker spends included, and the share of it that "
        f"decoding alone takes (the limit: Pillow, or simplejpeg for gandist[fast]). Batches of {BATCH}. Medians over "
        "blocks in turn; the limit is measured before and after each block.",
        ["pipeline", "limit", "in the trainer", "share", "1 worker", "share", "2 workers", "share"],
        rows,
    )


def too_slow(found: list[Figure]) -> list[str]:
    """Return a complaint for each share of gandist's that misses its target."""
    return [
        f"{f.kind}, {f.workers} worker(s): gandist reaches {f.share:.2f} of the limit of one core, not {target}"
        for f in found
        if f.name == "gandist" and f.workers and f.kind.endswith("JPEG")
        if f.share < (target := TARGETS[int(f.kind.split()[0])])
    ]
