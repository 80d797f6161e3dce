"""The rules of a game, from a configuration: plain values and functions of the images seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from gandist.adversarial.gradient_norm import GradientNormalization
from gandist.adversarial.losses import LOSSES, AdversarialLoss
from gandist.adversarial.penalties.base import GeneratorPenalty, Penalty
from gandist.adversarial.regularizers import GENERATOR_PENALTIES, PENALTIES, Regularizer
from gandist.config import Config, PenaltyConfig, Schedule
from gandist.errors import ConfigError, did_you_mean
from gandist.models.contract import Networks, StyleGenerator
from gandist.models.layers import couples_batch
from gandist.models.minibatch import batch_group
from gandist.models.transformer import fused_attention
from gandist.runtime.schedule import factor

Row = TypeVar("Row")


def pick(table: Mapping[str, Row], name: str, knob: str, kind: str) -> Row:
    """Return a row of a table of some kind of thing by its name.

    Raises:
        ConfigError: there is no such row.

    """
    if name not in table:
        raise ConfigError(f"{knob} {name}: no such {kind}.{did_you_mean(name, table)} There are: {', '.join(table)}.")
    return table[name]


def loss_of(config: Config) -> AdversarialLoss:
    """Return the adversarial loss."""
    return pick(LOSSES, config.loss.kind, "loss.kind", "loss").compared(config.loss.relativistic)


def regularizers_of(config: Config) -> list[Regularizer[Penalty]]:
    """Return the penalties of D that are switched on, each with its weight over images seen."""
    return [
        Regularizer(name, PENALTIES[name](**settings.settings), _weight(config, settings), settings.interval_steps)
        for name, settings in _paid(config).items()
        if name in PENALTIES
    ]


def generator_regularizers_of(config: Config) -> list[Regularizer[GeneratorPenalty]]:
    """Return the penalties of G that are switched on."""
    return [
        Regularizer(
            name, GENERATOR_PENALTIES[name](**settings.settings), _weight(config, settings), settings.interval_steps
        )
        for name, settings in _paid(config).items()
        if name in GENERATOR_PENALTIES
    ]


def gradient_norm_of(config: Config) -> GradientNormalization | None:
    """Return the normalisation of G's gradient, if it is switched on."""
    settings = config.regularizer.gradient_norm
    return GradientNormalization(settings.decay) if settings.on else None


def _paid(config: Config) -> dict[str, PenaltyConfig]:
    """Return the sections of penalties whose weight is not zero, by the name of their row."""
    found: dict[str, PenaltyConfig] = {}
    for name in type(config.regularizer).model_fields:
        settings = getattr(config.regularizer, name)
        if isinstance(settings, PenaltyConfig) and settings.level > 0 and name != "other":
            found[name] = settings
    other = config.regularizer.other
    if other.level > 0 or other.name is not None:
        name = other.name or ""
        pick({**PENALTIES, **GENERATOR_PENALTIES}, name, "regularizer.other.name", "penalty")
        if name in type(config.regularizer).model_fields:
            raise ConfigError(f"regularizer.other.name {name}: has a section of its own, regularizer.{name}.")
        found[name] = other
    return found


def _weight(config: Config, settings: PenaltyConfig) -> Callable[[int], float]:
    return partial(_scheduled, settings.level, settings.schedule, config.run.total_kimg)


def _scheduled(level: float, schedule: Schedule, total_kimg: float, images_seen: int) -> float:
    return level * factor(schedule, images_seen, total_kimg)


def check_rules(config: Config, networks: Networks, share_images: int) -> None:
    """Refuse rules that do not fit the networks, or passes that would change what is computed.

    Raises:
        ConfigError: the message says which, and what to do.

    """
    loss, regularizer, micro = loss_of(config), config.regularizer, config.execution.micro_images
    if loss.couples_batch and micro is not None and micro < share_images:
        raise ConfigError(
            f"execution.micro_images {micro}: would cut a rank's batch of {share_images}, but relativistic average "
            "compares each image with all others. Leave micro_images out, use more ranks, or take pairs."
        )
    if regularizer.path_length.level > 0 and not isinstance(networks.generator, StyleGenerator):
        raise ConfigError(
            f"regularizer.path_length.weight {regularizer.path_length.level:g}: a {config.model.arch} generator has no "
            "styles. Set it to 0, or use an architecture with styles such as stylegan2."
        )
    _check_second_derivatives(config, networks)
    _check_groups(networks, share_images, micro)
    joined = [name for name, part in (("r1", regularizer.r1), ("r2", regularizer.r2)) if _differs(part)]
    if joined and (norms := couples_batch(networks.discriminator)):
        raise ConfigError(
            f"regularizer.{joined[0]}.method finite_difference: lets D judge real images and fakes as one batch, which "
            f"its batch normalisation ({norms[0]}, ...) would mix. Use method exact, or a D without batch norms."
        )
    if micro is not None and micro < share_images:
        _check_passes(networks, share_images, micro)


def _check_passes(networks: Networks, share_images: int, micro_images: int) -> None:
    """Refuse passes that would cut a batch whose statistics a layer uses."""
    for role, network in (("generator", networks.generator), ("discriminator", networks.discriminator)):
        if coupled := couples_batch(network):
            raise ConfigError(
                f"execution.micro_images: {micro_images} would cut a rank's batch of {share_images}, but the {role}'s "
                f"batch normalisation ({coupled[0]}, ...) sees the batch as a whole, so the result would change. "
                "Leave micro_images out, or use more ranks."
            )


def _check_second_derivatives(config: Config, networks: Networks) -> None:
    """Refuse penalties that take a second derivative of a network that has none."""
    of_d = [r.name for r in regularizers_of(config) if r.penalty.second_order]
    of_g = [r.name for r in generator_regularizers_of(config) if r.penalty.second_order]
    for names, network in ((of_d, networks.discriminator), (of_g, networks.generator)):
        if names and (fused := fused_attention(network)):
            raise ConfigError(
                f"regularizer.{names[0]}: takes a second derivative, which fused attention ({fused[0]}, ...) does not "
                f"have. Set --model.{config.model.arch}.attention plain"
                + (f", or --regularizer.{names[0]}.method finite_difference." if names[0] in ("r1", "r2") else ".")
            )


def _check_groups(networks: Networks, share_images: int, micro_images: int | None) -> None:
    """Refuse passes that would cut a group of images which D compares with each other."""
    group = batch_group(networks.discriminator)
    if share_images % group:
        raise ConfigError(
            f"update.batch_images: each rank's {share_images} images must be a multiple of {group}, the group whose "
            "standard deviation D is shown. Change the batch, the number of ranks, or the architecture's group."
        )
    if micro_images is not None and micro_images < share_images and micro_images % group:
        raise ConfigError(
            f"execution.micro_images {micro_images}: would cut a group of {group} images whose standard deviation D is "
            f"shown. Take a multiple of {group}."
        )


def _differs(part: Any) -> bool:
    return bool(part.level > 0 and part.method == "finite_difference")


def class_cdf(class_counts: Sequence[int]) -> Tensor:
    """Return P(class <= k) for every class k, from the number of images in each."""
    counts = torch.tensor(class_counts, dtype=torch.float64)
    return (counts.cumsum(0) / counts.sum()).float()
