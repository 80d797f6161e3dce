"""What a checkpoint is measured with: features of real and of made images, and the distance between the two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from curves.frechet import Moments, distance, moments
from gandist.config import DataConfig
from gandist.data.images import open_images
from gandist.evaluation.sample import load_generator, to_uint8
from gandist.runtime import rng

PASS_IMAGES = 500


@dataclass(frozen=True)
class Judge:
    """Says how far a generator's images are from real ones.

    Attributes:
        features: of bytes (batch, channels, height, width) on ``device``.
        reference: moments of the real images' features.
        samples: images that are drawn from a generator.
        device: where all of it is computed.

    """

    features: Callable[[Tensor], Tensor]
    reference: Moments
    samples: int
    device: torch.device

    @torch.no_grad()
    def distance(self, weights: Path) -> float:
        """Return the distance of the generator in a file; latents and classes are the same for every file."""
        return distance(self.reference, moments(self.features(x) for x in made(weights, self.samples, self.device)))


@torch.no_grad()
def made(weights: Path, images: int, device: torch.device, stream: str = "judge") -> Iterator[Tensor]:
    """Yield bytes (batch, channels, height, width) drawn by the generator in a file, classes in turn."""
    generator, card = load_generator(weights)
    generator.to(device)
    z = torch.randn(images, card.model.latent_dim, generator=rng.generator(0, "learning", stream))
    c = torch.arange(images) % max(1, len(card.class_names))
    for some_z, some_c in zip(z.split(PASS_IMAGES), c.split(PASS_IMAGES), strict=True):
        yield to_uint8(generator(some_z.to(device), some_c.to(device) if card.model.conditional else None))


def real(data: DataConfig, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield bytes and classes of every image of a set, once."""
    images = open_images(data, seed=0)
    assert images.samples is not None
    for start in range(0, images.samples, PASS_IMAGES):
        x, c = images.read(np.arange(start, min(start + PASS_IMAGES, images.samples)))
        yield torch.from_numpy(x).permute(0, 3, 1, 2).to(device), torch.from_numpy(c)


@torch.no_grad()
def real_moments(features: Callable[[Tensor], Tensor], data: DataConfig, device: torch.device) -> Moments:
    """Return the moments of the features of every image of a set."""
    return moments(features(x) for x, _ in real(data, device))
