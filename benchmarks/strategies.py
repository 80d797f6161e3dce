"""Compare the ways to share forward passes between the two networks' steps: arithmetic, memory, time.

    .venv/bin/python benchmarks/strategies.py            # about 3 minutes on 2 cores
    .venv/bin/python benchmarks/strategies.py --write    # ... and keep it in benchmarks/results/strategies-cpu.md
    .venv/bin/python benchmarks/strategies.py --quick    # does it run?

Operations and bytes are counts: exact, and the same on every machine. Times are ratios to ``detach``, all rounds played
in turn in one process.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rounds import loops, report
from rounds.counting import operations, peak_bytes
from rounds.loops import Pair
from rounds.report import Table

from gandist.adversarial.game import Draws, Game, Real
from gandist.adversarial.losses import LOSSES, Targets
from gandist.adversarial.player import Player
from gandist.adversarial.regularizers import PENALTIES, Regularizer
from gandist.adversarial.round import Round
from gandist.adversarial.strategies import STRATEGIES
from gandist.config import ModelConfig
from gandist.models.build import build
from gandist.models.contract import ImageShape
from gandist.runtime import rng

RESULTS = Path(__file__).parent / "results" / "strategies-cpu.md"
RESOLUTION, LATENT_DIM = 64, 100


@dataclass(frozen=True)
class Way:
    """One way to play a round: a strategy with its rules, or a loop as people write it."""

    name: str
    moves: str
    play: Callable[[Any], None]


@dataclass(frozen=True)
class Cost:
    """What a round costs: floating point operations and bytes per image, and times of a round in seconds."""

    operations: float
    peak: float
    seconds: list[float]


class Bench:
    """DCGAN-64 with the tutorial's widths, ready to be trained in every way."""

    def __init__(self, images: int, channels: int, r1: bool = False) -> None:
        sizes = {"generator_channels": channels, "discriminator_channels": channels}
        model = ModelConfig.model_validate({"arch": "dcgan", "latent_dim": LATENT_DIM, "dcgan": sizes})
        networks = build(model, ImageShape(RESOLUTION, 3), classes=0, seed=0)
        self.images, self.real = images, torch.rand(images, 3, RESOLUTION, RESOLUTION) * 2 - 1
        g, d = networks.generator, networks.discriminator
        adam = partial(torch.optim.Adam, lr=1e-5, betas=(0.5, 0.999), fused=True)
        self.pair = Pair(g, d, adam(g.parameters()), adam(d.parameters()), LATENT_DIM)
        self.players = Player(g, g, self.pair.optimizer_g), Player(d, d, self.pair.optimizer_d)
        self.penalties = [Regularizer("r1", PENALTIES["r1"](), lambda _: 1.0)] if r1 else []

    def strategy(self, name: str, **rules: Any) -> None:
        """Play one round by a strategy of gandist's."""
        game = Game(*self.players, LOSSES["non_saturating"], Targets(), self.penalties, LATENT_DIM, **rules)
        draws = Draws(lambda site: rng.generator(0, site), self.images, start=0)
        STRATEGIES[name](Round(game, draws, 0, 0), [Real(self.real.clone(), None)])


WAYS = [
    Way("detach", "D, then G", lambda bench: bench.strategy("detach")),
    Way("detach, fresh latents", "D, then G", lambda bench: bench.strategy("detach", share_latents=False)),
    Way("retain_graph", "at once", lambda bench: bench.strategy("retain_graph")),
    Way("generator_first", "G, then D", lambda bench: bench.strategy("generator_first")),
    Way("generator_first, fresh", "G, then D", lambda bench: bench.strategy("generator_first", share_latents=False)),
    Way("a tutorial's detach", "D, then G", lambda bench: loops.tutorial(bench.pair, bench.real)),
    Way("a tutorial's retain_graph", "at once", lambda bench: loops.retained(bench.pair, bench.real)),
]


def measure(images: int, channels: int, blocks: int, r1: bool = False) -> dict[str, Cost]:
    """Return what a round of each way costs; with ``r1``, which the tutorials do not have, those of gandist alone."""
    benches = {way.name: Bench(images, channels, r1) for way in WAYS if not (r1 and "tutorial" in way.name)}
    ways = [way for way in WAYS if way.name in benches]
    for way in ways:  # optimizers make their moments in the first step
        way.play(benches[way.name])
    counts = {}
    for way in ways:
        play = partial(way.play, benches[way.name])
        counts[way.name] = operations(play), peak_bytes(play)
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(blocks):
        for way in ways:
            start = time.perf_counter()
            way.play(benches[way.name])
            times[way.name].append(time.perf_counter() - start)
    return {name: Cost(flops / images, peak / images, times[name]) for name, (flops, peak) in counts.items()}


def table(costs: dict[str, Cost], title: str) -> Table:
    """Return the ways as rows."""
    moves = {way.name: way.moves for way in WAYS}
    first = costs["detach"]
    rows = []
    for name, cost in costs.items():
        ratios = [mine / its for mine, its in zip(cost.seconds, first.seconds, strict=True)]
        rows.append([
            name, moves[name], f"{cost.operations / 1e6:.1f}", f"{cost.operations / first.operations:.3f}",
            f"{cost.peak / 2**20:.2f}", f"{cost.peak / first.peak:.3f}", f"{statistics.median(ratios):.2f}",
        ])  # fmt: skip
    return Table(
        title,
        "For one D step and one G step, per image: million floating point operations; the most MiB that tensors held "
        "at once, beside weights, moments and real images; and time. `x detach`: times what `detach` takes; times are "
        "medians over rounds played in turn.",
        ["way", "networks move", "MFLOP", "x detach", "peak MiB", "x detach", "time x detach"],
        rows,
    )


def main() -> int:
    """Measure, print, and keep the tables where asked; return 1 if a strategy does not cost what it promises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small networks, few rounds: does it run?")
    parser.add_argument("--write", action="store_true", help=f"keep the tables in {RESULTS.name}")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as many as torch takes)")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    images, channels, blocks = (8, 8, 2) if asked.quick else (32, 64, 15)
    machine = report.machine(asked.threads)
    plain = measure(images, channels, blocks)
    paying = measure(images, channels, blocks, r1=True)
    size = f"DCGAN-{RESOLUTION} with {channels} channels, batches of {images}"
    tables = [table(plain, size), table(paying, f"{size}, R1 in every D step")]
    title = "What the update strategies cost, on CPUs"
    page = "\n".join([report.heading(machine, title, "benchmarks/strategies.py"), *(t.markdown() for t in tables)])
    print(page)
    if asked.write:
        RESULTS.write_text(page)
    least = plain["retain_graph"].operations < plain["detach"].operations < plain["detach, fresh latents"].operations
    lean = plain["generator_first"].peak < plain["detach"].peak
    return 0 if least and lean else 1


if __name__ == "__main__":
    sys.exit(main())
