"""Self-attention over the places of an image (Zhang et al. 2019, section 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gandist.models.layers import spectral_norm


class SelfAttention(nn.Module):
    """Adds to each place what it finds at all places: y = gamma o + x, and gamma begins at 0 (equations 1-3).

    Queries g(x) meet keys f(x) of C/8 channels; values h(x) have C/2. Keys and values are max-pooled by two, which
    makes the map of attention four times smaller (Brock et al. 2019). Plain matrix products: they have second
    derivatives.

    Args:
        channels: of the features, C, at least 8.
        spectral: whether the four 1x1 convolutions are spectrally normalised.

    """

    def __init__(self, channels: int, *, spectral: bool = True) -> None:
        super().__init__()
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        self.queries, self.keys = _convolution(channels, narrow, spectral), _convolution(channels, narrow, spectral)
        self.values, self.out = _convolution(channels, half, spectral), _convolution(half, channels, spectral)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return features of the same shape; height and width must be even."""
        g = self.queries(x).flatten(2)  # (batch, C/8, places)
        f, h = (F.max_pool2d(layer(x), 2).flatten(2) for layer in (self.keys, self.values))
        beta = torch.softmax(g.transpose(1, 2) @ f, dim=-1)  # (batch, places, places / 4)
        found: Tensor = self.out((h @ beta.transpose(1, 2)).unflatten(2, x.shape[2:]))
        return self.gamma * found + x


def _convolution(inputs: int, outputs: int, spectral: bool) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 1, bias=False)
    return spectral_norm(layer) if spectral else layer
