"""The fully connected GAN: the first one (Goodfellow et al. 2014), in the form every course starts with."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gandist.config import ModelConfig
from gandist.models.contract import Discriminator, Generator, ImageShape, Networks
from gandist.models.noise import Dropout


class MlpGenerator(Generator):
    """Linear layers with leaky ReLU, tanh at the end; the class embedding, if any, is appended to z."""

    def __init__(self, image: ImageShape, latent_dim: int, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.image = image
        self.embedding = nn.Embedding(classes, latent_dim) if classes else None
        widths = (latent_dim * (2 if classes else 1), *widths)
        hidden = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.LeakyReLU(0.2))]
        pixels = image.channels * image.resolution**2
        self.layers = nn.Sequential(*hidden, nn.Linear(widths[-1], pixels), nn.Tanh())

    def forward(
        self, z: Float[Tensor, "batch latent"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch channels height width"]:
        """Return images in [-1, 1]."""
        h = z if self.embedding is None else torch.cat([z, self.embedding(c)], dim=1)
        channels, side = self.image.channels, self.image.resolution
        images: Tensor = self.layers(h).view(-1, channels, side, side)
        return images


class MlpDiscriminator(Discriminator):
    """Linear layers with leaky ReLU and dropout; the class embedding, if any, is appended to the pixels."""

    def __init__(self, image: ImageShape, widths: tuple[int, ...], dropout: float, classes: int) -> None:
        super().__init__()
        pixels = image.channels * image.resolution**2
        self.embedding = nn.Embedding(classes, widths[-1]) if classes else None
        widths = (pixels + (widths[-1] if classes else 0), *widths)
        hidden = [
            layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.LeakyReLU(0.2), Dropout(dropout))
        ]
        self.layers = nn.Sequential(*hidden, nn.Linear(widths[-1], 1))

    def forward(
        self, x: Float[Tensor, "batch channels height width"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"]:
        """Return logits."""
        h = x.flatten(1)
        if self.embedding is not None:
            h = torch.cat([h, self.embedding(c)], dim=1)
        logits: Tensor = self.layers(h)
        return logits.squeeze(1)


def build(model: ModelConfig, image: ImageShape, classes: int) -> Networks:
    """Return the fully connected pair; any resolution, PyTorch's default initialisation."""
    mlp = model.mlp
    return Networks(
        MlpGenerator(image, model.latent_dim, mlp.generator_widths, classes),
        MlpDiscriminator(image, mlp.discriminator_widths, mlp.dropout, classes),
    )
