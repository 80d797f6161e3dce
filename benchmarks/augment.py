"""Measure what a round costs with each augmentation of what D sees, beside the same round without.

    .venv/bin/python benchmarks/augment.py            # half a minute on 2 cores
    .venv/bin/python benchmarks/augment.py --write    # ... and keep the table in benchmarks/results/augment-cpu.md
    .venv/bin/python benchmarks/augment.py --quick    # some seconds: does it run?

Operations are those of matrix products and convolutions, counted by torch, so they are exact. Times mean something on a
machine that does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rounds import report
from rounds.report import Table
from torch.utils.flop_counter import FlopCounterMode

from gandist.adversarial.augment import PRESETS, Ada, Adaptive, Augment, DiffAugment, InstanceNoise
from gandist.adversarial.game import Draws, Game, Real
from gandist.adversarial.losses import LOSSES, Targets
from gandist.adversarial.player import Player
from gandist.adversarial.round import Round
from gandist.adversarial.strategies import STRATEGIES
from gandist.config import ModelConfig
from gandist.models.build import build
from gandist.models.contract import ImageShape
from gandist.runtime import rng

RESULTS = Path(__file__).parent / "results" / "augment-cpu.md"
CPU = torch.device("cpu")
IMAGES = 16


@dataclass(frozen=True)
class Cost:
    """Of a round of DCGAN: operations for an image at each resolution, and processor seconds at the first."""

    operations: dict[int, float]
    seconds: float


def augments(size: int) -> dict[str, Augment | None]:
    """Return what is measured, by name, for images of ``size``."""
    pipes = {f"ADA {name}": Ada(PRESETS[name], Adaptive(0.6, 4, 500.0, 0.5, CPU), size, 3, CPU) for name in PRESETS}
    diff = DiffAugment(["colour", "translation", "cutout"])
    others = {"DiffAugment": diff, "instance noise": InstanceNoise(lambda _: 0.1)}
    return {"none": None, **others, **{name: pipe for name, pipe in pipes.items() if name != "ADA none"}}


def measure(sizes: list[int], repeats: int) -> dict[str, Cost]:
    """Count and time one round with each augmentation; rounds take turns, so that a busy moment hits all."""
    plays = {name: _play(augment, sizes[0], IMAGES) for name, augment in augments(sizes[0]).items()}
    taken: dict[str, list[float]] = {name: [] for name in plays}
    for _ in range(repeats):
        for name, play in plays.items():
            began = time.process_time()
            play()
            taken[name].append((time.process_time() - began) / IMAGES)
    operations: dict[str, dict[int, float]] = {name: {} for name in plays}
    for size in sizes:
        for name, augment in augments(size).items():
            with FlopCounterMode(display=False) as counter:
                _play(augment, size, images=2)()
            operations[name][size] = counter.get_total_flops() / 2
    return {name: Cost(operations[name], statistics.median(taken[name])) for name in plays}


def _play(augment: Augment | None, size: int, images: int) -> Callable[[], None]:
    networks = build(ModelConfig(arch="dcgan"), ImageShape(size, 3), classes=0, seed=0)
    g, d = (
        Player(network, network, torch.optim.SGD(network.parameters(), lr=0.0))
        for network in (networks.generator, networks.discriminator)
    )
    game = Game(g, d, LOSSES["non_saturating"], Targets(), (), latent_dim=100, augment=augment)
    draws = Draws(lambda site: rng.generator(0, site), images, start=0)
    real = Real(torch.zeros(images, 3, size, size), None)
    return lambda: STRATEGIES["detach"](Round(game, draws, 0, 0), [real])


def table(costs: dict[str, Cost]) -> Table:
    """Return one row for each augmentation, and the columns for each resolution."""
    plain = costs["none"]
    sizes = list(plain.operations)
    rows = []
    for name, cost in costs.items():
        cells = []
        for size, without in plain.operations.items():
            added = cost.operations[size] - without
            cells += [f"{added / 1e6:.1f}", f"{100 * added / without:.1f} %"]
        rows.append([name, *cells, f"{1000 * cost.seconds:.1f} ms"])
    base = ", ".join(f"{plain.operations[size] / 1e6:.1f} at {size} px" for size in sizes)
    return Table(
        "A DCGAN round with augmentation",
        "Operations of matrix products and convolutions that augmentation adds, in millions for an image and as a "
        f"share of the round without it ({base}); and processor time of the whole round for an image at {sizes[0]} px, "
        f"the median, in batches of {IMAGES}, which counts what is done pixel by pixel too. A round shows D three "
        "batches: real images, fakes, and fakes once more in G's step, which alone needs a gradient back to pixels.",
        ["augmentation", *(f"{what} {size}" for size in sizes for what in ("added", "share")), f"time {sizes[0]}"],
        rows,
    )


def main() -> None:
    """Measure, print, and keep the table where asked."""
    parser = argparse.ArgumentParser(description="Measure what augmentation costs.")
    parser.add_argument("--quick", action="store_true", help="one small resolution, once")
    parser.add_argument("--threads", type=int, help="threads that compute; all cores when left out")
    parser.add_argument("--write", action="store_true", help=f"write the table to {RESULTS.name}")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    heading = report.heading(report.machine(asked.threads), "What augmentation costs, on CPUs", "benchmarks/augment.py")
    found = table(measure([32], 1) if asked.quick else measure([32, 64, 128], 9))
    print("\n".join([heading, found.markdown()]))
    if asked.write:
        RESULTS.write_text("\n".join([heading, found.markdown()]))


if __name__ == "__main__":
    main()
