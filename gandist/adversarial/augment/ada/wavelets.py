"""The filters of ADA, each along one axis and as a matrix, the reflection at the borders included (appendix B)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gandist.adversarial.augment.geometry import fold

Matrix = Float[Tensor, "rows columns"]

SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
"""H(z) of the symlet with 6 vanishing moments: orthonormal to its own even shifts (Daubechies 1992, table 6.3)."""

SYM2 = tuple((a + b * 3**0.5) / (4 * 2**0.5) for a, b in ((1, 1), (3, 1), (3, -1), (1, -1)))
"""H(z) of the symlet with 2 vanishing moments, which is Daubechies' wavelet of 4 taps."""

REACH = (len(SYM6) - 1) // 2
"""Pixels beyond the border that a pixel of the border is made from."""

DELAY = round(1024 * sum(k * h for k, h in enumerate(SYM6)) / sum(SYM6)) / 1024
"""By how many fine samples H(z) moves what is smooth: its group delay at frequency 0.

In parts of 1024, so that fp32 holds the position of every sample exactly and the identity is one.
"""


def fine_samples(size: int) -> int:
    """Return how many samples of the doubled signal go into the ``size`` pixels that come out."""
    return 2 * size + 2 * REACH


def upsampling(size: int) -> Matrix:
    """Return the matrix from ``size`` pixels to fine samples n = 0 .. 2 size + 9, sum_k sqrt(2) h(n - 2k) x(k)."""
    n = torch.arange(fine_samples(size))[:, None]
    k = torch.arange(-len(SYM6), size + len(SYM6))
    tap = n - 2 * k
    inside = (tap >= 0) & (tap < len(SYM6))
    weight = torch.where(inside, torch.tensor(SYM6, dtype=torch.float64)[tap.clamp(0, len(SYM6) - 1)], 0.0)
    return 2**0.5 * weight @ _reflection(k, size)


def downsampling(size: int) -> Matrix:
    """Return the matrix from fine samples to ``size`` pixels m, sum_n h(n - 2m) y(n) / sqrt(2).

    As h is orthonormal to its even shifts, it undoes :func:`upsampling` exactly.
    """
    tap = torch.arange(fine_samples(size)) - 2 * torch.arange(size)[:, None]
    inside = (tap >= 0) & (tap < len(SYM6))
    weight = torch.where(inside, torch.tensor(SYM6, dtype=torch.float64)[tap.clamp(0, len(SYM6) - 1)], 0.0)
    return weight / 2**0.5


def bands() -> list[Float[Tensor, " taps"]]:
    """Return four filters without phase that sum to one, for [0, pi/8], [pi/8, pi/4], [pi/4, pi/2] and [pi/2, pi].

    With the low pass L(z) = H(z) H(1/z) / 2 and the high pass B(z) = L(-z), for which L + B = 1, they are
    L(z) L(z^2) L(z^4), L(z) L(z^2) B(z^4), L(z) B(z^2) and B(z).
    """
    h = torch.tensor(SYM2, dtype=torch.float64)
    low = _convolve(h, h.flip(0)) / 2
    high = low * torch.tensor([-1.0, 1.0] * len(h), dtype=torch.float64)[: len(low)]
    low2, low4, high2, high4 = _spread(low, 2), _spread(low, 4), _spread(high, 2), _spread(high, 4)
    two = _convolve(low, low2)
    return [_convolve(two, low4), _convolve(two, high4), _convolve(low, high2), high]


def band_matrices(size: int) -> Float[Tensor, "4 size size"]:
    """Return the matrices of :func:`bands` on ``size`` pixels; they sum to the identity."""
    found = []
    for taps in bands():
        reach = len(taps) // 2
        k = torch.arange(-reach, size + reach)
        tap = k - torch.arange(size)[:, None] + reach
        inside = (tap >= 0) & (tap < len(taps))
        found.append(torch.where(inside, taps[tap.clamp(0, len(taps) - 1)], 0.0) @ _reflection(k, size))
    return torch.stack(found)


def _reflection(positions: Tensor, size: int) -> Matrix:
    """Return the matrix from ``size`` pixels to what their endless reflection has at whole positions."""
    return torch.nn.functional.one_hot(fold(positions, size), size).double()


def _convolve(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.conv1d(a[None, None], b.flip(0)[None, None], padding=len(b) - 1)[0, 0]


def _spread(taps: Tensor, step: int) -> Tensor:
    """Return the filter of z^step: zeros between the taps."""
    spread = taps.new_zeros((len(taps) - 1) * step + 1)
    spread[::step] = taps
    return spread
