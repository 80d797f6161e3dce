"""BigGAN (Brock, Donahue, Simonyan 2019): tables 4 to 6 of its appendix B, and the narrower networks for small images.

G sees the class and a piece of z in every block, as scales and shifts of its batch norms. Both networks are
spectrally normalised, begin orthogonal, and may look at all places at once, by self-attention at one resolution.

The paper draws its networks for 128, 256 and 512 px. The one for 64 px is that for 128 px less its last doubling;
the one for up to 32 px has four times the base width everywhere, like the SNGAN network it comes from.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gandist.config import BigganConfig, ModelConfig
from gandist.errors import ConfigError
from gandist.models.attention import SelfAttention
from gandist.models.contract import Discriminator, Generator, ImageShape, Networks, Verdict
from gandist.models.heads import ClassHead, HeadKind, class_head, head_kind
from gandist.models.layers import begin_step, power_of_two_stages, precise, spectral_norm
from gandist.models.resnet import DownBlock, convolution

# multiples of the base width: of G from 4 px on, of D behind each block
WIDTHS: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    8: ((4, 4), (4, 4, 4, 4)),
    16: ((4, 4, 4), (4, 4, 4, 4)),
    32: ((4, 4, 4, 4), (4, 4, 4, 4)),
    64: ((16, 16, 8, 4, 2), (1, 2, 4, 8, 16)),
    128: ((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16)),
    256: ((16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16, 16)),
    512: ((16, 16, 8, 8, 4, 2, 1, 1), (1, 1, 2, 4, 8, 8, 16, 16)),
}


class ConditionedNorm(nn.Module):
    """Batch norm whose scale and shift are linear in a vector: 1 + U y and V y; without one, a plain batch norm.

    In the papers' words class-conditional batch norm (de Vries et al. 2017) with shared embeddings (Brock et al.
    2019, section 3.1).

    Args:
        channels: of the features.
        condition: length of the vector y, 0 for none.

    """

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=condition == 0)
        self.scale = spectral_norm(nn.Linear(condition, channels, bias=False)) if condition else None
        self.shift = spectral_norm(nn.Linear(condition, channels, bias=False)) if condition else None

    def forward(
        self, x: Float[Tensor, "batch channels height width"], y: Float[Tensor, "batch condition"] | None
    ) -> Float[Tensor, "batch channels height width"]:
        """Normalise over the batch, then scale and shift each image by its vector."""
        out: Tensor = self.norm(x)
        if self.scale is not None and self.shift is not None:
            out = out * (1 + self.scale(y))[:, :, None, None] + self.shift(y)[:, :, None, None]
        return out


class UpBlock(nn.Module):
    """Norm, ReLU, upsample, convolve, norm, ReLU, convolve; beside an upsampled 1x1 shortcut (figure 15b)."""

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ConditionedNorm(inputs, condition), ConditionedNorm(outputs, condition)
        self.conv1, self.conv2, self.shortcut = (
            spectral_norm(convolution(a, b, kernel))
            for a, b, kernel in ((inputs, outputs, 3), (outputs, outputs, 3), (inputs, outputs, 1))
        )

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Return features of twice the height and width."""
        h = F.interpolate(F.relu(self.norm1(x, y)), scale_factor=2, mode="nearest")
        h = self.conv2(F.relu(self.norm2(self.conv1(h), y)))
        # a 1x1 convolution and a repetition of pixels commute; this order is the cheaper one
        out: Tensor = h + F.interpolate(self.shortcut(x), scale_factor=2, mode="nearest")
        return out


