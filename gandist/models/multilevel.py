"""D sees every image at several levels of noise at once, so that it can teach all depths of G (GAT, 2026)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gandist.models.noise import RandomLayer


def noise_shares(levels: int) -> list[float]:
    """Return the share of noise t_i = 1 - 0.125^(1 - i / (levels - 1)) + 0.01 of each level, the heaviest first.

    With four levels: 0.885, 0.76, 0.51, 0.01. A single level has no noise.
    """
    if levels == 1:
        return [0.0]
    return [1 - 0.125 ** (1 - i / (levels - 1)) + 0.01 for i in range(levels)]


def noise_mixing(levels: int) -> Float[Tensor, "levels levels"]:
    """Return the matrix M that makes the noises of all levels from independent ones: n = M eps, each of variance one.

    The noise is built from the lightest level to the heaviest: level i is what level i + 1 becomes when it is scaled
    by a = (1 - t_i) / (1 - t_{i+1}) and gets fresh noise. So the levels of an image are stages of one path from the
    image to noise, and their differences carry no independent copies of it.
    """
    t, mixing = noise_shares(levels), torch.zeros(levels, levels, dtype=torch.float64)
    mixing[-1, -1] = 1
    for i in range(levels - 2, -1, -1):
        kept = (1 - t[i]) / (1 - t[i + 1]) * t[i + 1]
        mixing[i] = mixing[i + 1] * kept / t[i]
        mixing[i, i] = math.sqrt(t[i] ** 2 - kept**2) / t[i]
    return mixing.float()


class MultiLevelNoise(RandomLayer):
    """Gives each of the images stacked on the channels its own level of noise: x_i becomes (1 - t_i) x_i + t_i n_i.

    Only in training. G stacks what it has drawn so far at each of its levels; a real image is the same at all levels.

    Args:
        levels: how many images are stacked.

    """

    mixing: Tensor
    shares: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.register_buffer("mixing", noise_mixing(levels), persistent=False)
        self.register_buffer("shares", torch.tensor(noise_shares(levels))[:, None, None, None], persistent=False)

    def forward(self, x: Float[Tensor, "batch stacked height width"]) -> Float[Tensor, "batch stacked height width"]:
        """Return the stacked images with their noise."""
        if not self.training or self.levels == 1:
            return x
        assert self.noise is not None, "a network in training mode needs its row noise: see seed_layers()"
        eps = self.noise.normal(self.levels, x.shape[1] // self.levels, *x.shape[2:])
        n = torch.einsum("ij,bjchw->bichw", self.mixing, eps.to(x.device, self.mixing.dtype, non_blocking=True))
        images = x.unflatten(1, (self.levels, -1))
        noisy: Tensor = (1 - self.shares) * images + self.shares * n
        return noisy.flatten(1, 2)
