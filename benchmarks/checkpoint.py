"""Measure how long a checkpoint keeps training waiting, beside a plain ``torch.save`` of the same state.

    .venv/bin/python benchmarks/checkpoint.py            # about a minute on 2 cores
    .venv/bin/python benchmarks/checkpoint.py --write    # ... and keep the table in benchmarks/results/checkpoint.md
    .venv/bin/python benchmarks/checkpoint.py --quick    # some seconds: does it run?

The state is that of a whole run: both networks, the average, both optimizers after a step. ``torch.save`` leaves its
bytes in the system's cache; a checkpoint of gandist is hashed, flushed to the disk and published, in the background:
training waits for the copy in memory.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from rounds import report
from rounds.report import Table

from gandist.runtime.checkpoint import CheckpointStore, Part
from gandist.runtime.saver import BackgroundSaver

RESULTS = Path(__file__).parent / "results" / "checkpoint.md"
STATES_MIB = (20, 200, 800)
QUICK_MIB = (20,)
REPEATS, QUICK_REPEATS = 9, 3


def main() -> int:
    """Measure, print, and keep the figures where asked."""
    parser = argparse.ArgumentParser(description="Measure what a checkpoint costs.")
    parser.add_argument("--quick", action="store_true", help="a smoke run of some seconds")
    parser.add_argument("--write", action="store_true", help=f"write the table to {RESULTS.name}")
    parser.add_argument("--folder", type=Path, help="where to save (default: the temporary folder)")
    asked = parser.parse_args()
    top = report.heading(report.machine(None), "What a checkpoint costs, on CPUs", "benchmarks/checkpoint.py")
    print(top, flush=True)
    repeats = QUICK_REPEATS if asked.quick else REPEATS
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        rows = [measured(Path(folder), mib, repeats) for mib in (QUICK_MIB if asked.quick else STATES_MIB)]
    table = Table(
        "Milliseconds for one save",
        "Medians, in turn. Blocked: what training waits for. Whole: until the checkpoint is hashed, on the disk and "
        "published. Share: blocked of torch.save.",
        ("state, MiB", "bytes on disk", "torch.save", "blocked", "share", "whole"),
        rows,
    )
    print(table.markdown(), flush=True)
    if asked.write:
        RESULTS.write_text(f"{top}\n{table.markdown()}")
    return 0


def measured(folder: Path, mib: int, repeats: int) -> tuple[str, ...]:
    """Save a state of so many MiB again and again, in both ways; return a row of the table."""
    parts = state(mib)
    saver = BackgroundSaver(CheckpointStore(folder / f"{mib}", keep=2))
    plain: list[float] = []
    blocked: list[float] = []
    whole: list[float] = []
    for number in range(repeats + 1):
        begin = time.perf_counter()
        torch.save({name: dict(part.tensors) for name, part in parts.items()}, folder / "plain.pt")
        plain.append(time.perf_counter() - begin)
        saver.save(number, parts, {})
        blocked.append(saver.blocked_seconds)
        saver.finish()
        whole.append(saver.written_seconds)
    newest = folder / f"{mib}" / f"{repeats:09d}"
    size = sum(path.stat().st_size for path in newest.iterdir())
    middle = [statistics.median(times[1:]) * 1000 for times in (plain, blocked, whole)]  # the first takes the memory
    share = statistics.median(b / p for b, p in zip(blocked[1:], plain[1:], strict=True))
    return (f"{mib}", f"{size:,}", f"{middle[0]:.1f}", f"{middle[1]:.1f}", f"{share:.3f}", f"{middle[2]:.1f}")


def state(mib: int) -> dict[str, Part]:
    """Return tensors like those of a run: two networks, an average, and two moments for each weight."""
    shares = {"generator": 1, "ema": 1, "discriminator": 1, "optimizer_g": 2, "optimizer_d": 2}
    layers = 8  # in each network
    weights = mib * 2**20 // 4 // layers // sum(shares.values())
    return {
        name: Part({f"layer{i}": torch.randn(weights) for i in range(layers * share)}) for name, share in shares.items()
    }


if __name__ == "__main__":
    sys.exit(main())
