"""Plays the rounds of a recipe on the ring in this process, without a trainer around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from gandist.adversarial.game import Draws, Real
from gandist.adversarial.round import Round
from gandist.adversarial.strategies import STRATEGIES
from gandist.assembly import build_networks, open_accelerator, seat_players
from gandist.assembly.balance import balance_of, monitor_of
from gandist.assembly.rates import set_rates
from gandist.config import Config, dump, load, merge, parse
from gandist.data.ring_images import RingImages
from gandist.evaluation.diversity import look
from gandist.evaluation.sample import fixed_latents
from gandist.runtime import rng
from gandist.runtime.schedule import crossed
from gandist.runtime.window import Window
from modes.count import Count, count
from modes.rows import EVERY_STEP

RECIPE = Path(__file__).parents[2] / "configs" / "ring_mlp.yaml"
SAMPLES = 2_048


@dataclass(frozen=True)
class Outcome:
    """What a run came to: of G itself and of its average, and what the monitor said on the way."""

    raw: Count
    average: Count
    news: tuple[str, ...]


def recipe(changes: Mapping[str, Any], seed: int, shorter: float = 1.0) -> Config:
    """Return the ring's recipe, with R1 at every step, with changes, and of a share of its length."""
    base = merge(merge(_base(), EVERY_STEP), changes)
    length = {"run": {"seed": seed, "total_kimg": base["run"]["total_kimg"] * shorter}}
    return parse(merge(base, length), "benchmark")


@cache
def _base() -> dict[str, Any]:
    return dump(load(RECIPE))


def play(config: Config) -> Outcome:
    """Play a recipe to its end, as the trainer does it on one rank."""
    torch.set_num_threads(1)
    accelerator, images = open_accelerator("cpu", "fp32"), RingImages(config.data, config.run.seed)
    networks = build_networks(config, len(images.class_names), config.update.batch_images)
    game, averages = seat_players(config, networks, accelerator, "fp32", images.class_counts)
    balance, monitor, strategy = balance_of(config), monitor_of(config), STRATEGIES[config.update.strategy]
    batch, steps = config.update.batch_images, config.update.d_steps
    total = round(config.run.total_kimg * 1000 / batch / steps)
    window, news = Window(), list[str]()
    for index in range(total):
        before = index * batch * steps
        after = before + batch * steps
        set_rates(game, config, before)
        reals = [_real(images, before + k * batch, batch) for k in range(steps)]
        draws = Draws(partial(rng.generator, config.run.seed, "round", index), batch, start=0)
        played = Round(game, draws, index, before, balance.moves)
        strategy(played, reals)
        for player in game.players.values():
            player.guard.settle()
        balance.observe(played.statistics)
        balance.decide(lambda mean: mean)
        if played.generator_moved:
            averages.update(after, batch * steps)
        window.add(played.statistics, batch)
        if crossed(config.health.every_kimg, before, after):
            z, c = _latents(config, config.health.images)
            measured = {**window.means(lambda mean: mean), **look(averages.network, z, c, reals[-1].x)}
            news += monitor.look(measured)
            window = Window()
    return Outcome(_count(game.generator.module.eval(), config), _count(averages.network, config), tuple(news))


def _real(images: RingImages, start: int, batch: int) -> Real:
    raw, _ = images.read(torch.arange(start, start + batch).numpy())
    return Real(torch.from_numpy(raw).view(torch.float32).permute(0, 3, 1, 2).contiguous(), None)


def _latents(config: Config, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    return fixed_latents(config.model.latent_dim, 0, 1, images, config.run.seed)


@torch.no_grad()
def _count(generator: torch.nn.Module, config: Config) -> Count:
    points: torch.Tensor = generator(*_latents(config, SAMPLES))
    return count(points.flatten(1).numpy())
