"""A pair of plain transformers for latents, with guidance at several levels of noise (GAT, 2026).

G turns the fixed codes of places into an image, and only the styles w of the latent and class tell which. It has heads
at equal depths, and each adds to what the heads before it have drawn. In training G gives out all of these stages,
stacked on the channels, and D judges them together, the earlier ones under heavier noise
(:mod:`gandist.models.multilevel`); so the early blocks are taught what an image looks like from afar. In evaluation
the last stage alone is the image.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gandist.config import GatConfig, ModelConfig
from gandist.errors import ConfigError
from gandist.models.contract import Discriminator, ImageShape, Networks
from gandist.models.heads import head_kind
from gandist.models.multilevel import MultiLevelNoise
from gandist.models.styles import MappedGenerator, Mapping
from gandist.models.transformer import (
    Attention,
    Rotation,
    SwiGlu,
    from_patches,
    rms_norm,
    sincos_positions,
    to_patches,
    xavier,
)

_LR_MULTIPLIER = 0.01  # of mapping networks
_MODULATION_GAIN = 0.1  # of initial scales and gates: small, but not zero, so that all blocks learn at once
_LAYER_SCALE = 0.1  # what D's branches begin with


class StyledBlock(nn.Module):
    """A block of G: attention and feed-forward branches, each scaled before and gated after by the style.

    h = x + g1 attention((1 + s1) norm(x)), out = h + g2 forward((1 + s2) norm(h)), where s and g are linear in w:
    the adaptive norm of DiT (Peebles & Xie 2023, section 3.2) without shifts.
    """

    def __init__(self, config: GatConfig, rotation: Rotation) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.head_width, rotation, config.attention)
        self.forward_layer = SwiGlu(config.width)
        self.modulation = xavier(nn.Linear(config.style_dim, 4 * config.width), _MODULATION_GAIN)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], w: Float[Tensor, "batch style"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the tokens after the block."""
        s1, g1, s2, g2 = self.modulation(w)[:, None].chunk(4, dim=2)
        x = x + g1 * self.attention((1 + s1) * rms_norm(x))
        out: Tensor = x + g2 * self.forward_layer((1 + s2) * rms_norm(x))
        return out