class BigganGenerator(Generator):
    """A linear layer to 4x4, residual blocks that each see the class and their piece of z, norm, ReLU, conv, tanh."""

    def __init__(self, image: ImageShape, latent_dim: int, knobs: BigganConfig, classes: int) -> None:
        super().__init__()
        widths = [knobs.generator_channels * k for k in WIDTHS[image.resolution][0]]
        self.pieces = len(widths) if knobs.hierarchical else 1  # one for the linear layer, one for each block
        if latent_dim % self.pieces:
            below = latent_dim // self.pieces * self.pieces
            fits = f"{below} or {below + self.pieces}" if below else str(self.pieces)
            raise ConfigError(
                f"model.latent_dim: biggan cuts z into {self.pieces} equal pieces at {image.resolution} px, and "
                f"{latent_dim} cannot be cut so. Set --model.latent_dim to {fits}, "
                "or --model.biggan.hierarchical False."
            )
        piece = latent_dim // self.pieces
        self.embedding = nn.Embedding(classes, knobs.class_dim) if classes else None
        condition = (knobs.class_dim if classes else 0) + (piece if knobs.hierarchical else 0)
        self.start = spectral_norm(_without_bias_to_begin_with(nn.Linear(piece, widths[0] * 16)))
        self.blocks = nn.ModuleList(UpBlock(a, b, condition) for a, b in pairwise(widths))
        self.attention_after = _place(knobs, [8 << k for k in range(len(widths) - 1)], image.resolution)
        if self.attention_after is not None:
            self.attention = SelfAttention(widths[self.attention_after + 1])
        self.norm = nn.BatchNorm2d(widths[-1])
        self.to_image = spectral_norm(convolution(widths[-1], image.channels, 3))
        orthogonal(self)

    def forward(
        self, z: Float[Tensor, "batch latent"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch channels height width"]:
        """Return images in [-1, 1]."""
        first, *others = z.chunk(self.pieces, dim=1)
        named = [] if self.embedding is None else [self.embedding(c)]
        h = self.start(first).unflatten(1, (-1, 4, 4))
        for k, block in enumerate(self.blocks):
            told = [*named, others[k]] if others else named
            h = block(h, torch.cat(told, dim=1) if told else None)
            if k == self.attention_after:
                h = self.attention(h)
        images: Tensor = self.to_image(F.relu(self.norm(h))).tanh()
        return images


class BigganDiscriminator(Discriminator):
    """Spectrally normalised residual blocks, the last of which keeps the size, ReLU, sum over places, and a head."""

    def __init__(self, image: ImageShape, knobs: BigganConfig, classes: int, head: HeadKind) -> None:
        super().__init__()
        widths = [image.channels, *(knobs.discriminator_channels * k for k in WIDTHS[image.resolution][1])]
        halvings = min(2, len(WIDTHS[image.resolution][0]) - 1) if image.resolution <= 32 else len(widths) - 2
        self.blocks = nn.ModuleList(
            DownBlock(a, b, halve=k < halvings, first=k == 0) for k, (a, b) in enumerate(pairwise(widths))
        )
        sizes = [image.resolution >> (k + 1) for k in range(halvings)]
        self.attention_after = _place(knobs, sizes, image.resolution)
        if self.attention_after is not None:
            self.attention = SelfAttention(widths[self.attention_after + 1])
        self.head = spectral_norm(_without_bias_to_begin_with(nn.Linear(widths[-1], 1)))
        self.classes: ClassHead = class_head(head, widths[-1], classes, spectral_norm)
        orthogonal(self)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"] | Verdict:
        """Return logits, from an auxiliary head beside those of the classes."""
        h = x
        for k, block in enumerate(self.blocks):
            h = block(h)
            if k == self.attention_after:
                h = self.attention(h)
        with torch.autocast(x.device.type, enabled=False):
            features = F.relu(precise(h)).sum(dim=(2, 3))
            verdict: Tensor | Verdict = self.classes(self.head(features).squeeze(1), features, c)
        return verdict


def _without_bias_to_begin_with(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.bias)
    return layer


def _place(knobs: BigganConfig, sizes: list[int], resolution: int) -> int | None:
    """Return the number of the block behind which attention stands, whose features have the size that is asked for."""
    wanted = knobs.attention_resolution
    if wanted is None:
        return None
    allowed = [size for size in sizes if size < resolution]
    if wanted not in allowed:
        raise ConfigError(
            f"model.biggan.attention_resolution: at {resolution} px the networks have features of "
            f"{', '.join(str(size) for size in sorted(allowed))} px, not {wanted}. Set it to one of these, or to null."
        )
    return sizes.index(wanted)


def orthogonal(network: nn.Module) -> None:
    """Draw all weights as orthogonal matrices (Saxe et al. 2014), and let spectral norms find them again."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            normalised = parametrize.is_parametrized(module, "weight")
            weight = module.parametrizations.weight.original if normalised else module.weight  # type: ignore[union-attr]
            nn.init.orthogonal_(weight)  # type: ignore[arg-type]
    begin_step(network)  # once is enough: all singular values of such a matrix are one


def build(model: ModelConfig, image: ImageShape, classes: int) -> Networks:
    """Return the BigGAN pair for a power-of-two resolution from 8 to 512 px.

    Raises:
        ConfigError: another resolution; a latent that cannot be cut; attention where no features are.

    """
    power_of_two_stages("biggan", image.resolution, smallest=8)
    if image.resolution not in WIDTHS:
        raise ConfigError(f"data.resolution: biggan is drawn for up to {max(WIDTHS)} px, not for {image.resolution}.")
    return Networks(
        BigganGenerator(image, model.latent_dim, model.biggan, classes),
        BigganDiscriminator(image, model.biggan, classes, head_kind(model, "projection", ["projection", "auxiliary"])),
    )
