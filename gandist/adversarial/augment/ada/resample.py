"""Images under maps that blend pixels, without aliasing (Karras et al. 2020a, appendix B, general transformations)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gandist.adversarial.augment.ada.wavelets import DELAY, downsampling, fine_samples, upsampling
from gandist.adversarial.augment.geometry import Images, Maps, fold, places, take


class Resampler:
    """Doubles an image, samples it bilinearly where a map says, and halves the result, with the wavelet sym6.

    Doubling and halving undo each other, so the identity and whole shifts return pixels as they were. All three
    steps are linear in the image and have derivatives of every order: matrix products and sums of gathered pixels.

    Args:
        size: height and width of the images.
        device: where they are.
        dtype: their number format.

    """

    def __init__(self, size: int, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.size = size
        self.up = upsampling(size).to(device, dtype)
        self.down = downsampling(size).to(device, dtype)
        # fine sample n shows what lies at pixel (n - DELAY) / 2
        self.grid = ((torch.arange(fine_samples(size)) - DELAY) / 2 - (size - 1) / 2).to(device, dtype)

    def __call__(self, x: Images, inverse: Maps) -> Images:
        """Return ``x`` under maps that are given as their inverses, reflected where they look beyond its borders."""
        fine = self.up @ x @ self.up.mT
        column, row = places(inverse, self.grid, self.grid)
        return self.down @ bilinear(fine, self._sample(row), self._sample(column)) @ self.down.mT

    def _sample(self, position: Tensor) -> Tensor:
        """Return the fine sample that shows a position.

        The doubled image reaches a little beyond the borders, as the identity needs; what lies farther out is looked
        up inside.
        """
        pixel = position + (self.size - 1) / 2
        sample = 2 * pixel + DELAY
        beyond = (sample < 0) | (sample > fine_samples(self.size) - 1)
        return torch.where(beyond, 2 * fold(pixel, self.size) + DELAY, sample)


def bilinear(
    x: Images, row: Float[Tensor, "batch rows columns"], column: Float[Tensor, "batch rows columns"]
) -> Images:
    """Return the images between their pixels, at positions counted from the first row and column.

    Torch's own ``grid_sample`` has no second derivative in some versions, and sums its gradient in any order on GPUs.
    """
    height, width = x.shape[2:]
    top, left = row.floor().clamp(0, height - 2), column.floor().clamp(0, width - 2)
    down, right = (row - top)[:, None], (column - left)[:, None]
    i, j = top.long(), left.long()
    above = take(x, i, j) * (1 - right) + take(x, i, j + 1) * right
    below = take(x, i + 1, j) * (1 - right) + take(x, i + 1, j + 1) * right
    return above * (1 - down) + below * down
