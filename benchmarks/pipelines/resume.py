"""How long a run waits for its first batch when it starts again, near the beginning or after years."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from orders.scale import STRIDE, Size, write_index
from rounds.report import Table

from gandist.config import DataConfig
from gandist.data.decode import npy_header
from gandist.data.images import open_images
from gandist.data.loader import batches

BATCH = 64
STEPS = (0, 10, 10_000_000)


def measure(*, quick: bool) -> Table:
    """Return the milliseconds to open a set and to its first batch, by step."""
    size = Size(60 if quick else 1300, 1000)
    with tempfile.TemporaryDirectory(prefix="gandist-data-") as name:
        folder = Path(name)
        _write_shards(folder, size)
        runs = {step: [_resumed(folder, step) for _ in range(3 if quick else 7)] for step in STEPS}
    rows = [[f"{n:,}", *(f"{median(part) * 1e3:.3g}" for part in zip(*run, strict=True))] for n, run in runs.items()]
    return Table(
        "Going on after a stop",
        f"Milliseconds to open a set of {size.samples:,} images in {size.shards:,} shards, checking its index whole, "
        f"and from then to the first batch of {BATCH}, without workers, by the step at which the run was stopped.",
        ["step", "open", "first batch"],
        rows,
    )


def _resumed(folder: Path, step: int) -> tuple[float, float]:
    start = time.perf_counter()
    images = open_images(DataConfig(shards=str(folder), resolution=8), 0)
    opened = time.perf_counter()
    source = batches(
        images, batch_images=BATCH, rank=0, world=1, start=step * BATCH, workers=0, prefetch_batches=1,
        pin_memory=False, hflip=False, seed=0,
    )  # fmt: skip
    next(source)
    return opened - start, time.perf_counter() - opened


def _write_shards(folder: Path, size: Size) -> None:
    """Write an index, and one file of raw images under the names of all shards."""
    write_index(folder, size)
    image = npy_header(8, 3) + np.arange(192, dtype=np.uint8).tobytes()
    first = folder / "shard-000000.tar"
    first.write_bytes((image + bytes(STRIDE - len(image))) * size.each)
    for number in range(1, size.shards):
        os.link(first, folder / f"shard-{number:06d}.tar")
