"""The speed of two processes against one, and how much of a reduction happens while gradients are still computed.

Two ranks meet over gloo with one thread each. In turn they play a block of rounds together, and then the first of
them plays as many rounds of the same global batch alone, on networks of its own, while the other one sleeps. So both
meet the same machine. The reduction is looked at by torch's profiler in rounds of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from gandist.adversarial.game import Draws, Game, Real
from gandist.adversarial.losses import LOSSES, Targets
from gandist.adversarial.player import Player
from gandist.adversarial.round import Round
from gandist.adversarial.strategies import detach
from gandist.assembly import seat_players
from gandist.config import Config, parse
from gandist.models.build import build
from gandist.models.contract import ImageShape, Networks
from gandist.runtime import rng
from gandist.runtime.distributed import Ranks
from rounds.report import Table
from rounds.two_ranks import WORLD, measured_by_two

REDUCTION, BACKWARD = "gloo:all_reduce", "autograd::engine::evaluate_function"


@dataclass(frozen=True)
class Case:
    """A DCGAN, its global batch, and whether its batch norms see both ranks."""

    resolution: int
    channels: int
    images: int
    together: bool
    blocks: int = 7
    rounds: int = 2

    def __str__(self) -> str:
        """Return the words by which tables call it."""
        norms = "all ranks" if self.together else "one rank"
        return f"DCGAN-{self.resolution}, base {self.channels}, batch {self.images}, norms of {norms}"


CASES = [
    Case(64, 64, 32, together=False),
    Case(64, 64, 32, together=True),
    Case(32, 32, 64, together=False, rounds=6),
    Case(32, 32, 64, together=True, rounds=6),
]
QUICK = [Case(32, 16, 16, together=True, blocks=3)]

Span = tuple[float, float]


@dataclass(frozen=True)
class Scaling:
    """Seconds of a round, block after block, and how long reductions took and were hidden in a profiled round."""

    case: Case
    alone: list[float]
    together: list[float]
    reducing: float
    hidden: float
    reductions: int


def measure(cases: Sequence[Case]) -> list[Scaling]:
    """Play every case and return what was measured."""
    return [Scaling(case, **row) for case, row in zip(cases, measured_by_two(_measure, cases), strict=True)]


def _measure(case: Case, accelerator: Any, ranks: Ranks) -> dict[str, Any]:
    config = _config(case)
    both = _player(seat_players(config, _networks(config), accelerator, "fp32", [1])[0], case, ranks.rank, WORLD)
    alone = _player(_game_of_one(config), case, 0, 1)
    times: dict[str, list[float]] = {"alone": [], "together": []}
    for _ in range(case.blocks + 1):  # the first block warms up
        ranks.barrier()
        times["together"].append(_seconds(both, case.rounds))
        ranks.barrier()
        if ranks.main:
            times["alone"].append(_seconds(alone, case.rounds))
    ranks.barrier()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(case.rounds):
            both()
    return {name: values[1:] for name, values in times.items()} | _hidden(seen, case.rounds)


def _seconds(play: Callable[[], None], rounds: int) -> float:
    begin = time.perf_counter()
    for _ in range(rounds):
        play()
    return (time.perf_counter() - begin) / rounds


def _hidden(seen: Any, rounds: int) -> dict[str, float | int]:
    """Return, for a round, the time in which a reduction runs, how much of it gradients are computed in, and how many.

    A reduction of the profiler runs from the call to its end, the wait in the queue included. Gradients are computed
    while the autograd engine evaluates a function.
    """
    events = seen.events()
    reductions = [_span(event) for event in events if event.name == REDUCTION]
    gradients = [_span(event) for event in events if event.name.startswith(BACKWARD)]
    reducing, computing = union(reductions), union(gradients)
    return {
        "reducing": length(reducing) / rounds,
        "hidden": (length(reducing) + length(computing) - length(union([*reducing, *computing]))) / rounds,
        "reductions": len(reductions) // rounds,
    }


def _span(event: Any) -> Span:
    return event.time_range.start / 1e6, event.time_range.end / 1e6


def union(spans: Sequence[Span]) -> list[Span]:
    """Return the same time as spans that do not touch, in order."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def length(spans: Sequence[Span]) -> float:
    """Return the time that spans which do not touch take together."""
    return sum(end - start for start, end in spans)


def _config(case: Case) -> Config:
    channels = {"generator_channels": case.channels, "discriminator_channels": case.channels}
    return parse(
        {
            "data": {"resolution": case.resolution},
            "model": {"arch": "dcgan", "dcgan": channels},
            "update": {"batch_images": case.images},
            "execution": {"sync_batch_norm": case.together},
        },
        "benchmark",
    )


def _networks(config: Config) -> Networks:
    return build(config.model, ImageShape(config.data.resolution, config.data.channels), classes=0, seed=0)


def _game_of_one(config: Config) -> Game:
    """Return the game of a process that is alone, where Accelerate would wrap the networks for two."""
    networks = _networks(config)
    g, d = (
        Player(network, network, torch.optim.Adam(network.parameters(), fused=True))
        for network in (networks.generator, networks.discriminator)
    )
    return Game(g, d, LOSSES[config.loss.kind], Targets(), [], config.model.latent_dim)


def _player(game: Game, case: Case, rank: int, world: int) -> Callable[[], None]:
    """Return a function that plays one round on this rank's share of the batch."""
    share = case.images // world
    real = Real(torch.zeros(share, 3, case.resolution, case.resolution), None)

    def play() -> None:
        detach(Round(game, Draws(partial(rng.generator, 0, "round"), case.images, rank * share), 0, 0), [real])

    return play


def speeds(found: Sequence[Scaling]) -> Table:
    """Return a row for each case: rounds of one and of two processes."""
    rows = []
    for s in found:
        ratios = sorted(one / two for one, two in zip(s.alone, s.together, strict=True))
        rates = [s.case.images / median(times) for times in (s.alone, s.together)]
        rows.append(
            [
                str(s.case),
                *(f"{rate:.1f}" for rate in rates),
                f"{median(ratios):.2f}",
                f"{ratios[0]:.2f}-{ratios[-1]:.2f}",
            ]
        )
    return Table(
        "Two processes against one",
        "Images a second at the same global batch, one thread for each process, over gloo on one machine: medians of "
        "blocks that were played in turn. Two processes on two cores that do nothing else could at best be 2.00 times "
        "as fast.",
        ["case", "1 process", "2 processes", "times", "least-greatest"],
        rows,
    )


def overlaps(found: Sequence[Scaling]) -> Table:
    """Return a row for each case: how long its reductions are, and how much of that is hidden."""
    rows = [
        [
            str(s.case),
            f"{s.reductions}",
            f"{s.reducing * 1e3:.1f}",
            f"{median(s.together) * 1e3:.0f}",
            f"{s.hidden / s.reducing:.2f}",
        ]
        for s in found
    ]
    return Table(
        "Reductions and the backward pass",
        f"From torch.profiler on the first of two ranks, for a round. `reducing` is the time in which at least one "
        f"event `{REDUCTION}` runs, from its call to its end; `hidden` is the share of that time in which an event "
        f"`{BACKWARD}` runs too, that is, in which autograd computes. DDP hands gradients over in buckets of at most "
        "25 MiB, the first one of 1 MiB; statistics of batch norms that see all ranks are reductions, too, for which "
        "the pass waits, and those of the backward pass are called inside an event of it.",
        ["case", "reductions", "reducing, ms", "round, ms", "hidden"],
        rows,
    )
