"""What every architecture is to the rest of gandist: two modules, their shapes, and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class ImageShape:
    """Square images: ``channels`` x ``resolution`` x ``resolution``."""

    resolution: int
    channels: int


class Generator(nn.Module, ABC):
    """Maps latents to images."""

    @abstractmethod
    def forward(
        self, z: Float[Tensor, "batch latent"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch channels height width"]:
        """Return images in [-1, 1] for latents z ~ N(0, I) and, in a conditional network, classes c."""

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run the forward pass, hooks included."""
        image: Tensor = super().__call__(*args, **kwargs)
        return image


class Discriminator(nn.Module, ABC):
    """Maps images to one real number each: positive leans to real."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "batch channels height width"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"]:
        """Return logits, of shape (batch,) and never (batch, 1), for images in [-1, 1] and their classes."""

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run the forward pass, hooks included."""
        logits: Tensor = super().__call__(*args, **kwargs)
        return logits


@dataclass(frozen=True)
class Networks:
    """The two players' networks, freshly initialised."""

    generator: Generator
    discriminator: Discriminator
