"""DiffAugment (Zhao et al. 2020, section 3.2 and appendix A): strong transforms that are always on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gandist.adversarial.augment.geometry import take
from gandist.adversarial.augment.interface import Augment, Images
from gandist.models.noise import Noise


def colour(x: Images, noise: Noise) -> Images:
    """Change brightness by [-1/2, 1/2), then saturation by a factor in [0, 2), then contrast by one in [1/2, 3/2).

    Saturation stretches the distance of a pixel's channels from their mean, contrast that of all pixels from theirs.
    """
    brightness, saturation, contrast = (
        noise.uniform(3).to(x.device, x.dtype, non_blocking=True)[..., None, None, None].unbind(1)
    )
    x = x + (brightness - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = grey + 2 * saturation * (x - grey)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (contrast + 0.5) * (x - mean)


def translation(x: Images, noise: Noise) -> Images:
    """Shift by up to 1/8 of the size in each direction, in whole pixels; what comes in is 0."""
    row, column = _grid(x)
    reach = [int(size / 8 + 0.5) for size in x.shape[2:]]
    down, right = (noise.integers(2 * r + 1).to(x.device, non_blocking=True)[:, None, None] - r for r in reach)
    row, column = torch.broadcast_tensors(row - down, column - right)
    height, width = x.shape[2:]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    moved: Tensor = take(x, row.clamp(0, height - 1), column.clamp(0, width - 1)) * inside[:, None]
    return moved


def cutout(x: Images, noise: Noise) -> Images:
    """Set a square of half the size to 0; its middle is any pixel, so it may reach over the border (DeVries 2017)."""
    within = []
    for position, size in zip(_grid(x), x.shape[2:], strict=True):
        side = int(size / 2 + 0.5)
        places = size + 1 - side % 2  # an even square has its middle between pixels: one place more
        first = noise.integers(places).to(x.device, non_blocking=True)[:, None, None] - side // 2
        within.append((position >= first) & (position < first + side))
    in_rows, in_columns = within
    return x * ~(in_rows & in_columns)[:, None]


POLICIES: dict[str, Callable[[Images, Noise], Images]] = {
    "colour": colour,
    "translation": translation,
    "cutout": cutout,
}
"""The transforms that a policy is made of, by name."""


class DiffAugment(Augment):
    """Applies some of :data:`POLICIES` to every image, in the order given."""

    def __init__(self, names: Sequence[str]) -> None:
        self.transforms = [POLICIES[name] for name in names]

    def __call__(self, x: Images, noise: Noise, images_seen: int) -> Images:  # noqa: ARG002 (always as strong)
        """Return the images transformed."""
        for transform in self.transforms:
            x = transform(x, noise)
        return x


def _grid(x: Images) -> tuple[Tensor, Tensor]:
    """Return the numbers of rows and of columns, shaped to be compared with positions of shape (batch, 1, 1)."""
    height, width = x.shape[2:]
    return torch.arange(height, device=x.device)[:, None], torch.arange(width, device=x.device)
