"""From latents to styles: a mapping network, and mixing of two styles (Karras et al. 2019, sections 2 and 3.1)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gandist.models.contract import StyleGenerator
from gandist.models.equalized import EqualizedEmbedding, EqualizedLinear, lrelu
from gandist.models.noise import RandomLayer


def unit_second_moment(x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
    """Return x / sqrt(mean of x^2 + 1e-8), row by row."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class Mapping(nn.Module):
    """The network f: Z -> W (Karras et al. 2019, figure 1b), by class as Karras et al. 2020a (ADA) have it.

    z and the embedded class are each brought to second moment one and laid side by side; then come linear layers that
    learn ``lr_multiplier`` times as fast as others. Computed in fp32 whatever the format of the pass: it is small, and
    every layer of G hangs on it.

    Args:
        latent_dim: length of z; 0 for a mapping of classes alone.
        classes: number of classes, 0 for none.
        width: length of w, and of the embedding.
        depth: linear layers.
        lr_multiplier: how fast these learn.

    """

    def __init__(self, latent_dim: int, classes: int, width: int, depth: int, lr_multiplier: float) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.embedding = EqualizedEmbedding(classes, width) if classes else None
        inputs = [latent_dim + (width if classes else 0), *[width] * (depth - 1)]
        self.layers = nn.ModuleList(EqualizedLinear(n, width, lr_multiplier=lr_multiplier) for n in inputs)

    def forward(
        self, z: Float[Tensor, "batch latent"] | None, c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch style"]:
        """Return the style w of each latent and class."""
        parts = [] if z is None else [z]
        device = self.layers[0].weight.device
        with torch.autocast(device.type, enabled=False):  # type: ignore[arg-type]
            if self.embedding is not None:
                parts.append(self.embedding(c))
            w = torch.cat([unit_second_moment(part) for part in parts], dim=1)
            for layer in self.layers:
                w = lrelu(layer(w))
        return w


class StyleMixing(RandomLayer):
    """Draws which images take the styles of a second latent from some layer on (Karras et al. 2019, section 3.1).

    So G cannot count on neighbouring layers having the same style, and each layer keeps to what it does itself.

    Args:
        probability: of an image to be mixed.
        layers: styles of an image; the crossover lies before any but the first.

    """

    def __init__(self, probability: float, layers: int) -> None:
        super().__init__()
        self.probability, self.layers = probability, layers

    def draw(self, latent_dim: int) -> tuple[Float[Tensor, "batch latent"], Bool[Tensor, "batch layers"]]:
        """Return second latents, and for each image and layer whether its style is theirs."""
        assert self.noise is not None, "a network in training mode needs its row noise: see seed_layers()"
        z = self.noise.normal(latent_dim)
        crossover = 1 + self.noise.integers(self.layers - 1, 1)
        mixed = self.noise.uniform(1) < self.probability
        return z, mixed & (torch.arange(self.layers) >= crossover)


class MappedGenerator(StyleGenerator):
    """A generator whose styles come from a mapping network, mixed in training.

    Args:
        mapping: z and c to w.
        layers: how many styles an image is made of.
        mixing_probability: share of the images that are mixed in training.

    """

    def __init__(self, mapping: Mapping, layers: int, mixing_probability: float) -> None:
        super().__init__()
        self.mapping, self.layers = mapping, layers
        self.mixing = StyleMixing(mixing_probability, layers)

    def styles(
        self, z: Float[Tensor, "batch latent"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch layers style"]:
        """Return the one style w of each latent, repeated for every layer."""
        w: Tensor = self.mapping(z, c)
        return w[:, None].expand(-1, self.layers, -1)

    @abstractmethod
    def synthesize(self, w: Float[Tensor, "batch layers style"]) -> Float[Tensor, "batch channels height width"]:
        """Return the images of styles."""

    def forward(
        self, z: Float[Tensor, "batch latent"], c: Int[Tensor, " batch"] | None, *, with_styles: bool = False
    ) -> Any:
        """Return images, about in [-1, 1] but without a bound; ``with_styles`` also the styles they were made from."""
        w = self.styles(z, c)
        if self.training and self.mixing.probability > 0:
            other, where = self.mixing.draw(z.shape[1])
            others = self.styles(other.to(z.device, z.dtype, non_blocking=True), c)
            w = torch.where(where.to(z.device, non_blocking=True)[:, :, None], others, w)
        x = self.synthesize(w)
        return (x, w) if with_styles else x


def truncated(
    w: Float[Tensor, "batch layers style"],
    mean: Float[Tensor, "batch layers style"],
    psi: float,
    cutoff: int | None = None,
) -> Float[Tensor, "batch layers style"]:
    """Return w' = mean + psi (w - mean) (Karras et al. 2019, appendix B), which trades variety for quality.

    Args:
        w: styles.
        mean: the average styles, those of each image's class where there are classes.
        psi: 1 leaves the styles as they are, 0 puts the mean in their place.
        cutoff: only the first so many layers are truncated; all when left out.

    """
    near = mean + psi * (w - mean)
    return near if cutoff is None else torch.cat([near[:, :cutoff], w[:, cutoff:]], dim=1)
