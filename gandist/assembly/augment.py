"""From a configuration to what is done to images before D sees them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from gandist.adversarial.augment import (
    PRESETS,
    Ada,
    Adaptive,
    Augment,
    DiffAugment,
    InstanceNoise,
    Pipeline,
    Scheduled,
    Strength,
)
from gandist.adversarial.augment.ada.colour import COLOURS
from gandist.config import AdaConfig, Config, Schedule
from gandist.errors import ConfigError
from gandist.runtime.schedule import factor


def augment_of(config: Config, device: torch.device) -> Augment | None:
    """Return what D's images go through, or None where they are shown as they are.

    Raises:
        ConfigError: colours of images that are neither grey nor of three channels are to be changed.

    """
    augment, total_kimg = config.augment, config.run.total_kimg
    steps: list[Augment] = []
    if augment.diff:
        steps.append(DiffAugment(augment.diff))
    if rates := ada_rates(augment.ada, config.data.channels):
        strength = _strength(augment.ada, total_kimg, device)
        steps.append(Ada(rates, strength, config.data.resolution, config.data.channels, device))
    noise = augment.instance_noise
    if noise.sigma > 0:
        steps.append(InstanceNoise(lambda seen: noise.sigma * factor(noise.schedule, seen, total_kimg)))
    return Pipeline(steps) if steps else None


def ada_rates(ada: AdaConfig, channels: int) -> dict[str, float]:
    """Return the rates of ADA's transforms that are switched on: the pipe's, and over them those that were given."""
    given = {name: rate for name, rate in ada.rates if rate is not None}
    rates = {name: rate for name, rate in (PRESETS[ada.pipe] | given).items() if rate > 0}
    if channels not in {1, 3} and (colours := [name for name in COLOURS if name in rates]):
        raise ConfigError(
            f"augment.ada.pipe: {ada.pipe} with rates would change colours ({', '.join(colours)}), which images of "
            f"{channels} channels do not have. Take the pipe bg, or set --augment.ada.rates.{colours[0]} 0 and so on."
        )
    return rates


def _strength(ada: AdaConfig, total_kimg: float, device: torch.device) -> Strength:
    if ada.adaptive:
        return Adaptive(ada.target, ada.interval_steps, ada.adjust_kimg, ada.p, device)
    return Scheduled(ada_p(ada, total_kimg), device)


def ada_p(ada: AdaConfig, total_kimg: float) -> Callable[[int], float]:
    """Return ADA's p over images seen, where it is not adaptive.

    Its ramp is p + (final - p) (1 - f), with f the decay from 1 to 0 of a schedule.
    """
    ramp = ada.ramp
    if ramp.shape == "off":
        return lambda _: ada.p
    decay = Schedule(shape=ramp.shape, begin_kimg=ramp.begin_kimg, end_kimg=ramp.end_kimg, final=0.0)
    return lambda seen: ada.p + (ramp.final - ada.p) * (1 - factor(decay, seen, total_kimg))
