"""`gandist prepare` beside the least that it must do: decode, resize and encode, on all cores."""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path

from PIL import Image
from rounds.report import Table

from gandist.data.making.prepare import prepare
from pipelines.pictures import encode, scene

SIDE, RESOLUTION, QUALITY = 512, 256, 95


def measure(*, quick: bool) -> Table:
    """Return the seconds of both, in turn."""
    images, rounds = (160, 1) if quick else (1600, 3)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="gandist-data-") as name:
        source, made = Path(name) / "source", Path(name) / "shards"
        _write_source(source, images)
        pure, whole = [], []
        with multiprocessing.get_context("forkserver").Pool(cores) as pool:
            paths = sorted(source.iterdir())
            pool.map(_least, paths[: 4 * cores])
            for _ in range(rounds):
                pure.append(_seconds(lambda: pool.map(_least, paths, chunksize=8)))
                whole.append(_seconds(lambda: _prepare(source, made, cores)))
    ratio = min(whole) / min(pure)
    return Table(
        "gandist prepare",
        f"Seconds for {images:,} JPEG files of {SIDE} px to JPEG of {RESOLUTION} px on {cores} cores, the best of "
        f"{rounds}: decoding, resizing and encoding alone, by processes that have already started, and the command, "
        "which starts its own, and also writes, checks and indexes the shards.",
        ["images", "the least", "gandist prepare", "ratio"],
        [[f"{images:,}", f"{min(pure):.2f}", f"{min(whole):.2f}", f"{ratio:.2f}"]],
    )


def _write_source(folder: Path, images: int) -> None:
    """Write files of 32 different images."""
    folder.mkdir()
    raws = [encode(scene(SIDE, number), "jpg") for number in range(32)]
    for number in range(images):
        (folder / f"{number:06d}.jpg").write_bytes(raws[number % len(raws)])


def _least(path: Path) -> int:
    with Image.open(path) as image:
        small = image.convert("RGB").resize((RESOLUTION, RESOLUTION), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    return len(buffer.getvalue())


def _prepare(source: Path, made: Path, cores: int) -> None:
    shutil.rmtree(made, ignore_errors=True)
    prepare(str(source), made, resolution=RESOLUTION, format="jpeg", quality=QUALITY, workers=cores)


def _seconds(work: object) -> float:
    start = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - start
