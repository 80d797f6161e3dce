"""The residual networks of SNGAN (Miyato et al. 2018, tables 4 and 6), conditional as in Miyato & Koyama 2018.

Up to 32 px all blocks have the same width. Above, G halves its width with every block from 4 px on and D mirrors
it, as the papers' networks for larger images do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gandist.config import ModelConfig
from gandist.models.contract import Discriminator, Generator, ImageShape, Networks, Verdict
from gandist.models.heads import ClassHead, HeadKind, class_head, head_kind
from gandist.models.layers import ConditionalBatchNorm, power_of_two_stages, precise, spectral_norm

M = TypeVar("M", bound=nn.Conv2d | nn.Linear | nn.Embedding)
Normalise = Callable[[Any], Any]
"""What is done to a layer of D: it is spectrally normalised, or returned as it is."""


class Norm(nn.Module):
    """Batch normalisation, by class where there are classes."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conditional = ConditionalBatchNorm(channels, classes) if classes else None
        self.plain = None if classes else nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """Normalise ``x``, shape kept."""
        out: Tensor = self.plain(x) if self.plain is not None else self.conditional(x, c)  # type: ignore[misc]
        return out


class UpBlock(nn.Module):
    """Norm, ReLU, upsample, convolve, norm, ReLU, convolve; beside an upsampled 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int, classes: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(inputs, classes), Norm(outputs, classes)
        self.conv1 = convolution(inputs, outputs, 3, gain=math.sqrt(2))
        self.conv2 = convolution(outputs, outputs, 3, gain=math.sqrt(2))
        self.shortcut = convolution(inputs, outputs, 1)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """Return features of twice the height and width."""
        h = F.interpolate(F.relu(self.norm1(x, c)), scale_factor=2, mode="nearest")
        h = self.conv2(F.relu(self.norm2(self.conv1(h), c)))
        out: Tensor = h + F.interpolate(self.shortcut(x), scale_factor=2, mode="nearest")
        return out


class DownBlock(nn.Module):
    """ReLU, convolve, ReLU, convolve, halve; the first block of D omits the leading ReLU, since its input is pixels."""

    def __init__(
        self, inputs: int, outputs: int, *, halve: bool, first: bool = False, norm: Normalise = spectral_norm
    ) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = norm(convolution(inputs, outputs, 3, gain=math.sqrt(2)))
        self.conv2 = norm(convolution(outputs, outputs, 3, gain=math.sqrt(2)))
        learned = halve or inputs != outputs
        self.shortcut = norm(convolution(inputs, outputs, 1)) if learned else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return features of half the height and width where the block halves."""
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if not self.halve:
            plain: Tensor = h + self.shortcut(x)
            return plain
        # A 1x1 convolution and an average commute; averaging first is the cheaper order on few channels.
        skip = self.shortcut(F.avg_pool2d(x, 2)) if self.first else F.avg_pool2d(self.shortcut(x), 2)
        out: Tensor = F.avg_pool2d(h, 2) + skip
        return out


class ResnetGenerator(Generator):
    """A linear layer to 4x4, residual blocks up to the resolution, norm, ReLU, convolution, tanh."""

    def __init__(self, image: ImageShape, latent_dim: int, widest: int, classes: int) -> None:
        super().__init__()
        stages = power_of_two_stages("resnet", image.resolution, smallest=8)
        widths = [widest] * (stages + 1) if stages <= 3 else [max(1, widest >> k) for k in range(stages + 1)]
        self.start = nn.Linear(latent_dim, widths[0] * 16)
        nn.init.xavier_uniform_(self.start.weight)
        nn.init.zeros_(self.start.bias)
        self.blocks = nn.ModuleList(UpBlock(a, b, classes) for a, b in pairwise(widths))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.to_image = convolution(widths[-1], image.channels, 3)

    def forward(
        self, z: Float[Tensor, "batch latent"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch channels height width"]:
        """Return images in [-1, 1]."""
        h = self.start(z).unflatten(1, (-1, 4, 4))
        for block in self.blocks:
            h = block(h, c)
        images: Tensor = self.to_image(F.relu(self.norm(h))).tanh()
        return images


class ResnetDiscriminator(Discriminator):
    """Residual blocks, ReLU, sum over positions, and a head on the sums; all layers normalised in the same way."""

    def __init__(
        self, image: ImageShape, widest: int, classes: int, head: HeadKind, norm: Normalise = spectral_norm
    ) -> None:
        super().__init__()
        stages = power_of_two_stages("resnet", image.resolution, smallest=8)
        if stages <= 3:  # two halvings, down to 8 px from 32, then two plain blocks: the CIFAR network
            widths, halves = [widest] * 4, [True] * min(2, stages) + [False] * (4 - min(2, stages))
        else:  # halvings down to 4 px, then one plain block
            widths = [max(1, widest >> (stages - 1 - k)) for k in range(stages)] + [widest]
            halves = [True] * stages + [False]
        blocks, inputs = [], image.channels
        for k, (width, halve) in enumerate(zip(widths, halves, strict=True)):
            blocks.append(DownBlock(inputs, width, halve=halve, first=k == 0, norm=norm))
            inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.head = norm(_xavier(nn.Linear(widest, 1)))
        self.classes: ClassHead = class_head(head, widest, classes, lambda layer: norm(_xavier(layer)))

    def forward(
        self, x: Float[Tensor, "batch channels height width"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"] | Verdict:
        """Return logits, from an auxiliary head beside those of the classes."""
        h = self.blocks(x)
        with torch.autocast(x.device.type, enabled=False):
            features = F.relu(precise(h)).sum(dim=(2, 3))
            verdict: Tensor | Verdict = self.classes(self.head(features).squeeze(1), features, c)
        return verdict


def unchanged(layer: M) -> M:
    """Return the layer: the D of WGAN-GP has no normalisation (Gulrajani et al. 2017, section 4)."""
    return layer


def convolution(inputs: int, outputs: int, kernel: int, gain: float = 1.0) -> nn.Conv2d:
    """Return a convolution that keeps the size, with Xavier-uniform weights and zero bias."""
    return _xavier(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), gain)


def _xavier(layer: M, gain: float = 1.0) -> M:
    nn.init.xavier_uniform_(layer.weight, gain)
    if not isinstance(layer, nn.Embedding) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def build(model: ModelConfig, image: ImageShape, classes: int) -> Networks:
    """Return the SNGAN pair for a power-of-two resolution of at least 8 px."""
    head = head_kind(model, "projection", ["projection", "auxiliary"])
    norm = spectral_norm if model.resnet.normalisation == "spectral" else unchanged
    return Networks(
        ResnetGenerator(image, model.latent_dim, model.resnet.generator_channels, classes),
        ResnetDiscriminator(image, model.resnet.discriminator_channels, classes, head, norm),
    )
