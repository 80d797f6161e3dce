"""Minibatch standard deviation (Karras et al. 2018, section 3): D sees how much the images of a group differ."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gandist.models.layers import precise


class MinibatchStd(nn.Module):
    """Appends to each image's features the standard deviation of features over the images of its group.

    A group is ``group`` neighbours in the global batch: rows 0 .. group - 1, and so on. As long as the rows at hand
    are a multiple of the group, which :func:`batch_group` lets the assembly check, the groups do not depend on the
    ranks and passes that share the batch.

    Args:
        group: images of a group (Karras et al. 2018 take the whole batch, StyleGAN2 4 images).
        channels: feature maps appended; each is the mean over its share of the features, which it must divide.

    """

    def __init__(self, group: int = 4, channels: int = 1) -> None:
        super().__init__()
        self.group, self.channels = group, channels

    def forward(self, x: Float[Tensor, "batch features height width"]) -> Float[Tensor, "batch more height width"]:
        """Return (batch, features + channels, height, width): ``x``, and behind it maps of one value each."""
        batch, _, height, width = x.shape
        assert batch % self.group == 0, f"{batch} images are not groups of {self.group}: see batch_group()"
        with torch.autocast(x.device.type, enabled=False):
            # (groups, images of one, channels, features of one channel, height, width)
            y = precise(x).reshape(-1, self.group, self.channels, x.shape[1] // self.channels, height, width)
            variance = (y - y.mean(dim=1, keepdim=True)).square().mean(dim=1)
            # the small number keeps the second derivative finite where all images agree
            deviation = (variance + 1e-8).sqrt().mean(dim=(2, 3, 4))  # (groups, channels)
        maps = deviation.to(x.dtype).repeat_interleave(self.group, dim=0)[:, :, None, None]
        return torch.cat([x, maps.expand(-1, -1, height, width)], dim=1)


def batch_group(network: nn.Module) -> int:
    """Return the number of images that the rows of each rank and pass must be a multiple of; 1 if any number does."""
    return math.lcm(*(module.group for module in network.modules() if isinstance(module, MinibatchStd)))
