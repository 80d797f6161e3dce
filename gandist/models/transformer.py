"""Parts of transformers over the patches of an image; all are twice differentiable, fused attention excepted."""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

AttentionKind = Literal["fused", "plain"]
M = TypeVar("M", bound=nn.Linear)


def rms_norm(x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
    """Return x / sqrt(mean of x^2), without learned scale (Zhang & Sennrich 2019); computed in fp32 at least."""
    h = x.to(torch.promote_types(x.dtype, torch.float32))
    return (h * torch.rsqrt(h.square().mean(dim=-1, keepdim=True) + 1e-6)).to(x.dtype)


def xavier(layer: M, gain: float = 1.0) -> M:
    """Return the layer with Xavier-uniform weights (Glorot & Bengio 2010) and zero bias."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


# --- patches and their places -----------------------------------------------------------------------------------


def to_patches(x: Float[Tensor, "batch channels height width"], side: int) -> Float[Tensor, "batch patches numbers"]:
    """Return the patches of ``side`` x ``side`` places, row by row."""
    batch, channels, height, width = x.shape
    cut = x.reshape(batch, channels, height // side, side, width // side, side)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * side**2)


def from_patches(
    patches: Float[Tensor, "batch patches numbers"], side: int
) -> Float[Tensor, "batch channels rows columns"]:
    """Return the square images whose patches these are."""
    batch, count, numbers = patches.shape
    rows, channels = math.isqrt(count), numbers // side**2
    cut = patches.reshape(batch, rows, rows, channels, side, side)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, rows * side, rows * side)


def angles(rows: int, frequencies: int) -> Float[Tensor, "patches angles"]:
    """Return p theta_k, theta_k = 10000^(-k / frequencies), for the row and then the column p of every patch."""
    theta = 10000.0 ** (-torch.arange(frequencies, dtype=torch.float64) / frequencies)
    place = torch.arange(rows, dtype=torch.float64)
    row, column = torch.meshgrid(place, place, indexing="ij")
    both = torch.cat([row.flatten()[:, None] * theta, column.flatten()[:, None] * theta], dim=1)
    return both.float()


def sincos_positions(rows: int, width: int) -> Float[Tensor, "patches width"]:
    """Return fixed codes of the places of rows x rows patches: sines and cosines of :func:`angles`.

    Vaswani et al. (2017), section 3.5, with half of the width for the row and half for the column.
    """
    turned = angles(rows, width // 4)
    return torch.cat([turned.sin(), turned.cos()], dim=1)


class Rotation(nn.Module):
    """Turns pairs of features by angles that grow with the patch's row and column (RoPE: Su et al. 2021, section 3.2).

    So the inner product of a query and a key depends on how far apart they are. Half of the pairs follow the row, half
    the column. Tokens before the patches are not turned.

    Args:
        rows: of patches; there are as many columns.
        head_width: features of one attention head, a multiple of 4.
        extra: tokens before the patches.

    """

    cos: Tensor
    sin: Tensor

    def __init__(self, rows: int, head_width: int, extra: int = 0) -> None:
        super().__init__()
        turned = F.pad(angles(rows, head_width // 4), (0, 0, extra, 0))
        self.register_buffer("cos", turned.cos(), persistent=False)
        self.register_buffer("sin", turned.sin(), persistent=False)

    def forward(self, x: Float[Tensor, "batch heads tokens head"]) -> Float[Tensor, "batch heads tokens head"]:
        """Return the turned features."""
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * self.cos - b * self.sin, a * self.sin + b * self.cos], dim=-1).to(x.dtype)


# --- layers -----------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Self-attention with normalised queries and keys (Henry et al. 2020) that know their places.

    Args:
        width: of a token.
        head_width: of one head.
        rotation: tells places apart.
        kind: ``fused`` is PyTorch's kernel, which has no second derivative; ``plain`` has.

    """

    def __init__(self, width: int, head_width: int, rotation: Rotation, kind: AttentionKind) -> None:
        super().__init__()
        self.heads, self.kind = width // head_width, kind
        self.rotation = rotation
        self.qkv = xavier(nn.Linear(width, 3 * width, bias=False))
        self.out = xavier(nn.Linear(width, width))

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Return softmax(q k^T / sqrt(d)) v of every head, mixed (Vaswani et al. 2017, equation 1)."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = self.rotation(rms_norm(q)), self.rotation(rms_norm(k))
        if self.kind == "fused":
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=-1).to(v.dtype) @ v
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out


def fused_attention(network: nn.Module) -> list[str]:
    """Return the names of the attention layers that have no second derivative."""
    return [name for name, part in network.named_modules() if isinstance(part, Attention) and part.kind == "fused"]


class SwiGlu(nn.Module):
    """The feed-forward layer (SiLU(x W) * x V) W2 (Shazeer 2020, equation 6), as large as a plain one of 4 widths."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 8 * max(1, round(width / 3))
        self.into = xavier(nn.Linear(width, 2 * hidden))
        self.out = xavier(nn.Linear(hidden, width))

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Return the layer's features of ``x``."""
        gate, value = self.into(x).chunk(2, dim=-1)
        out: Tensor = self.out(F.silu(gate) * value)
        return out
