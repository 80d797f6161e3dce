"""Measure how long a checkpoint keeps training waiting, beside a plain ``torch.save`` of the same state.

    .venv/bin/python benchmarks/checkpoint.py            # some minutes on 2 cores
    .venv/bin/python benchmarks/checkpoint.py --write    # ... and keep the table in benchmarks/results/checkpoint.md
    .venv/bin/python benchmarks/checkpoint.py --quick    # half a minute: does it run?

A DCGAN at 64 px is trained by gandist's own trainer, which saves between two rounds: both networks, the average, both
optimizers. Just before, the same tensors go through ``torch.save``, which leaves its bytes in the system's cache.
A checkpoint of gandist is copied, hashed, flushed to the disk and published, in the background: training waits for what
the next pass may change, and before the next step until the rest is copied. Both waits are counted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rounds import report
from rounds.report import Table

from gandist.config import Config, dump, merge, parse
from gandist.trainer import Trainer

RESULTS = Path(__file__).parent / "results" / "checkpoint.md"
CHANNELS = (32, 64, 128, 192)
QUICK_CHANNELS = (32,)
REPEATS, QUICK_REPEATS = 9, 3
BATCH_IMAGES = 16


@dataclass
class Times:
    """What the saves of one size took, in seconds."""

    plain: list[float] = field(default_factory=list)
    blocked: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)


def main() -> int:
    """Measure, print, and keep the figures where asked."""
    parser = argparse.ArgumentParser(description="Measure what a checkpoint costs.")
    parser.add_argument("--quick", action="store_true", help="a smoke run of half a minute")
    parser.add_argument("--write", action="store_true", help=f"write the table to {RESULTS.name}")
    parser.add_argument("--folder", type=Path, help="where to save (default: the temporary folder)")
    asked = parser.parse_args()
    top = report.heading(report.machine(None), "What a checkpoint costs, on CPUs", "benchmarks/checkpoint.py")
    print(top, flush=True)
    repeats = QUICK_REPEATS if asked.quick else REPEATS
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        rows = [measured(Path(folder), n, repeats) for n in (QUICK_CHANNELS if asked.quick else CHANNELS)]
    table = Table(
        "Milliseconds for one save",
        f"DCGAN at 64 px, {BATCH_IMAGES} images a round. Medians over {repeats} saves, in turn with torch.save. "
        "Blocked: what training waits for in all. Whole: until the checkpoint is hashed, on the disk and published. "
        "Share: blocked of torch.save. Round: a round that nothing was saved in, for comparison.",
        ("channels", "state, MiB", "bytes on disk", "torch.save", "blocked", "share", "whole", "round"),
        rows,
    )
    print(table.markdown(), flush=True)
    if asked.write:
        RESULTS.write_text(f"{top}\n{table.markdown()}")
    return 0


def measured(folder: Path, channels: int, repeats: int) -> tuple[str, ...]:
    """Train networks of so many channels, saving again and again in both ways; return a row of the table."""
    trainer = Trainer(recipe(folder, channels))
    batch = trainer._to_device(next(trainer._real_images()))
    times = Times()
    for number in range(repeats + 1):  # the first save takes the memory for the copies, and is not counted
        begin = time.perf_counter()
        trainer._play_round([batch])
        played = time.perf_counter()
        torch.save({name: dict(part.tensors) for name, part in trainer._parts().items()}, folder / "plain.pt")
        saved = time.perf_counter()
        trainer.clock.images_seen = number
        trainer._save(must=False)
        trainer._play_round([batch])
        trainer.saver.finish()
        if number:
            times.rounds.append(played - begin)
            times.plain.append(saved - played)
            times.blocked.append(trainer.saver.blocked_seconds)
            times.whole.append(trainer.saver.written_seconds)
    newest = max((trainer.folder / "checkpoints").glob("0*"))
    size = sum(path.stat().st_size for path in newest.iterdir())
    share = statistics.median(b / p for b, p in zip(times.blocked, times.plain, strict=True))
    middle = [statistics.median(each) * 1000 for each in (times.plain, times.blocked, times.whole, times.rounds)]
    return (
        f"{channels}", f"{size / 2**20:.0f}", f"{size:,}", f"{middle[0]:.1f}", f"{middle[1]:.1f}", f"{share:.3f}",
        f"{middle[2]:.1f}", f"{middle[3]:.1f}",
    )  # fmt: skip


def recipe(folder: Path, channels: int) -> Config:
    """Return a recipe with networks of so many channels."""
    changes = {
        "run": {"root": str(folder), "name": f"channels{channels}", "total_kimg": 1000.0},
        "data": {"resolution": 64},
        "model": {"dcgan": {"generator_channels": channels, "discriminator_channels": channels}},
        "update": {"batch_images": BATCH_IMAGES},
        "checkpoint": {"keep": 2},
        "execution": {"device": "cpu", "precision": "fp32", "workers": 0},
    }
    return parse(merge(dump(Config()), changes), "the benchmark")


if __name__ == "__main__":
    sys.exit(main())
