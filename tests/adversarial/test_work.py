"""The floating-point operations of a round, which are exact counts, against the least that the method needs."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from gandist.adversarial.game import Draws, Game, Real
from gandist.adversarial.losses import LOSSES, Targets
from gandist.adversarial.player import Player
from gandist.adversarial.round import Round
from gandist.adversarial.strategies import detach
from gandist.config import ModelConfig
from gandist.models.build import build
from gandist.models.contract import ImageShape
from gandist.runtime import rng

IMAGES = 2


def counted(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def dcgan_layers() -> tuple[list[int], list[int]]:
    """Return the operations per image of every layer of G and D at 64 px: two for each product of a 4x4 kernel."""
    wide = [100, 512, 256, 128, 64, 3]
    g = [2 * 16 * a * b * side**2 for (a, b), side in zip(pairwise(wide), [1, 4, 8, 16, 32], strict=True)]
    narrow = [3, 64, 128, 256, 512, 1]
    d = [2 * 16 * a * b * side**2 for (a, b), side in zip(pairwise(narrow), [32, 16, 8, 4, 1], strict=True)]
    return g, d


def test_a_round_of_dcgan_costs_the_least() -> None:
    networks = build(ModelConfig(arch="dcgan"), ImageShape(64, 3), classes=0, seed=0)
    g, d = networks.generator, networks.discriminator
    players = [Player(n, n, torch.optim.SGD(n.parameters(), lr=0.0)) for n in (g, d)]
    game = Game(*players, LOSSES["non_saturating"], Targets(), (), latent_dim=100)
    draws = Draws(lambda site: rng.generator(0, site), IMAGES, start=0)
    real = Real(torch.zeros(IMAGES, 3, 64, 64), None)

    of_g, of_d = dcgan_layers()
    assert counted(lambda: g(torch.zeros(IMAGES, 100), None)) == IMAGES * sum(of_g)
    assert counted(lambda: d(real.x, None)) == IMAGES * sum(of_d)

    generator = sum(of_g) + sum(of_g) + sum(of_g[1:])  # forward; weight gradients; input gradients but the latent's
    discriminator = 2 * (sum(of_d) + sum(of_d) + sum(of_d[1:]))  # the same on real images and on fakes
    judge = sum(of_d) + sum(of_d)  # forward and input gradients of the frozen D, down to the fake
    least = generator + discriminator + judge
    assert counted(lambda: detach(Round(game, draws, 0, 0), [real])) == IMAGES * least, "a round does needless work"
    assert round(least / 1e6, 1) == 2274.6


def test_passes_cost_one_more_forward_of_the_generator(set_table: Callable[..., Any]) -> None:
    whole, cut = (set_table("mlp", micro_images=micro) for micro in (None, 3))
    forward = counted(lambda: whole.g(torch.zeros(whole.batch, 6), None))
    assert counted(cut.play) == counted(whole.play) + forward
