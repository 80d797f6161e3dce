"""Progressive growing (Karras et al. 2018): both networks begin at 4 px, and get a new resolution now and then.

A resolution joins by being faded in: while images are seen, its share alpha in what the networks do rises from 0 to 1
(figure 2). The level k + alpha of a network follows from the number of images seen alone, so a run that is continued,
on any number of ranks, goes on growing where it was. All layers are there from the start. Those that have not joined,
or have been replaced, take part with the factor zero: their gradients are zero and their weights stay as they are.

What the networks see of images, with s(x) = x averaged over squares of 2x2 pixels and doubled again:

- G always returns images of the full resolution, their pixels repeated. D first averages images to its resolution.
- While a resolution fades in, the paper shows D real images (1 - alpha) s(x) + alpha x, and fakes
  (1 - alpha) b + alpha a, where a is G's image at the new resolution and b that at the one before, doubled. Here D
  itself takes (1 - alpha) s(x) + alpha x of every x, for it is not told which are real. So that fakes are not faded
  twice, G in training returns a + (1 - alpha) (b - s(a)): of this, D makes the paper's mixture, exactly. In
  evaluation G returns the mixture itself.
- Penalties, augmentations and noise act on images of the full resolution, before D does this to them. The slope of D
  there has 1/f of the norm that it has at D's own resolution, f times lower: a target of 1 (WGAN-GP) is a slope of f
  between the images that D sees, and R1 is f^2 times weaker than gamma says until the last resolution has joined.

A resolution of r px has min(``channel_base`` / r, ``channel_max``) feature maps: table 2 with 16384 and 512.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gandist.config import ModelConfig, ProgressiveConfig
from gandist.models.contract import Discriminator, Generator, Growing, ImageShape, Networks, Verdict
from gandist.models.equalized import EqualizedConv2d, EqualizedLinear, lrelu
from gandist.models.heads import Auxiliary, ClassHead, HeadKind, NoHead, Projection, head_kind
from gandist.models.layers import power_of_two_stages, precise
from gandist.models.minibatch import MinibatchStd

# --- growing ---------------------------------------------------------------------------------------------------------


def level_at(images_seen: int, knobs: ProgressiveConfig, last: int) -> float:
    """Return how many resolutions beyond 4 px have joined after so many images; the fraction is alpha.

    A resolution is trained for ``stable_kimg``, then the next one fades in over ``fade_kimg``, until the ``last``.
    """
    stable, fade = 1000 * knobs.stable_kimg, 1000 * knobs.fade_kimg
    joined, within = divmod(images_seen, stable + fade)
    return min(joined + max(0.0, within - stable) / fade, float(last))


class Grown(nn.Module, Growing):
    """A network whose level follows the images seen.

    Attributes:
        top: the number of the highest resolution that takes part, 4 px times two to this power.
        fading: whether it is being faded in, by the share ``alpha``.

    """

    alpha: Tensor

    def __init__(self, knobs: ProgressiveConfig, last: int) -> None:
        super().__init__()
        self.knobs, self.last = knobs, last
        # a tensor, so that a compiled network is not compiled again for each value; it follows from the images seen
        self.register_buffer("alpha", torch.ones(()), persistent=False)
        self.follow(0)

    def follow(self, images_seen: int) -> None:
        """Take the level that the network has after so many images."""
        level = level_at(images_seen, self.knobs, self.last)
        self.top = math.ceil(level)
        self.fading = level < self.top
        self.alpha.fill_(1 - (self.top - level))

    def stage(self, images_seen: int) -> int:
        """Return the number of the highest resolution that takes part then."""
        return math.ceil(level_at(images_seen, self.knobs, self.last))

    def at_rest(self, *layers: Iterable[nn.Module]) -> Tensor:
        """Return zero, computed from all weights of layers that have not joined or have been replaced."""
        resting = [parameter.sum() for group in layers for layer in group for parameter in layer.parameters()]
        return 0.0 * torch.stack(resting).sum() if resting else self.alpha.new_zeros(())


def halve(x: Tensor) -> Tensor:
    """Return ``x`` averaged over squares of 2x2 pixels."""
    return F.avg_pool2d(x, 2)


def double(x: Tensor) -> Tensor:
    """Return ``x`` with each pixel repeated in a square of 2x2."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def pixel_norm(x: Float[Tensor, "batch features *place"]) -> Float[Tensor, "batch features *place"]:
    """Return ``x`` with the features of each place scaled to a mean square of one (section 4.2)."""
    return (x * (precise(x).square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()).to(x.dtype)


def channels_at(knobs: ProgressiveConfig, last: int) -> list[int]:
    """Return the feature maps of each resolution, from 4 px on."""
    return [max(1, min(knobs.channel_base // (4 << k), knobs.channel_max)) for k in range(last + 1)]


# --- the networks ----------------------------------------------------------------------------------------------------


class UpBlock(nn.Module):
    """Upsampling and two 3x3 convolutions, each with leaky ReLU and pixel norm behind it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = EqualizedConv2d(inputs, outputs, 3), EqualizedConv2d(outputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of twice the height and width."""
        h = pixel_norm(lrelu(self.conv1(double(x))))
        return pixel_norm(lrelu(self.conv2(h)))


class DownBlock(nn.Module):
    """Two 3x3 convolutions with leaky ReLU, and downsampling."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = EqualizedConv2d(inputs, inputs, 3), EqualizedConv2d(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of half the height and width."""
        return halve(lrelu(self.conv2(lrelu(self.conv1(x)))))


class ProgressiveGenerator(Grown, Generator):
    """Table 2, left; ``blocks[k - 1]`` makes resolution k, ``to_image[k]`` its image. A class is embedded beside z."""

    def __init__(self, image: ImageShape, latent_dim: int, knobs: ProgressiveConfig, classes: int) -> None:
        last = power_of_two_stages("progressive", image.resolution, smallest=8)
        super().__init__(knobs, last)
        widths = channels_at(knobs, last)
        self.embedding = nn.Embedding(classes, latent_dim) if classes else None
        self.start = EqualizedLinear(latent_dim * (2 if classes else 1), widths[0] * 16, bias=None)
        self.start_bias = nn.Parameter(torch.zeros(widths[0], 1, 1))  # one for each feature map, as of a convolution
        self.conv = EqualizedConv2d(widths[0], widths[0], 3)
        self.blocks = nn.ModuleList(UpBlock(widths[k], widths[k + 1]) for k in range(last))
        self.to_image = nn.ModuleList(EqualizedConv2d(width, image.channels, 1) for width in widths)

    def forward(
        self, z: Float[Tensor, "batch latent"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch channels height width"]:
        """Return images about in [-1, 1], which nothing bounds, made at the resolution of now and repeated."""
        told = pixel_norm(z)
        if self.embedding is not None:
            told = torch.cat([told, pixel_norm(self.embedding(c))], dim=1)
        h = pixel_norm(lrelu(self.start(told).unflatten(1, (-1, 4, 4)) + self.start_bias))
        h = pixel_norm(lrelu(self.conv(h)))
        below = h
        for block in self.blocks[: self.top]:
            below, h = h, block(h)
        images: Tensor = precise(self.to_image[self.top](h))
        first = self.top  # the lowest resolution whose image is made
        if self.fading:
            first -= 1
            before = double(precise(self.to_image[first](below)))
            # see the page's head: in training D does the rest
            faded = double(halve(images)) if self.training else images
            images = images + (1 - self.alpha) * (before - faded)
        idle = self.at_rest(self.blocks[self.top :], self.to_image[:first], self.to_image[self.top + 1 :])
        scale = 1 << (self.last - self.top)
        return F.interpolate(images + idle, scale_factor=scale, mode="nearest") if scale > 1 else images + idle


class ProgressiveDiscriminator(Grown, Discriminator):
    """Table 2, right: the mirror of G, with minibatch standard deviation at 4 px, and a head on the last features."""

    def __init__(self, image: ImageShape, knobs: ProgressiveConfig, classes: int, head: HeadKind) -> None:
        last = power_of_two_stages("progressive", image.resolution, smallest=8)
        super().__init__(knobs, last)
        widths = channels_at(knobs, last)
        self.from_image = nn.ModuleList(EqualizedConv2d(image.channels, width, 1) for width in widths)
        self.blocks = nn.ModuleList(DownBlock(widths[k + 1], widths[k]) for k in range(last))
        self.deviation = MinibatchStd(knobs.minibatch_group)
        self.conv = EqualizedConv2d(widths[0] + 1, widths[0], 3)
        self.last_features = EqualizedLinear(widths[0] * 16, widths[0])
        self.head = EqualizedLinear(widths[0], 1)
        self.classes: ClassHead = NoHead()
        if classes and head == "projection":
            self.classes = Projection(nn.Embedding(classes, widths[0]), scale=1 / math.sqrt(widths[0]))
        elif classes:
            self.classes = Auxiliary(EqualizedLinear(widths[0], classes))

    def forward(
        self, x: Float[Tensor, "batch channels height width"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"] | Verdict:
        """Return logits, from an auxiliary head beside those of the classes."""
        x, first = F.avg_pool2d(x, 1 << (self.last - self.top)), self.top
        if self.fading:
            x = torch.lerp(double(halve(x)), x, self.alpha.to(x.dtype))
        h = lrelu(self.from_image[self.top](x))
        for k in reversed(range(self.top)):
            h = self.blocks[k](h)
            if self.fading and k == self.top - 1:
                first -= 1
                before = lrelu(self.from_image[first](halve(x)))
                h = torch.lerp(before, h, self.alpha.to(h.dtype))
        idle = self.at_rest(self.blocks[self.top :], self.from_image[:first], self.from_image[self.top + 1 :])
        h = lrelu(self.conv(self.deviation(h)))
        with torch.autocast(x.device.type, enabled=False):
            features = lrelu(self.last_features(precise(h).flatten(1)))
            verdict: Tensor | Verdict = self.classes(self.head(features).squeeze(1) + idle, features, c)
        return verdict


def build(model: ModelConfig, image: ImageShape, classes: int) -> Networks:
    """Return the progressively growing pair for a power-of-two resolution of at least 8 px."""
    head = head_kind(model, "projection", ["projection", "auxiliary"])
    return Networks(
        ProgressiveGenerator(image, model.latent_dim, model.progressive, classes),
        ProgressiveDiscriminator(image, model.progressive, classes, head),
    )
