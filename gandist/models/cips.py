"""CIPS: each pixel is made from its position and the style alone (Anokhin et al. 2021).

No convolution and no upsampling: the same modulated linear layers work at every position, which reaches them as sines
of learned frequencies and as numbers learned for each pixel. So images of any resolution can be drawn
once the network is trained. D is StyleGAN2's.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gandist.config import CipsConfig, ModelConfig, StyleGan2Config
from gandist.models.contract import AnyResolution, ImageShape, Networks
from gandist.models.equalized import lrelu
from gandist.models.heads import head_kind
from gandist.models.layers import precise
from gandist.models.modulated import ModulatedLinear
from gandist.models.stylegan2 import StyleGan2Discriminator
from gandist.models.styles import MappedGenerator, Mapping


def positions(resolution: int, device: torch.device | None = None) -> Float[Tensor, "pixels 2"]:
    """Return the position (y, x) of each pixel, row by row; the corners of an image are at -1 and 1."""
    line = torch.linspace(-1, 1, resolution, device=device)
    return torch.cartesian_prod(line, line)


class PositionFeatures(nn.Module):
    """What the network is told of a position p: sin(B p), and numbers learned for each pixel.

    Args:
        sines: rows of B, which begin at N(0, ``std``^2).
        std: in radians for each half of an image.
        learned: numbers for each pixel; between pixels, at another resolution, they are interpolated.
        resolution: for which these are learned.

    """

    def __init__(self, sines: int, std: float, learned: int, resolution: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(sines, 2) * std)
        self.learned = nn.Parameter(torch.randn(1, learned, resolution, resolution)) if learned else None

    def forward(self, resolution: int) -> Float[Tensor, "pixels features"]:
        """Return the features of the pixels of an image, row by row, in fp32 at least."""
        device = self.frequencies.device
        with torch.autocast(device.type, enabled=False):
            features = torch.sin(positions(resolution, device).to(self.frequencies.dtype) @ self.frequencies.T)
            if self.learned is None:
                return features
            learned: Tensor = self.learned
            if resolution != learned.shape[-1]:
                learned = F.interpolate(learned, (resolution, resolution), mode="bilinear", align_corners=True)
            return torch.cat([features, learned[0].flatten(1).T], dim=1)


class ModFc(nn.Module):
    """Modulated linear layer, bias, leaky ReLU: the paper's ModFC block."""

    def __init__(self, inputs: int, outputs: int, style_dim: int, *, demodulate: bool) -> None:
        super().__init__()
        self.linear = ModulatedLinear(inputs, outputs, style_dim, demodulate=demodulate)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(
        self, x: Float[Tensor, "batch pixels inputs"], w: Float[Tensor, "batch style"]
    ) -> Float[Tensor, "batch pixels outputs"]:
        """Return the features of ``x`` under the styles ``w``."""
        h: Tensor = self.linear(x, w)
        return lrelu(h + self.bias.to(h.dtype))


class PixelBlock(nn.Module):
    """Two ModFC layers, and the part of the image that is in their features (the paper's tRGB, not demodulated)."""

    def __init__(self, inputs: int, outputs: int, style_dim: int, channels: int, *, demodulate: bool) -> None:
        super().__init__()
        self.first = ModFc(inputs, outputs, style_dim, demodulate=demodulate)
        self.second = ModFc(outputs, outputs, style_dim, demodulate=demodulate)
        self.to_image = ModulatedLinear(outputs, channels, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Float[Tensor, "batch pixels inputs"], w: Float[Tensor, "batch 3 style"]
    ) -> tuple[Float[Tensor, "batch pixels outputs"], Float[Tensor, "batch pixels channels"]]:
        """Return the features of each pixel, and what they add to it."""
        x = self.second(self.first(x, w[:, 0]), w[:, 1])
        return x, precise(self.to_image(x, w[:, 2])) + self.bias


class CipsGenerator(MappedGenerator, AnyResolution):
    """Position features, a ModFC layer, and blocks of two more; each image is the sum of what the blocks add.

    Demodulation (Karras et al. 2020, equation 3) takes for granted that input features are independent with unit
    variance. Those of positions are not, and a size that tells something is divided away: with a style for each place
    it would be all that the styles say. Here an image has one style, and at the beginning both forms tell positions
    apart alike; but without demodulation features grow from layer to layer, and only training keeps them in bounds.
    """

    def __init__(
        self, image: ImageShape, latent_dim: int, config: CipsConfig, shared: StyleGan2Config, classes: int
    ) -> None:
        style_dim, widths = shared.style_dim, config.widths
        mapping = Mapping(latent_dim, classes, style_dim, shared.mapping_depth, shared.mapping_lr_multiplier)
        super().__init__(mapping, 2 * len(widths) + 2, shared.mixing_probability)
        self.resolution = image.resolution
        self.positions = PositionFeatures(
            config.fourier_features, config.fourier_std, config.position_features, image.resolution
        )
        inputs = config.fourier_features + config.position_features
        self.first = ModFc(inputs, widths[0], style_dim, demodulate=config.demodulate)
        self.blocks = nn.ModuleList(
            PixelBlock(a, b, style_dim, image.channels, demodulate=config.demodulate)
            for a, b in pairwise([widths[0], *widths])
        )

    def draw_at(self, resolution: int) -> None:
        """Give the images that follow this height and width."""
        self.resolution = resolution

    def synthesize(self, w: Float[Tensor, "batch layers style"]) -> Float[Tensor, "batch channels height width"]:
        """Return the images of styles."""
        x = self.first(self.positions(self.resolution).expand(len(w), -1, -1), w[:, 0])
        parts = []
        for k, block in enumerate(self.blocks):
            x, part = block(x, w[:, 2 * k + 1 : 2 * k + 4])
            parts.append(part)
        image: Tensor = torch.stack(parts).sum(dim=0)
        square: Tensor = image.mT.unflatten(2, (self.resolution, self.resolution))
        return square


def build(model: ModelConfig, image: ImageShape, classes: int) -> Networks:
    """Return CIPS and StyleGAN2's discriminator, for a power-of-two resolution of at least 8 px."""
    head = head_kind(model, "projection", ["projection", "auxiliary"])
    discriminator = StyleGan2Discriminator(model.arch, image, model.stylegan2, classes, head)
    return Networks(CipsGenerator(image, model.latent_dim, model.cips, model.stylegan2, classes), discriminator)
