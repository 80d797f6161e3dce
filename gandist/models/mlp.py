"""The fully connected GAN: the first one (Goodfellow et al. 2014), in the form every course starts with."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gandist.config import ModelConfig
from gandist.models.contract import Discriminator, Generator, ImageShape, Networks, Verdict
from gandist.models.heads import ClassHead, HeadKind, class_head, head_kind
from gandist.models.layers import precise
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
    """Linear layers with leaky ReLU and dropout; of its own, a class is embedded and appended to the pixels.

    So Mirza & Osindero 2014 do it; another head sees the last hidden layer.
    """

    def __init__(
        self, image: ImageShape, widths: tuple[int, ...], dropout: float, classes: int, head: HeadKind
    ) -> None:
        super().__init__()
        pixels = image.channels * image.resolution**2
        told = classes > 0 and head == "concatenation"
        self.embedding = nn.Embedding(classes, widths[-1]) if told else None
        widths = (pixels + (widths[-1] if told else 0), *widths)
        hidden = [
            layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.LeakyReLU(0.2), Dropout(dropout))
        ]
        self.layers = nn.Sequential(*hidden)
        self.head = nn.Linear(widths[-1], 1)
        self.classes: ClassHead = class_head(head, widths[-1], classes)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"] | Verdict:
        """Return logits, from an auxiliary head beside those of the classes."""
        h = x.flatten(1)
        if self.embedding is not None:
            h = torch.cat([h, self.embedding(c)], dim=1)
        h = self.layers(h)
        with torch.autocast(x.device.type, enabled=False):
            features = precise(h)
            verdict: Tensor | Verdict = self.classes(self.head(features).squeeze(1), features, c)
        return verdict


def build(model: ModelConfig, image: ImageShape, classes: int) -> Networks:
    """Return the fully connected pair; any resolution, PyTorch's default initialisation."""
    mlp, head = model.mlp, head_kind(model, "concatenation", ["projection", "auxiliary"])
    return Networks(
        MlpGenerator(image, model.latent_dim, mlp.generator_widths, classes),
        MlpDiscriminator(image, mlp.discriminator_widths, mlp.dropout, classes, head),
    )
