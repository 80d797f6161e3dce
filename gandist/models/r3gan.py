"""R3GAN (Huang et al. 2024, section 4): a modern convolutional GAN without a trick, its "config E".

Residual blocks of 1x1, grouped 3x3 and 1x1 convolutions with an inverted bottleneck; bilinear resampling; leaky ReLU
with a bias before it; no normalisation anywhere. That such networks train at all lies in how they begin (Zhang et al.
2019, Fixup): the last convolution of each block is zero, the others are scaled by the number of blocks.

A resolution of r px has min(``channel_base`` / r, ``channel_max``) channels. The paper's networks are

    CIFAR-10             channel_max 768
    FFHQ-64, FFHQ-256    channel_max 768, unconditional
    ImageNet-32          channel_max 1536, channel_base 49152, group_channels 32
    ImageNet-64          channel_max 1536, channel_base 98304, group_channels 32

with ``latent_dim`` 64. It calls expanded channels / ``group_channels`` the cardinality: 96 at most in all of them.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gandist.config import ModelConfig, R3ganConfig
from gandist.errors import ConfigError
from gandist.models.contract import Discriminator, Generator, ImageShape, Networks, Verdict
from gandist.models.heads import Auxiliary, HeadKind, head_kind
from gandist.models.layers import power_of_two_stages, precise
from gandist.models.resample import BINOMIAL_3, BlurDownsample, BlurUpsample

M = TypeVar("M", nn.Conv2d, nn.Linear, nn.Embedding)
SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))
"""What a layer in front of a leaky ReLU is scaled by, so that variances stay as they are (He et al. 2015)."""


class BiasedLrelu(nn.Module):
    """Adds a bias to each channel, which begins at zero, and takes the leaky ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return activations of the same shape."""
        return F.leaky_relu(x + self.bias.to(x.dtype)[:, None, None], SLOPE)


class Block(nn.Module):
    """x + W3 lrelu(W2 lrelu(W1 x)): 1x1 to more channels, grouped 3x3, 1x1 back.

    Args:
        channels: of x.
        knobs: how many times more channels there are between, and how many of them a group has.
        blocks: of the whole network, L; the inner weights begin L^(-1/4) times as large (Fixup: L^(-1/(2m - 2)) for
            m = 3 layers), W3 at zero.

    """

    def __init__(self, channels: int, knobs: R3ganConfig, blocks: int) -> None:
        super().__init__()
        wide = channels * knobs.expansion
        if wide % knobs.group_channels:
            raise ConfigError(
                f"model.r3gan.group_channels: {wide} channels between a block's convolutions are not groups of "
                f"{knobs.group_channels}. Set it to a divisor of {wide}."
            )
        inner = GAIN * blocks ** (-1 / 4)
        self.conv1 = scaled(nn.Conv2d(channels, wide, 1, bias=False), inner)
        self.conv2 = scaled(nn.Conv2d(wide, wide, 3, padding=1, groups=wide // knobs.group_channels, bias=False), inner)
        self.conv3 = scaled(nn.Conv2d(wide, channels, 1, bias=False), 0.0)
        self.act1, self.act2 = BiasedLrelu(wide), BiasedLrelu(wide)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return features of the same shape."""
        out: Tensor = x + self.conv3(self.act2(self.conv2(self.act1(self.conv1(x)))))
        return out


