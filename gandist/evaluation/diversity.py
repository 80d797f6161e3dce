"""How much a batch of fakes differs among itself, beside a batch of real images: numbers that show a collapse."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from gandist.models.contract import Generator

_SIDE = 16  # px at which images are compared: what they show, not their grain
_FAR = 10  # times the distance between real neighbours; only clusters that lie apart are so far from each other

Flat = Float[Tensor, "images numbers"]


def flatten(images: Float[Tensor, "images channels height width"]) -> Flat:
    """Return images as points whose distances can be compared: at most 16 px wide, and of the same unit at any size."""
    small: Tensor = F.adaptive_avg_pool2d(images.double(), min(images.shape[-1], _SIDE)).flatten(1)
    return small.div(small.shape[1] ** 0.5)


def nearest(points: Flat) -> Float[Tensor, " images"]:
    """Return the distance from each point to the nearest other one."""
    return _distances(points, points).fill_diagonal_(float("inf")).min(dim=1).values


def variety(points: Flat) -> Float[Tensor, ""]:
    """Return the mean distance of the points from their mean; 0 if all are the same."""
    distances: Tensor = torch.linalg.vector_norm(points - points.mean(dim=0), dim=1)
    return distances.mean()


def _distances(a: Flat, b: Flat) -> Tensor:
    # not by products of matrices, which would lose what near pairs differ by
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def diversity(
    fake: Float[Tensor, "images channels height width"], real: Float[Tensor, "images channels height width"]
) -> dict[str, float]:
    """Return how fakes differ from each other and from real images; the device is waited for once.

    Args:
        fake: at least two fakes.
        real: as many real images, since more of them would be nearer to each other.

    Returns:
        ``pair_fake`` and ``pair_real``: mean distance to the nearest other image of the batch, low where G repeats
        itself. ``variety_fake`` and ``variety_real``: mean distance from the batch's mean image, low where all images
        are alike. Both in the unit of the images' numbers. ``missed``: share of the real images that are more than ten
        times as far from every fake as real neighbours are from each other. ``stray``: the same share of fakes, from
        every real image.

    """
    fakes, reals = flatten(fake), flatten(real)
    neighbours, between = nearest(reals), _distances(reals, fakes)
    far = _FAR * neighbours.median()
    measured = {
        "pair_fake": nearest(fakes).mean(),
        "pair_real": neighbours.mean(),
        "variety_fake": variety(fakes),
        "variety_real": variety(reals),
        "missed": (between.min(dim=1).values > far).double().mean(),
        "stray": (between.min(dim=0).values > far).double().mean(),
    }
    return dict(zip(measured, torch.stack(list(measured.values())).tolist(), strict=True))


@torch.no_grad()
def look(
    generator: Generator,
    z: Float[Tensor, "latents latent"],
    c: Int[Tensor, " latents"],
    real: Float[Tensor, "reals channels height width"],
) -> dict[str, float]:
    """Return the diversity of fakes from fixed latents beside as many real images, as columns of the metrics.

    Args:
        generator: in evaluation mode, in which it draws nothing, so that no stream of random numbers is disturbed.
        z: fixed latents.
        c: their classes, which an unconditional generator does not look at.
        real: real images, as D sees them.

    """
    count = min(len(z), len(real))
    if count < 2:
        return {}
    fake = generator(z[:count], c[:count]).float()
    once = real[:count, : fake.shape[1]]  # where D sees stages of images, a real one is repeated
    return {f"health/{name}": value for name, value in diversity(fake, once).items()}
