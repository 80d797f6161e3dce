"""Modulated layers: the style w says how loud each input feature is (Karras et al. 2020, section 2.2, equations 1-3).

The paper scales the weights, w'_ijk = s_i w_ijk (equation 1), and so has other weights for each image of a batch. The
same numbers come of scaling the input features by s_i before one convolution for all images, and the output features
by 1 / sigma_j behind it; so no grouped convolution is needed. Symbols: i counts input features, j output features, k
the places of the kernel.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gandist.models.equalized import EqualizedLinear
from gandist.models.resample import BINOMIAL_4, blur

EPSILON = 1e-8


def demodulation(
    weight: Float[Tensor, "outputs inputs *kernel"], s: Float[Tensor, "batch inputs"]
) -> Float[Tensor, "batch outputs"]:
    """Return 1 / sqrt(sum_ik (s_i w_ijk)^2 + epsilon), equation 3: it makes output features of unit variance.

    That is what they would have if inputs were independent and of unit variance; no actual statistics are taken.
    """
    with torch.autocast(weight.device.type, enabled=False):
        energy = weight.square().flatten(2).sum(dim=2) if weight.ndim > 2 else weight.square()
        return torch.rsqrt(s.to(weight.dtype).square() @ energy.T + EPSILON)


class ModulatedConv2d(nn.Module):
    """A convolution without bias whose input features are scaled by an affine function of the style.

    Args:
        inputs: channels that go in.
        outputs: channels that come out.
        kernel: height and width of the kernel, odd; 3 where it doubles.
        style_dim: length of the style.
        demodulate: whether output features are brought back to unit variance (equation 3).
        up: doubles height and width, as a transposed convolution and a blur.

    """

    taps: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel: int, style_dim: int, *, demodulate: bool = True, up: bool = False
    ) -> None:
        super().__init__()
        assert kernel == 3 or not up
        self.affine = EqualizedLinear(style_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.scale, self.kernel = 1 / math.sqrt(inputs * kernel**2), kernel
        self.demodulate, self.up = demodulate, up
        if up:
            self.register_buffer("taps", torch.tensor(BINOMIAL_4, dtype=torch.float32), persistent=False)

    def forward(
        self, x: Float[Tensor, "batch inputs height width"], w: Float[Tensor, "batch style"]
    ) -> Float[Tensor, "batch outputs rows columns"]:
        """Return the features of ``x`` under the styles ``w``, one for each image."""
        s, weight = self.affine(w), self.weight * self.scale
        h = x * s[:, :, None, None].to(x.dtype)
        if self.up:
            h = F.conv_transpose2d(h, weight.transpose(0, 1), stride=2)
            h = blur(h, self.taps, padding=1, gain=4.0)
        else:
            h = F.conv2d(h, weight, padding=self.kernel // 2)
        if self.demodulate:
            h = h * demodulation(weight, s)[:, :, None, None].to(h.dtype)
        return h


class ModulatedLinear(nn.Module):
    """A linear layer without bias, the same at every position, modulated as :class:`ModulatedConv2d` is.

    Args:
        inputs: features that go in.
        outputs: features that come out.
        style_dim: length of the style.
        demodulate: whether output features are brought back to unit variance (equation 3).

    """

    def __init__(self, inputs: int, outputs: int, style_dim: int, *, demodulate: bool = True) -> None:
        super().__init__()
        self.affine = EqualizedLinear(style_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.scale, self.demodulate = 1 / math.sqrt(inputs), demodulate

    def forward(
        self, x: Float[Tensor, "batch positions inputs"], w: Float[Tensor, "batch style"]
    ) -> Float[Tensor, "batch positions outputs"]:
        """Return the features of ``x`` under the styles ``w``, one for each image."""
        s, weight = self.affine(w), self.weight * self.scale
        h = F.linear(x * s[:, None].to(x.dtype), weight)
        if self.demodulate:
            h = h * demodulation(weight, s)[:, None].to(h.dtype)
        return h
