"""StyleGAN2 (Karras et al. 2020), conditional by class as in Karras et al. 2020a (ADA), in plain PyTorch.

G sums the images of all resolutions (output skips), D is residual: figure 7 of the paper. A resolution of r px has
min(``channel_base`` / r, ``channel_max``) feature maps. ADA's configuration for CIFAR-10 is ``mapping_depth`` 2,
``mixing_probability`` 0, a plain D and a minibatch group of 32.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gandist.config import ModelConfig, StyleGan2Config
from gandist.models.contract import Discriminator, ImageShape, Networks, Verdict
from gandist.models.equalized import EqualizedConv2d, EqualizedLinear, lrelu
from gandist.models.heads import Auxiliary, HeadKind, head_kind
from gandist.models.layers import power_of_two_stages, precise
from gandist.models.minibatch import MinibatchStd
from gandist.models.modulated import ModulatedConv2d
from gandist.models.noise import RandomLayer
from gandist.models.resample import BINOMIAL_4, BlurDownsample, BlurUpsample, blur
from gandist.models.styles import MappedGenerator, Mapping


def channels_at(resolution: int, config: StyleGan2Config) -> int:
    """Return the number of feature maps of a resolution."""
    return max(1, min(config.channel_base // resolution, config.channel_max))


# --- the generator -----------------------------------------------------------------------------------------------


class NoiseInput(RandomLayer):
    """Adds one map of normal noise, the same for all features, times a learned strength that begins at zero.

    In training each pass draws new maps; in evaluation there is one fixed map, so that images follow from z and c.

    Args:
        resolution: height and width of the features.

    """

    fixed: Tensor

    def __init__(self, resolution: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("fixed", torch.randn(1, resolution, resolution))

    def forward(self, x: Float[Tensor, "batch features height width"]) -> Float[Tensor, "batch features height width"]:
        """Return ``x`` with noise."""
        noise = self.fixed[None]
        if self.training:
            assert self.noise is not None, "a network in training mode needs its row noise: see seed_layers()"
            noise = self.noise.normal(1, *x.shape[2:]).to(x.device, non_blocking=True)
        return x + (noise * self.strength).to(x.dtype)


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU (Karras et al. 2020, figure 2c)."""

    def __init__(self, inputs: int, outputs: int, style_dim: int, resolution: int, *, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, 3, style_dim, up=up)
        self.noise = NoiseInput(resolution)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(
        self, x: Float[Tensor, "batch inputs height width"], w: Float[Tensor, "batch style"]
    ) -> Float[Tensor, "batch outputs rows columns"]:
        """Return the features of ``x`` under the styles ``w``."""
        h = self.noise(self.conv(x, w))
        return lrelu(h + self.bias[:, None, None].to(h.dtype))


