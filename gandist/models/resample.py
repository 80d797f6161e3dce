"""Resampling with a low-pass filter, which keeps aliases out (Zhang 2019; Karras et al. 2020, appendix B).

Plain depthwise convolutions in the number format of the images: they have second derivatives, keep the memory order,
and a compiler can take them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

BINOMIAL_4 = (1.0, 3.0, 3.0, 1.0)
"""The filter of StyleGAN2."""
BINOMIAL_3 = (1.0, 2.0, 1.0)
"""The bilinear filter."""


def blur_downsample(
    x: Float[Tensor, "batch channels height width"], taps: Float[Tensor, " taps"]
) -> Float[Tensor, "batch channels height//2 width//2"]:
    """Return ``x`` filtered by the outer product of ``taps`` with itself, and of that every second pixel.

    ``taps`` are normalised to sum one, so that a constant image stays as it is; beyond its border an image is zero.
    Four taps are centred between the two pixels that become one, three taps on the first of them.
    """
    kernel, padding = _kernel(x, taps), (len(taps) - 1) // 2
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x, kernel, stride=2, padding=padding, groups=x.shape[1])


def blur_upsample(
    x: Float[Tensor, "batch channels height width"], taps: Float[Tensor, " taps"]
) -> Float[Tensor, "batch channels 2*height 2*width"]:
    """Return ``x`` with zeros between its pixels, filtered so that a constant image stays as it is.

    Four times the transpose of :func:`blur_downsample`, so the two shift nothing against each other.
    """
    kernel, padding = 4 * _kernel(x, taps), (len(taps) - 1) // 2
    with torch.autocast(x.device.type, enabled=False):
        return F.conv_transpose2d(x, kernel, stride=2, padding=padding, output_padding=len(taps) % 2, groups=x.shape[1])


def blur(
    x: Float[Tensor, "batch channels height width"], taps: Float[Tensor, " taps"], padding: int, gain: float = 1.0
) -> Float[Tensor, "batch channels more_height more_width"]:
    """Return ``x`` filtered at its own resolution, with a border of ``padding`` zeros, which len(taps) - 1 take away.

    Together with a convolution of stride two this is a filtered halving, behind a transposed one a filtered doubling
    with ``gain`` 4; both cost a fourth of the convolution at the finer resolution.
    """
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x, gain * _kernel(x, taps), padding=padding, groups=x.shape[1])


def _kernel(x: Tensor, taps: Tensor) -> Tensor:
    normalised = (taps / taps.sum()).to(x.dtype)
    return torch.outer(normalised, normalised).expand(x.shape[1], 1, -1, -1)


class _Blur(nn.Module):
    """Holds the taps where the network is; they belong to no checkpoint."""

    taps: Tensor

    def __init__(self, taps: Sequence[float] = BINOMIAL_4) -> None:
        super().__init__()
        self.register_buffer("taps", torch.tensor(taps, dtype=torch.float32), persistent=False)


class BlurDownsample(_Blur):
    """Halves height and width by :func:`blur_downsample`."""

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height//2 width//2"]:
        """Return ``x`` at half its height and width."""
        return blur_downsample(x, self.taps)


class BlurUpsample(_Blur):
    """Doubles height and width by :func:`blur_upsample`."""

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels 2*height 2*width"]:
        """Return ``x`` at twice its height and width."""
        return blur_upsample(x, self.taps)
