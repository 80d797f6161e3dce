"""Equalized learning rate: weights are kept at N(0, 1) and scaled when they are used (Karras et al. 2018, section 4.1).

An optimizer like Adam moves every weight by about its learning rate. Scaled at run time by He's constant, all layers
then learn equally fast relative to the size of their weights.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

LRELU_SLOPE, LRELU_GAIN = 0.2, math.sqrt(2)


def lrelu(x: Float[Tensor, "*shape"], gain: float = LRELU_GAIN) -> Float[Tensor, "*shape"]:
    """Return leaky ReLU of ``x`` times a gain that keeps the second moment of normal numbers at about one."""
    return F.leaky_relu(x, LRELU_SLOPE) * gain


class EqualizedLinear(nn.Module):
    """A linear layer whose weight is used as w c with c = ``lr_multiplier`` / sqrt(inputs).

    The stored weights are drawn from N(0, 1 / ``lr_multiplier``^2), so that w c begins with variance 1 / inputs
    whatever the multiplier is; a multiplier below one makes the layer learn that much slower (Karras et al. 2019,
    appendix C: 0.01 in the mapping network).

    Args:
        inputs: features that go in.
        outputs: features that come out.
        bias: what the bias begins at; None for no bias.
        lr_multiplier: how fast the layer learns, relative to others.

    """

    def __init__(self, inputs: int, outputs: int, bias: float | None = 0.0, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = None if bias is None else nn.Parameter(torch.full((outputs,), bias / lr_multiplier))
        self.scale, self.lr_multiplier = lr_multiplier / math.sqrt(inputs), lr_multiplier

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Return the layer's features of ``x``."""
        return F.linear(x, self.weight * self.scale, None if self.bias is None else self.bias * self.lr_multiplier)


class EqualizedConv2d(nn.Module):
    """A convolution whose weight is used as w / sqrt(fan in); it keeps height and width if not told otherwise.

    Args:
        inputs: channels that go in.
        outputs: channels that come out.
        kernel: height and width of the kernel, odd.
        bias: whether there is one; it begins at zero.
        stride: pixels from one place of the kernel to the next.
        padding: zeros around the images; half a kernel when left out.

    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, bias: bool = True, stride: int = 1, padding: int | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale, self.stride = 1 / math.sqrt(inputs * kernel**2), stride
        self.padding = kernel // 2 if padding is None else padding

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs rows columns"]:
        """Return the layer's features of ``x``."""
        return F.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)


class EqualizedEmbedding(nn.Module):
    """The equalized linear layer of one-hot classes, without making these vectors.

    Args:
        classes: how many there are.
        outputs: features that come out.

    """

    def __init__(self, classes: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = 1 / math.sqrt(classes)

    def forward(self, c: Int[Tensor, " batch"]) -> Float[Tensor, "batch outputs"]:
        """Return the features of classes."""
        return F.embedding(c, self.weight) * self.scale + self.bias
