"""The random transforms of ADA: how each is drawn, and what is no transform (Karras et al. 2020a, appendix B)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gandist.models.noise import Noise

Parameters = Mapping[str, Float[Tensor, "batch _"]]
"""The numbers of each transform for each image."""


@dataclass(frozen=True)
class Transform:
    """A transform with numbers for parameters.

    Attributes:
        identity: the numbers that leave an image as it is.
        draw: the numbers of the transform, one row for each image.
        each: whether every number has its own chance to be drawn, or all share one.
        twice: whether it is one of two that together shall happen with the probability p.

    """

    identity: tuple[float, ...]
    draw: Callable[[Noise], Tensor]
    each: bool = False
    twice: bool = False

    def threshold(self, noise: Noise) -> Float[Tensor, "batch _"]:
        """Draw, for each image, the probability from which on the transform happens to it.

        That is a uniform number u; and for one of two, which happen each with the probability 1 - sqrt(1 - p), what
        that makes of it: 1 - (1 - u)^2.
        """
        u = noise.uniform(len(self.identity) if self.each else 1)
        return 1 - (1 - u).square() if self.twice else u.expand(-1, len(self.identity))


def _uniform(low: float, high: float, count: int = 1) -> Callable[[Noise], Tensor]:
    return lambda noise: low + (high - low) * noise.uniform(count)


def _normal(sigma: float, count: int = 1) -> Callable[[Noise], Tensor]:
    return lambda noise: sigma * noise.normal(count)


def _log_normal(sigma: float, count: int = 1) -> Callable[[Noise], Tensor]:
    """Draw 2^s with s ~ N(0, sigma^2), the paper's Lognormal(0, (sigma ln 2)^2)."""
    return lambda noise: torch.exp2(sigma * noise.normal(count))


def _whole(below: int) -> Callable[[Noise], Tensor]:
    return lambda noise: noise.integers(below, 1).float()


TRANSFORMS: dict[str, Transform] = {
    # pixel blitting
    "xflip": Transform((0.0,), _whole(2)),
    "rotate90": Transform((0.0,), _whole(4)),
    "integer_translation": Transform((0.0, 0.0), _uniform(-0.125, 0.125, 2)),
    # general geometric transformations
    "isotropic_scaling": Transform((1.0,), _log_normal(0.2)),
    "rotation_before": Transform((0.0,), _uniform(-math.pi, math.pi), twice=True),
    "anisotropic_scaling": Transform((1.0,), _log_normal(0.2)),
    "rotation_after": Transform((0.0,), _uniform(-math.pi, math.pi), twice=True),
    "fractional_translation": Transform((0.0, 0.0), _normal(0.125, 2)),
    # colour transformations
    "brightness": Transform((0.0,), _normal(0.2)),
    "contrast": Transform((1.0,), _log_normal(0.5)),
    "luma_flip": Transform((0.0,), _whole(2)),
    "hue": Transform((0.0,), _uniform(-math.pi, math.pi)),
    "saturation": Transform((1.0,), _log_normal(1.0)),
    # image-space filtering: the gain of each band
    "filtering": Transform((1.0, 1.0, 1.0, 1.0), _log_normal(1.0, 4), each=True),
    # corruptions: the standard deviation of the noise; the square's middle and side
    "noise": Transform((0.0,), lambda noise: 0.1 * noise.normal(1).abs()),
    "cutout": Transform((0.5, 0.5, 0.0), lambda noise: torch.nn.functional.pad(noise.uniform(2), (0, 1), value=0.5)),
}
"""Every transform, in the order of application. Shifts and sides are shares of the image's size, angles radians."""


def draw_parameters(rates: Mapping[str, float], p: float | Tensor, noise: Noise, like: Tensor) -> Parameters:
    """Return numbers for some of the transforms, each of which happens with the probability ``p`` times its rate.

    All draws are made whatever ``p`` is, and travel to the device in one piece; only there it is asked whether they
    count, so that an adaptive ``p`` is never read.

    Args:
        rates: from the names of transforms to their rates, above 0.
        p: the probability; a number, or a scalar on the device.
        noise: the draws of the images' rows.
        like: a tensor on the device and in the number format that is wanted.

    """
    thresholds, values = [], []
    for name, rate in rates.items():
        transform = TRANSFORMS[name]
        thresholds.append(transform.threshold(noise) / rate)
        values.append(transform.draw(noise))
    value = torch.cat(values, dim=1)
    identity = torch.tensor([number for name in rates for number in TRANSFORMS[name].identity]).expand_as(value)
    drawn = torch.stack([torch.cat(thresholds, dim=1), value, identity]).to(like.device, like.dtype, non_blocking=True)
    chosen = torch.where(drawn[0] < p, drawn[1], drawn[2])
    sizes = [len(TRANSFORMS[name].identity) for name in rates]
    return dict(zip(rates, chosen.split(sizes, dim=1), strict=True))
