"""What follows the clock from round to round: rates of the optimizers, and the shape of networks that grow."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from gandist.adversarial.game import Game
from gandist.adversarial.player import Player
from gandist.config import AdamConfig, Config
from gandist.models.contract import Growing, follow
from gandist.runtime.schedule import factor


def set_rates(game: Game, config: Config, images_seen: int) -> None:
    """Set both optimizers' learning rates and second decays to those of a round that begins after so many images."""
    total_kimg, optimizer = config.run.total_kimg, config.optimizer
    for player, adam in (
        (game.generator, optimizer.generator),
        (game.discriminator, optimizer.discriminator),
    ):
        rate = adam.lr * factor(adam.schedule, images_seen, total_kimg)
        follow_less = (1 - adam.beta2) * factor(adam.beta2_schedule, images_seen, total_kimg)
        beta2 = 1 - max(follow_less, 1e-6)  # at 1 a moment would never begin
        _set(player, adam, rate, beta2)


def _set(player: Player, adam: AdamConfig, rate: float, beta2: float) -> None:
    for group in player.optimizer.param_groups:
        group["lr"] = rate
        group["betas"] = (adam.beta1, beta2)


_WITHOUT_END = 1 << 62


def growth_remarks(game: Game, total_kimg: float) -> list[str]:
    """Say so if a run ends before its networks have grown up."""
    g, total = game.generator.module, int(total_kimg * 1000)
    if not isinstance(g, Growing) or g.stage(total) == g.stage(_WITHOUT_END):
        return []
    return [
        f"This run ends at {total_kimg:g} kimg, before its networks have reached their full resolution. "
        "Give it a longer --run.total_kimg, or its stages fewer images (model.progressive)."
    ]


def grow(game: Game, averages: Iterable[nn.Module], images_before: int, images_seen: int) -> None:
    """Let networks that grow take their shape for a round that begins after so many images.

    Where a network enters another stage, the round before having begun after ``images_before``, its optimizer forgets
    its moments: those of layers that join have seen nothing but zeros (Karras et al. 2018 do the same).
    """
    for network in averages:
        follow(network, images_seen)
    for player in (game.generator, game.discriminator):
        module = player.module
        if isinstance(module, Growing):
            module.follow(images_seen)
            if module.stage(images_before) != module.stage(images_seen):
                player.optimizer.state.clear()
