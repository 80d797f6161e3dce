"""From a configuration to a game ready to be played: networks built, wrapped by Accelerate, players seated.

Accelerate wraps each network in its own DDP and casts its passes. The optimizers stay plain: each network has a
gradient scaler of its own for fp16, so that an overflow in one does not reach the other, and gradients are gathered
over passes by :mod:`gandist.adversarial.round`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DDPCommunicationHookType, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gandist.adversarial.ema import Averages, GeneratorAverage, PowerAverage
from gandist.adversarial.game import Game
from gandist.adversarial.losses import Targets, alone
from gandist.adversarial.penalties.base import GeneratorPenalty, Penalty
from gandist.adversarial.player import Player
from gandist.adversarial.regularizers import Regularizer
from gandist.assembly.augment import augment_of
from gandist.assembly.rules import (
    check_rules,
    class_cdf,
    generator_regularizers_of,
    gradient_norm_of,
    loss_of,
    regularizers_of,
)
from gandist.config import AdamConfig, Config
from gandist.errors import ConfigError
from gandist.models.build import build
from gandist.models.contract import ImageShape, Networks
from gandist.models.layers import synchronise_batch_norms
from gandist.runtime import rng
from gandist.runtime.distributed import mean_over_ranks, patience
from gandist.runtime.machine import Precision

COMPRESSION = {
    "none": DDPCommunicationHookType.NO,
    "bf16": DDPCommunicationHookType.BF16,
    "fp16": DDPCommunicationHookType.FP16,
}
"""How gradients travel, from the knob's words to Accelerate's."""
ROUNDING: dict[Precision, float] = {
    "fp32": torch.finfo(torch.float32).eps,
    "bf16": torch.finfo(torch.bfloat16).eps,
    "fp16": torch.finfo(torch.float16).eps,
}
"""Relative spacing of numbers in each format."""


def open_accelerator(
    device: Literal["cpu", "cuda"], precision: Precision, timeout_seconds: float = 900.0
) -> Accelerator:
    """Return the Accelerator for a kind of device, a number format, and the time after which a rank is given up.

    Raises:
        ConfigError: the launcher asks for a compiler, which would compile D past its second derivative.

    """
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        raise ConfigError("Launch without --dynamo_backend: --execution.compile decides what is compiled.")
    # The graph stays dynamic, since penalties come and go: a static one would train on wrong gradients, silently.
    wrapping = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    formats = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
    waiting = InitProcessGroupKwargs(timeout=patience(timeout_seconds))
    return Accelerator(cpu=device == "cpu", mixed_precision=formats[precision], kwargs_handlers=[wrapping, waiting])


def build_networks(config: Config, classes: int, share_images: int) -> Networks:
    """Return fresh networks for images with ``classes`` classes and ``share_images`` images per rank and step.

    Raises:
        ConfigError: the architecture does not fit the images, or the rules do not fit the networks.

    """
    image = ImageShape(config.data.resolution, config.data.channels)
    networks = build(config.model, image, classes, rng.key(config.run.seed, "weights"))
    check_rules(config, networks, share_images)
    return networks


def seat_players(
    config: Config,
    networks: Networks,
    accelerator: Accelerator,
    precision: Precision,
    class_counts: Sequence[int],
) -> tuple[Game, Averages]:
    """Move the networks to the device, wrap them, and return the game and the averages of its generator."""
    regularizers, paid_by_g = regularizers_of(config), generator_regularizers_of(config)
    for network in (networks.generator, networks.discriminator):
        network.to(accelerator.device)
        if config.execution.channels_last:
            network.to(memory_format=torch.channels_last)
    averages = Averages(
        GeneratorAverage(networks.generator, config.ema.halflife_kimg * 1000, config.ema.rampup),
        [PowerAverage(networks.generator, std) for std in config.ema.power_stds],
    )
    if synchronises(config, accelerator.num_processes):  # after the averages were copied: they ask no other rank
        for network in (networks.generator, networks.discriminator):
            synchronise_batch_norms(network, mean_over_ranks, accelerator.num_processes)
    compiled, optimizer = config.execution.compile, config.optimizer
    compression = COMPRESSION[config.execution.gradient_compression]
    seat = partial(_seat, accelerator=accelerator, precision=precision, compression=compression)
    cdf = class_cdf(class_counts).to(accelerator.device) if config.model.conditional else None
    game = Game(
        # a compiled network has no second derivative, which some penalties take
        generator=seat(networks.generator, optimizer.generator, compiled=compiled and not _second_order(paid_by_g)),
        discriminator=seat(
            networks.discriminator, optimizer.discriminator, compiled=compiled and not _second_order(regularizers)
        ),
        loss=loss_of(config),
        targets=Targets(config.loss.real_label, config.loss.fake_label, config.loss.swap_probability),
        regularizers=regularizers,
        latent_dim=config.model.latent_dim,
        class_cdf=cdf,
        micro_images=config.execution.micro_images,
        generator_regularizers=paid_by_g,
        auxiliary_weight=config.loss.auxiliary_weight,
        augment=augment_of(config, accelerator.device),
        gradient_norm=gradient_norm_of(config),
        clip_weights=config.regularizer.clip_weights,
        share_latents=config.update.latents == "shared",
        g_steps=config.update.g_steps,
        concatenate=config.update.concatenate,
        across=mean_over_ranks if accelerator.num_processes > 1 else alone,
    )
    return game, averages


def _second_order(regularizers: Sequence[Regularizer[Penalty]] | Sequence[Regularizer[GeneratorPenalty]]) -> bool:
    return any(regularizer.penalty.second_order for regularizer in regularizers)


def synchronises(config: Config, world: int) -> bool:
    """Tell whether batch norms see the images of all ranks; if not, their running statistics differ between ranks."""
    return world > 1 and config.execution.sync_batch_norm


def remarks(game: Game, world: int, share_images: int, synchronised: bool) -> list[str]:
    """Return what a person should know of the networks that several ranks train."""
    if world == 1 or synchronised or not game.couples_batch:
        return []
    return [
        f"Batch normalisation sees the {share_images} images of one process at a time: unlike other layers, it makes "
        "the number of processes part of the result. --execution.sync_batch_norm true would make it see all."
    ]


def _seat(
    module: nn.Module,
    adam: AdamConfig,
    compiled: bool,
    accelerator: Accelerator,
    precision: Precision,
    compression: DDPCommunicationHookType,
) -> Player:
    optimizer = torch.optim.Adam(
        module.parameters(), lr=adam.lr, betas=(adam.beta1, adam.beta2), eps=adam.eps, fused=True
    )
    network = accelerator.prepare(module)
    no_sync: Callable[[], AbstractContextManager[object]] = nullcontext
    if isinstance(network, DistributedDataParallel):
        # Forward passes send no buffers: they are equal on all ranks, or Ranks.average_statistics makes them so.
        network.broadcast_buffers = False
        # A weight of one channel or one place is in both memory orders at once, and its gradient comes in either one.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        DistributedDataParallelKwargs(comm_hook=compression).register_comm_hook(network)
        no_sync = network.no_sync
    if compiled:
        module.compile()
    return Player(
        network,
        module,
        optimizer,
        clip_norm=adam.clip_norm,
        scaler=torch.amp.GradScaler(accelerator.device.type) if precision == "fp16" else None,
        no_sync=no_sync,
        rounding=ROUNDING[precision],
    )