class R3ganGenerator(Generator):
    """Learned 4x4 maps weighted by a linear layer of z and class, stages of blocks, a 1x1 convolution to the image."""

    def __init__(self, image: ImageShape, latent_dim: int, knobs: R3ganConfig, classes: int) -> None:
        super().__init__()
        widths = widths_of(image, knobs)
        self.full_stages = knobs.fp32_stages
        self.embedding = scaled(nn.Embedding(classes, knobs.class_dim)) if classes else None
        self.weights = scaled(nn.Linear(latent_dim + (knobs.class_dim if classes else 0), widths[0], bias=False))
        self.basis = nn.Parameter(torch.randn(widths[0], 4, 4))
        self.stages = nn.ModuleList(
            nn.Sequential(*([] if k == 0 else up(widths[k - 1], width)), *blocks_of(width, knobs, len(widths)))
            for k, width in enumerate(widths)
        )
        self.to_image = scaled(nn.Conv2d(widths[-1], image.channels, 1, bias=False))

    def forward(
        self, z: Float[Tensor, "batch latent"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch channels height width"]:
        """Return images about in [-1, 1]: nothing bounds them."""
        told = z if self.embedding is None else torch.cat([z, self.embedding(c)], dim=1)
        h = self.basis * self.weights(told)[:, :, None, None]
        for k, stage in enumerate(self.stages):
            with full_precision(h, k < self.full_stages):
                h = stage(precise(h) if k < self.full_stages else h)
        images: Tensor = self.to_image(h)
        return images


class R3ganDiscriminator(Discriminator):
    """The mirror of G: a 1x1 convolution of the image, stages of blocks, weighted sums over 4x4 places, a head.

    The head of a conditional D is the inner product of a linear layer of these sums with the class's embedding.
    """

    def __init__(self, image: ImageShape, knobs: R3ganConfig, classes: int, head: HeadKind) -> None:
        super().__init__()
        widths = widths_of(image, knobs)
        self.full_stages = knobs.fp32_stages
        self.from_image = scaled(nn.Conv2d(image.channels, widths[-1], 1, bias=False))
        self.stages = nn.ModuleList(  # numbered by resolution as in G, so that the last is the first that x meets
            nn.Sequential(*blocks_of(width, knobs, len(widths)), *([] if k == 0 else down(width, widths[k - 1])))
            for k, width in enumerate(widths)
        )
        self.basis = scaled(nn.Conv2d(widths[0], widths[0], 4, groups=widths[0], bias=False))
        told = classes > 0 and head == "projection"
        self.head = scaled(nn.Linear(widths[0], widths[0] if told else 1, bias=False))
        self.embedding = scaled(nn.Embedding(classes, widths[0])) if told else None
        named = classes > 0 and head == "auxiliary"
        self.classes = Auxiliary(scaled(nn.Linear(widths[0], classes, bias=False))) if named else None

    def forward(
        self, x: Float[Tensor, "batch channels height width"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"] | Verdict:
        """Return logits, from an auxiliary head beside those of the classes."""
        h = self.from_image(x)
        for k in reversed(range(len(self.stages))):
            with full_precision(h, k < self.full_stages):
                h = self.stages[k](precise(h) if k < self.full_stages else h)
        with full_precision(h, True):
            features = self.basis(precise(h)).flatten(1)
            judged = self.head(features)
            logits: Tensor = judged.squeeze(1) if self.embedding is None else (judged * self.embedding(c)).sum(dim=1)
            return logits if self.classes is None else self.classes(logits, features, c)


def full_precision(h: Tensor, wanted: bool) -> AbstractContextManager[object]:
    """Return the context in which autocast is off, where that is wanted."""
    return torch.autocast(h.device.type, enabled=False) if wanted else nullcontext()


def widths_of(image: ImageShape, knobs: R3ganConfig) -> list[int]:
    """Return the channels of each stage, from 4 px on."""
    stages = power_of_two_stages("r3gan", image.resolution, smallest=8)
    return [max(1, min(knobs.channel_base // (4 << k), knobs.channel_max)) for k in range(stages + 1)]


def blocks_of(channels: int, knobs: R3ganConfig, stages: int) -> list[nn.Module]:
    """Return the blocks of one stage of a network with so many stages."""
    return [Block(channels, knobs, stages * knobs.stage_blocks) for _ in range(knobs.stage_blocks)]


def up(inputs: int, outputs: int) -> list[nn.Module]:
    """Return a 1x1 convolution where the number of channels changes, and then the doubling of the resolution."""
    return [*_change(inputs, outputs), BlurUpsample(BINOMIAL_3)]


def down(inputs: int, outputs: int) -> list[nn.Module]:
    """Return the halving of the resolution, and then a 1x1 convolution where the number of channels changes."""
    return [BlurDownsample(BINOMIAL_3), *_change(inputs, outputs)]


def _change(inputs: int, outputs: int) -> list[nn.Module]:
    return [] if inputs == outputs else [scaled(nn.Conv2d(inputs, outputs, 1, bias=False))]


def scaled(layer: M, gain: float = 1.0) -> M:
    """Draw the layer's weight from N(0, gain^2 / fan in); an embedding is a linear layer of one-hot classes."""
    weight = layer.weight
    fan_in = weight.shape[0] if isinstance(layer, nn.Embedding) else weight[0].numel()
    nn.init.normal_(weight, 0.0, gain / math.sqrt(fan_in))
    return layer


def build(model: ModelConfig, image: ImageShape, classes: int) -> Networks:
    """Return the R3GAN pair for a power-of-two resolution of at least 8 px.

    Raises:
        ConfigError: another resolution, or groups that do not divide the channels.

    """
    head = head_kind(model, "projection", ["projection", "auxiliary"])
    return Networks(
        R3ganGenerator(image, model.latent_dim, model.r3gan, classes),
        R3ganDiscriminator(image, model.r3gan, classes, head),
    )
