"""The arithmetic of a round, counted by torch operation by operation: exact, and the same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from gandist.adversarial.game import Draws, Game, Real
from gandist.adversarial.losses import LOSSES, Targets
from gandist.adversarial.player import Player
from gandist.adversarial.round import Round
from gandist.adversarial.strategies import STRATEGIES
from gandist.config import ModelConfig
from gandist.models.build import build
from gandist.models.contract import ImageShape, Networks
from gandist.runtime import rng
from rounds import loops
from rounds.loops import Loop, Pair
from rounds.report import Table

IMAGES = 2
GANDIST = "gandist's round"

NETWORKS: dict[str, tuple[ModelConfig, int]] = {
    "DCGAN-64": (ModelConfig(arch="dcgan"), 64),
    "DCGAN-32": (ModelConfig(arch="dcgan"), 32),
    "SNGAN-32": (ModelConfig(arch="resnet", latent_dim=128), 32),
}

ONE_AFTER_THE_OTHER: dict[str, Loop] = {
    "the same in plain PyTorch": loops.bare,
    "PyTorch's DCGAN tutorial": loops.tutorial,
    "fakes drawn anew, D frozen": loops.fresh_frozen,
    "fakes drawn anew, D not frozen": loops.fresh_unfrozen,
}
AT_ONCE: dict[str, Loop] = {
    "retain_graph": loops.retained,
    "retain_graph and inputs=": loops.simultaneous,
}


@dataclass(frozen=True)
class Work:
    """One kind of round on one pair of networks, in operations per image, and the least that its kind needs."""

    networks: str
    loop: str
    at_once: bool
    operations: float
    least: float


@dataclass(frozen=True)
class Pieces:
    """Operations per image of each pass that no round can do without."""

    generator: float
    generator_gradients: float
    discriminator: float
    discriminator_gradients: float
    image_gradients: float

    @property
    def one_after_the_other(self) -> float:
        """G once, D on real images and fakes, then the moved D again on the fakes, for the gradient of their pixels."""
        g = self.generator + self.generator_gradients
        return g + 2 * (self.discriminator + self.discriminator_gradients) + self.discriminator + self.image_gradients

    @property
    def at_once(self) -> float:
        """As above, but both networks learn from the same opinion of D on the fakes."""
        return self.one_after_the_other - self.discriminator


def measure(names: Iterable[str]) -> list[Work]:
    """Count every loop on each of the named networks."""
    return [work for name in names for work in _measure(name)]


def _measure(name: str) -> Iterator[Work]:
    model, resolution = NETWORKS[name]
    networks = build(model, ImageShape(resolution, 3), classes=0, seed=0)
    real = torch.zeros(IMAGES, 3, resolution, resolution)
    pair, pieces = _pair(networks, model.latent_dim), _pieces(networks, model.latent_dim, real)
    play = _round(networks, model.latent_dim, real)
    yield Work(name, GANDIST, False, _operations(play), pieces.one_after_the_other)
    for loop, function in ONE_AFTER_THE_OTHER.items():
        yield Work(name, loop, False, _operations(partial(function, pair, real)), pieces.one_after_the_other)
    for loop, function in AT_ONCE.items():
        yield Work(name, loop, True, _operations(partial(function, pair, real)), pieces.at_once)


def table(found: list[Work]) -> Table:
    """Return the loops as rows and the networks as columns."""
    names = list(dict.fromkeys(work.networks for work in found))
    rows = []
    for loop, at_once in dict.fromkeys((work.loop, work.at_once) for work in found):
        of = {work.networks: work for work in found if work.loop == loop}
        cells = [c for n in names for c in (f"{of[n].operations / 1e6:.1f}", f"{of[n].operations / of[n].least:.3f}")]
        rows.append([loop, "at once" if at_once else "D, then G", *cells])
    return Table(
        "Arithmetic of a round",
        "Million floating point operations per image, a product and its sum being two, for one D step and one G step. "
        "`x least`: times the least that its kind of round needs. Rounds in which D moves before G looks at it, as "
        "gandist's do, need one forward of D more than those in which both move at once.",
        ["round", "networks move", *(cell for name in names for cell in (name, "x least"))],
        rows,
    )


def _operations(work: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    operations: int = counter.get_total_flops()
    return operations / IMAGES


def _pair(networks: Networks, latent_dim: int) -> Pair:
    g, d = networks.generator, networks.discriminator
    return Pair(g, d, torch.optim.SGD(g.parameters(), lr=0.0), torch.optim.SGD(d.parameters(), lr=0.0), latent_dim)


def _round(networks: Networks, latent_dim: int, real: torch.Tensor) -> Callable[[], None]:
    pair = _pair(networks, latent_dim)
    g = Player(pair.generator, pair.generator, pair.optimizer_g)
    d = Player(pair.discriminator, pair.discriminator, pair.optimizer_d)
    game = Game(g, d, LOSSES["non_saturating"], Targets(), (), latent_dim)
    draws = Draws(lambda site: rng.generator(0, site), IMAGES, start=0)
    return lambda: STRATEGIES["detach"](Round(game, draws, 0, 0), [Real(real, None)])


def _pieces(networks: Networks, latent_dim: int, real: torch.Tensor) -> Pieces:
    g, d = networks.generator, networks.discriminator
    fake = g(torch.zeros(IMAGES, latent_dim), None)
    logits = d(real, None).sum()
    forward_g = _operations(lambda: g(torch.zeros(IMAGES, latent_dim), None))
    forward_d = _operations(lambda: d(real, None))
    backward_g = _operations(fake.sum().backward)
    backward_d = _operations(logits.backward)
    d.requires_grad_(False)
    pixels = real.clone().requires_grad_()
    opinion = d(pixels, None).sum()
    to_pixels = _operations(opinion.backward)
    d.requires_grad_(True)
    return Pieces(forward_g, backward_g, forward_d, backward_d, to_pixels)


def wasteful(found: Iterable[Work]) -> list[str]:
    """Return a complaint for each count of gandist's round that is not the least."""
    return [
        f"{w.networks}: gandist's round takes {w.operations:,.0f} operations per image, where {w.least:,.0f} would do"
        for w in found
        if w.loop == GANDIST and w.operations != w.least
    ]
