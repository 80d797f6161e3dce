"""What every architecture is to the rest of gandist: two modules, their shapes, and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class ImageShape:
    """Square images: ``channels`` x ``resolution`` x ``resolution``; a plain vector is an image of 1 px."""

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


class StyleGenerator(Generator):
    """A generator in two parts: z is mapped to styles w, one for each layer, and images are made from them."""

    @abstractmethod
    def styles(
        self, z: Float[Tensor, "batch latent"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch layers style"]:
        """Return the styles w of z and c for every layer, unmixed and not truncated."""

    @abstractmethod
    def synthesize(self, w: Float[Tensor, "batch layers style"]) -> Float[Tensor, "batch channels height width"]:
        """Return the images of styles."""

    @abstractmethod
    def forward(
        self, z: Float[Tensor, "batch latent"], c: Int[Tensor, " batch"] | None, *, with_styles: bool = False
    ) -> Any:
        """Return images; ``with_styles`` the pair of images and the styles that they were made from, in its graph."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the forward pass, hooks included."""
        return nn.Module.__call__(self, *args, **kwargs)


class AnyResolution(ABC):
    """A generator, beside its other bases, whose images can have another resolution than those it was trained on."""

    @abstractmethod
    def draw_at(self, resolution: int) -> None:
        """Give the images that follow this height and width."""


class Verdict(NamedTuple):
    """What a discriminator with an auxiliary classifier says of images.

    Attributes:
        logits: positive leans to real, (batch,).
        classes: logits of the classes, (batch, classes).

    """

    logits: Tensor
    classes: Tensor | None


class Discriminator(nn.Module, ABC):
    """Maps images to one real number each: positive leans to real."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "batch channels height width"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"] | Verdict:
        """Return logits, of shape (batch,) and never (batch, 1), for images in [-1, 1] and their classes.

        A discriminator with an auxiliary classifier returns a :class:`Verdict`.
        """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the forward pass, hooks included."""
        return super().__call__(*args, **kwargs)


class Growing(ABC):
    """A network, beside its other bases, whose shape follows the images seen; it grows in place.

    All its parameters are there from the start, and each of them takes part in every forward pass, if only with the
    factor zero, so that gradients of all of them are reduced over ranks.
    """

    @abstractmethod
    def follow(self, images_seen: int) -> None:
        """Take the shape that the network has after so many images; a pure function of that number."""

    @abstractmethod
    def stage(self, images_seen: int) -> int:
        """Return the number of the stage then; optimizers forget their moments when it changes."""


def follow(network: nn.Module, images_seen: int) -> None:
    """Let a network that grows take its shape after so many images; others stay as they are."""
    if isinstance(network, Growing):
        network.follow(images_seen)


@dataclass(frozen=True)
class Networks:
    """The two players' networks, freshly initialised."""

    generator: Generator
    discriminator: Discriminator
