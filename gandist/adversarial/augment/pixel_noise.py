"""Normal numbers for every pixel, made where the images are.

Drawing them for the whole global batch on the CPU, as :class:`~gandist.models.noise.RowNoise` does, would take longer
than a small network's pass. Here a row draws two keys, and its pixels are numbers mixed with these: a counter-based
generator (Salmon et al. 2011), the same on every device up to rounding.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gandist.models.noise import Noise

WORD = 0xFFFFFFFF


def pixel_normal(noise: Noise, like: Float[Tensor, batch * shape]) -> Float[Tensor, batch * shape]:
    """Return standard normal numbers in the shape of ``like``, on its device (Box & Muller 1958)."""
    keys = noise.integers(1 << 32, 2).to(like.device, non_blocking=True)
    first, second = keys.flatten(1).unbind(1)
    place = _mix(torch.arange(like[0].numel(), device=like.device))
    u, v = (_uniform(_mix(place ^ key[:, None]), like) for key in (first, second))
    return ((-2 * u.log()).sqrt() * (2 * math.pi * v).cos()).view(like.shape)


def _uniform(word: Int[Tensor, "batch pixels"], like: Tensor) -> Float[Tensor, "batch pixels"]:
    """Return numbers in (0, 1] from words of 32 bits."""
    return (word.to(like.dtype) + 0.5) * 2.0**-32


def _mix(word: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Return words of 32 bits, in int64, of which every bit depends on every bit (Wellons 2018, lowbias32)."""
    word = (word ^ (word >> 16)) * 0x7FEB352D & WORD
    word = (word ^ (word >> 15)) * 0x846CA68B & WORD  # overflows, which leaves the low 32 bits right
    return word ^ (word >> 16)
