"""DCGAN (Radford, Metz, Chintala 2016), layer for layer the official PyTorch tutorial's at 64 px.

Other power-of-two resolutions have one stage more or fewer: the hidden layer next to the image always has
``generator_channels`` (``discriminator_channels``) channels, and each stage towards 4 px doubles them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gandist.config import ModelConfig
from gandist.models.contract import Discriminator, Generator, ImageShape, Networks, Verdict
from gandist.models.heads import ClassHead, HeadKind, class_head, head_kind
from gandist.models.initialise import initialise
from gandist.models.layers import power_of_two_stages, precise


class DcganGenerator(Generator):
    """Transposed 4x4 convolutions with batch norm and ReLU, tanh at the end; a class is embedded and appended to z."""

    def __init__(self, image: ImageShape, latent_dim: int, channels: int, classes: int) -> None:
        super().__init__()
        stages = power_of_two_stages("dcgan", image.resolution, smallest=8)
        self.embedding = nn.Embedding(classes, latent_dim) if classes else None
        width = channels << (stages - 1)
        layers = [*self._stage(latent_dim * (2 if classes else 1), width, stride=1, padding=0)]
        for _ in range(stages - 1):
            layers += self._stage(width, width // 2, stride=2, padding=1)
            width //= 2
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(width, image.channels, 4, 2, 1, bias=False), nn.Tanh())
        initialise(self, "normal")

    @staticmethod
    def _stage(inputs: int, outputs: int, stride: int, padding: int) -> list[nn.Module]:
        convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

    def forward(
        self, z: Float[Tensor, "batch latent"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch channels height width"]:
        """Return images in [-1, 1]."""
        h = z if self.embedding is None else torch.cat([z, self.embedding(c)], dim=1)
        images: Tensor = self.layers(h[:, :, None, None])
        return images


class DcganDiscriminator(Discriminator):
    """Strided 4x4 convolutions with batch norm and leaky ReLU; a class enters by the head, of the features' sum."""

    def __init__(self, image: ImageShape, channels: int, classes: int, head: HeadKind) -> None:
        super().__init__()
        stages = power_of_two_stages("dcgan", image.resolution, smallest=8)
        layers: list[nn.Module] = [
            nn.Conv2d(image.channels, channels, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for stage in range(stages - 1):
            width = channels << stage
            layers += [
                nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
                nn.BatchNorm2d(2 * width),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        width = channels << (stages - 1)
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv2d(width, 1, 4, 1, 0, bias=False)
        self.classes: ClassHead = class_head(head, width, classes)
        initialise(self, "normal")

    def forward(
        self, x: Float[Tensor, "batch channels height width"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"] | Verdict:
        """Return logits, from an auxiliary head beside those of the classes."""
        h = self.layers(x)
        with torch.autocast(x.device.type, enabled=False):
            h = precise(h)
            verdict: Tensor | Verdict = self.classes(self.head(h).flatten(), h.sum(dim=(2, 3)), c)
        return verdict


def build(model: ModelConfig, image: ImageShape, classes: int) -> Networks:
    """Return the DCGAN pair for a power-of-two resolution of at least 8 px."""
    head = head_kind(model, "projection", ["projection", "auxiliary"])
    return Networks(
        DcganGenerator(image, model.latent_dim, model.dcgan.generator_channels, classes),
        DcganDiscriminator(image, model.dcgan.discriminator_channels, classes, head),
    )
