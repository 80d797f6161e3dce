"""Networks small enough for every resolution, and noise for those that draw."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from gandist.config import ModelConfig
from gandist.models.build import build
from gandist.models.contract import ImageShape, Networks, follow
from gandist.models.noise import RowNoise, random_layers, seed_layers

CLASSES, LATENT_DIM = 3, 5
STYLES = {"style_dim": 6, "mapping_depth": 2, "channel_max": 4, "class_mapping_depth": 2}


@pytest.fixture
def tiny() -> Callable[..., Networks]:
    """Return a function that builds the networks of an architecture with very few channels."""

    def make(arch: str, resolution: int = 16, channels: int = 3, *, classes: int = 0, seed: int = 0) -> Networks:
        narrow = {"generator_channels": 4, "discriminator_channels": 4}
        settings: dict[str, Any] = {
            "arch": arch,
            "conditional": classes > 0,
            "latent_dim": LATENT_DIM,
            "mlp": {"generator_widths": [9, 7], "discriminator_widths": [8, 6], "dropout": 0.5},
            "dcgan": narrow,
            "resnet": narrow,
            "biggan": {**narrow, "class_dim": 3, "hierarchical": False},
            "progressive": {"channel_base": 256, "channel_max": 16},
            "r3gan": {"channel_base": 64, "channel_max": 6, "group_channels": 2, "class_dim": 3, "stage_blocks": 1},
            "stylegan2": STYLES,
            "gat": {"depth": 2, "width": 8, "head_width": 4, "style_dim": 6, "projection_dim": 5, "levels": 1},
            "cips": {"widths": [6, 4], "fourier_features": 5, "position_features": 4},
        }
        made = build(ModelConfig.model_validate(settings), ImageShape(resolution, channels), classes, seed)
        for network in (made.generator, made.discriminator):
            follow(network, 10**9)  # those that grow, in their last shape
        return made

    return make


@pytest.fixture
def with_noise() -> Callable[[nn.Module, int], nn.Module]:
    """Return a function that gives a network the draws of a pass of so many rows."""

    def give(network: nn.Module, rows: int) -> nn.Module:
        seed_layers(random_layers(network), RowNoise(torch.Generator().manual_seed(0), rows, 0, rows))
        return network

    return give