class ToImage(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation (the paper's tRGB)."""

    def __init__(self, inputs: int, channels: int, style_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, channels, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Float[Tensor, "batch inputs height width"], w: Float[Tensor, "batch style"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the part of the image that is in the features ``x``."""
        return precise(self.conv(x, w)) + self.bias[:, None, None]


class SynthesisBlock(nn.Module):
    """One resolution of G: a convolution that doubles, another one, and the image so far with this block's added."""

    def __init__(self, inputs: int, outputs: int, style_dim: int, resolution: int, channels: int) -> None:
        super().__init__()
        self.up = StyledConv(inputs, outputs, style_dim, resolution, up=True)
        self.conv = StyledConv(outputs, outputs, style_dim, resolution)
        self.to_image = ToImage(outputs, channels, style_dim)
        self.enlarge = BlurUpsample()

    def forward(
        self,
        x: Float[Tensor, "batch inputs height width"],
        image: Float[Tensor, "batch channels height width"],
        w: Float[Tensor, "batch 3 style"],
    ) -> tuple[Float[Tensor, "batch outputs rows columns"], Float[Tensor, "batch channels rows columns"]]:
        """Return features and image at twice the height and width."""
        x = self.conv(self.up(x, w[:, 0]), w[:, 1])
        return x, self.enlarge(image) + self.to_image(x, w[:, 2])


class StyleGan2Generator(MappedGenerator):
    """A learned 4x4 constant, and blocks up to the resolution; each image is a sum of images of all resolutions.

    A block's last style also belongs to the first convolution of the next, so there are 2 log2(resolution) - 2.
    """

    def __init__(self, image: ImageShape, latent_dim: int, config: StyleGan2Config, classes: int) -> None:
        stages = power_of_two_stages("stylegan2", image.resolution, smallest=8)
        style_dim = config.style_dim
        mapping = Mapping(latent_dim, classes, style_dim, config.mapping_depth, config.mapping_lr_multiplier)
        super().__init__(mapping, 2 * stages + 2, config.mixing_probability)
        widths = [channels_at(4 << k, config) for k in range(stages + 1)]
        self.constant = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.conv = StyledConv(widths[0], widths[0], style_dim, 4)
        self.to_image = ToImage(widths[0], image.channels, style_dim)
        self.blocks = nn.ModuleList(
            SynthesisBlock(widths[k], widths[k + 1], style_dim, 8 << k, image.channels) for k in range(stages)
        )

    def synthesize(self, w: Float[Tensor, "batch layers style"]) -> Float[Tensor, "batch channels height width"]:
        """Return the images of styles."""
        x = self.conv(self.constant.expand(len(w), -1, -1, -1), w[:, 0])
        image: Tensor = self.to_image(x, w[:, 1])
        for k, block in enumerate(self.blocks):
            x, image = block(x, image, w[:, 2 * k + 1 : 2 * k + 4])
        return image


# --- the discriminator -------------------------------------------------------------------------------------------


class DownBlock(nn.Module):
    """Two 3x3 convolutions, the second halving height and width; beside a filtered 1x1 shortcut where ``residual``."""

    taps: Tensor

    def __init__(self, inputs: int, outputs: int, *, residual: bool) -> None:
        super().__init__()
        self.conv1 = EqualizedConv2d(inputs, inputs, 3)
        self.conv2 = EqualizedConv2d(inputs, outputs, 3, stride=2, padding=0)
        self.shortcut = EqualizedConv2d(inputs, outputs, 1, bias=False) if residual else None
        self.halve = BlurDownsample()
        self.register_buffer("taps", torch.tensor(BINOMIAL_4, dtype=torch.float32), persistent=False)

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs rows columns"]:
        """Return features of half the height and width; a sum of two is scaled to the variance of one."""
        h = lrelu(self.conv1(x))
        h = lrelu(self.conv2(blur(h, self.taps, padding=2)))
        return h if self.shortcut is None else (h + self.shortcut(self.halve(x))) * math.sqrt(0.5)


class StyleGan2Discriminator(Discriminator):
    """Blocks down to 4x4, minibatch standard deviation, a convolution and two linear layers.

    A class enters by projection of the features on its mapping (Miyato & Koyama 2018, equation 3, without psi), or is
    named by an auxiliary classifier. The linear layers are computed in fp32.
    """

    def __init__(self, arch: str, image: ImageShape, config: StyleGan2Config, classes: int, head: HeadKind) -> None:
        super().__init__()
        stages = power_of_two_stages(arch, image.resolution, smallest=8)
        widths = [channels_at(image.resolution >> k, config) for k in range(stages + 1)]
        last, residual = widths[-1], config.discriminator == "residual"
        self.from_image = EqualizedConv2d(image.channels, widths[0], 1)
        self.blocks = nn.Sequential(*(DownBlock(widths[k], widths[k + 1], residual=residual) for k in range(stages)))
        self.deviation = MinibatchStd(config.minibatch_group)
        self.conv = EqualizedConv2d(last + 1, last, 3)
        self.dense = EqualizedLinear(last * 16, last)
        projects = classes > 0 and head == "projection"
        self.out = EqualizedLinear(last, last if projects else 1)
        self.class_map = (
            Mapping(0, classes, last, config.class_mapping_depth, config.mapping_lr_multiplier) if projects else None
        )
        self.auxiliary = Auxiliary(EqualizedLinear(last, classes)) if classes and head == "auxiliary" else None

    def forward(
        self, x: Float[Tensor, "batch channels height width"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"] | Verdict:
        """Return logits, from an auxiliary head beside those of the classes."""
        h = lrelu(self.conv(self.deviation(self.blocks(lrelu(self.from_image(x))))))
        with torch.autocast(x.device.type, enabled=False):
            features = lrelu(self.dense(precise(h).flatten(1)))
            out: Tensor = self.out(features)
            if self.class_map is None:
                logits = out.squeeze(1)
            else:
                logits = (out * self.class_map(None, c)).sum(dim=1) / math.sqrt(out.shape[1])
            verdict: Tensor | Verdict = logits if self.auxiliary is None else self.auxiliary(logits, features, c)
        return verdict


def build(model: ModelConfig, image: ImageShape, classes: int) -> Networks:
    """Return the StyleGAN2 pair for a power-of-two resolution of at least 8 px."""
    head = head_kind(model, "projection", ["projection", "auxiliary"])
    return Networks(
        StyleGan2Generator(image, model.latent_dim, model.stylegan2, classes),
        StyleGan2Discriminator(model.arch, image, model.stylegan2, classes, head),
    )