class Head(nn.Module):
    """Tokens to an image: norm, scale by the style, and a linear layer to the patches."""

    def __init__(self, config: GatConfig, channels: int) -> None:
        super().__init__()
        self.patch = config.patch
        self.modulation = xavier(nn.Linear(config.style_dim, config.width), _MODULATION_GAIN)
        # The sum over all heads begins with about the variance 2 width / (width + outputs) / 2 < 1.
        self.out = xavier(nn.Linear(config.width, channels * config.patch**2), 1 / math.sqrt(2 * config.levels))

    def forward(
        self, x: Float[Tensor, "batch tokens width"], w: Float[Tensor, "batch style"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """Return what these tokens add to the image."""
        return from_patches(self.out((1 + self.modulation(w)[:, None]) * rms_norm(x)), self.patch)


class GatGenerator(MappedGenerator):
    """G: codes of places, blocks led by the style, and ``levels`` heads whose images are summed up."""

    positions: Tensor

    def __init__(self, image: ImageShape, latent_dim: int, config: GatConfig, classes: int) -> None:
        mapping = Mapping(latent_dim, classes, config.style_dim, depth=2, lr_multiplier=_LR_MULTIPLIER)
        super().__init__(mapping, layers=config.depth, mixing_probability=0.0)
        rows = image.resolution // config.patch
        rotation = Rotation(rows, config.head_width)
        self.register_buffer("positions", sincos_positions(rows, config.width), persistent=False)
        self.blocks = nn.ModuleList(StyledBlock(config, rotation) for _ in range(config.depth))
        self.heads = nn.ModuleList(Head(config, image.channels) for _ in range(config.levels))

    def synthesize(self, w: Float[Tensor, "batch layers style"]) -> Float[Tensor, "batch channels rows columns"]:
        """Return the images of styles; in training the stages of each, stacked: levels * channels channels."""
        x = self.positions.to(w.dtype).expand(len(w), -1, -1)
        between, stages = len(self.blocks) // len(self.heads), list[Tensor]()
        for number, block in enumerate(self.blocks):
            x = block(x, w[:, number])
            level, rest = divmod(number + 1, between)
            if rest == 0:
                drawn = self.heads[level - 1](x, w[:, number])
                drawn = drawn.to(torch.promote_types(drawn.dtype, torch.float32))
                stages.append(stages[-1] + drawn if stages else drawn)
        return torch.cat(stages, dim=1) if self.training else stages[-1]


class Block(nn.Module):
    """A block of D: branches that begin at a tenth of their size (LayerScale: Touvron et al. 2021, section 2)."""

    def __init__(self, config: GatConfig, rotation: Rotation) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.head_width, rotation, config.attention)
        self.forward_layer = SwiGlu(config.width)
        self.scale1 = nn.Parameter(torch.full((config.width,), _LAYER_SCALE))
        self.scale2 = nn.Parameter(torch.full((config.width,), _LAYER_SCALE))

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Return the tokens after the block."""
        x = x + self.scale1 * self.attention(rms_norm(x))
        out: Tensor = x + self.scale2 * self.forward_layer(rms_norm(x))
        return out


class GatDiscriminator(Discriminator):
    """D: a vision transformer (Dosovitskiy et al. 2021) of stacked images, whose class token gives the logit.

    The class is told to the head alone: the logit is the inner product of the token's features with the mapped class
    (Miyato & Koyama 2018, equation 3, without its second term). The head works in fp32, since a penalty by finite
    differences takes the difference of logits.
    """

    positions: Tensor

    def __init__(self, image: ImageShape, config: GatConfig, classes: int) -> None:
        super().__init__()
        self.channels, self.patch = image.channels, config.patch
        rows = image.resolution // config.patch
        rotation = Rotation(rows, config.head_width, extra=1)
        self.register_buffer("positions", sincos_positions(rows, config.width), persistent=False)
        self.multilevel = MultiLevelNoise(config.levels)
        self.embed = xavier(nn.Linear(config.levels * image.channels * config.patch**2, config.width))
        self.token = nn.Parameter(torch.randn(config.width))
        self.blocks = nn.Sequential(*(Block(config, rotation) for _ in range(config.depth)))
        self.head = xavier(nn.Linear(config.width, config.projection_dim if classes else 1))
        self.classes = Mapping(0, classes, config.projection_dim, 1, _LR_MULTIPLIER) if classes else None

    def forward(
        self, x: Float[Tensor, "batch channels height width"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"]:
        """Return logits of stacked images, or of plain ones, which stand for all levels."""
        if x.shape[1] == self.channels:
            x = x.repeat(1, self.multilevel.levels, 1, 1)
        h = self.embed(to_patches(self.multilevel(x), self.patch)) + self.positions.to(x.dtype)
        token = self.token.to(h.dtype).expand(len(h), 1, -1)
        features = self.blocks(torch.cat([token, h], dim=1))[:, 0]
        with torch.autocast(x.device.type, enabled=False):
            known = self.head(rms_norm(features.to(self.head.weight.dtype)))
            if self.classes is None:
                plain: Tensor = known.squeeze(1)
                return plain
            logits: Tensor = (known * self.classes(None, c)).sum(dim=1) / math.sqrt(known.shape[1])
            return logits


def build(model: ModelConfig, image: ImageShape, classes: int) -> Networks:
    """Return the pair of transformers.

    Raises:
        ConfigError: sizes do not go into each other, or D has no such head.

    """
    config = model.gat
    head_kind(model, "projection", ["projection"])
    if image.resolution % config.patch:
        raise ConfigError(
            f"data.resolution {image.resolution} is no multiple of model.gat.patch {config.patch}. "
            "Choose a patch that goes into it."
        )
    for part, name, whole, of in (
        (config.head_width, "head_width", config.width, "width"),
        (config.levels, "levels", config.depth, "depth"),
        (4, "rotation's 4", config.head_width, "head_width"),
    ):
        if whole % part:
            raise ConfigError(f"model.gat.{of} {whole} is no multiple of {part} ({name}).")
    return Networks(GatGenerator(image, model.latent_dim, config, classes), GatDiscriminator(image, config, classes))
