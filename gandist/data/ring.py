"""An endless made data set of points in the plane: eight narrow Gaussians on a circle.

It is the set on which GANs are shown to lose modes (Metz et al. 2017, "Unrolled Generative Adversarial Networks",
section 3.1): centres at radius 2, standard deviation 0.02. Here both are divided by 2.5, so that points lie inside
(-1, 1), where a generator that ends in tanh can reach them; their ratio of 100 to 1 is the paper's.

Sample ``i`` is a pure function of ``(seed, i)``, by exactly rounded operations only, so that every machine draws the
same bits. That is why a normal number is here the sum of twelve uniform ones less six: mean 0, variance 1, at most 6.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gandist.data.order import Ints, words

RING_VERSION = 1
"""Raised by any change that draws another point for the same seed and index."""

Points = NDArray[np.float32]

MODES = 8
RADIUS, DEVIATION = 2 / 2.5, 0.02 / 2.5

_DIAGONAL = math.sqrt(0.5)
_CIRCLE = np.array(  # written down, since no cosine is exactly rounded
    [
        (1, 0), (_DIAGONAL, _DIAGONAL), (0, 1), (-_DIAGONAL, _DIAGONAL),
        (-1, 0), (-_DIAGONAL, -_DIAGONAL), (0, -1), (_DIAGONAL, -_DIAGONAL),
    ]
)  # fmt: skip
CENTRES: Points = (RADIUS * _CIRCLE).astype(np.float32)
"""The middle of each mode, shape (8, 2), counter-clockwise from the right."""

_UNIFORMS = 12  # whose sum has variance 1
_BITS = 16  # of each; four to a word


def draw(indices: Ints, *, seed: int) -> tuple[Points, Ints]:
    """Return the points at ``indices``, shape (n, 2), and the numbers of their modes, shape (n,)."""
    modes = draw_modes(indices, seed=seed)
    noise = np.stack([_normal(indices, seed, axis) for axis in range(2)], axis=1)
    return (RADIUS * _CIRCLE[modes] + DEVIATION * noise).astype(np.float32), modes


def draw_modes(indices: Ints, *, seed: int) -> Ints:
    """Return the mode of each sample, all equally likely."""
    return (words(indices, seed, "mode") % np.uint64(MODES)).astype(np.int64)


def _normal(indices: Ints, seed: int, axis: int) -> NDArray[np.float64]:
    """Return a nearly normal number for each sample, from a whole one that no rounding can touch."""
    per_word, low_bits = 64 // _BITS, np.uint64((1 << _BITS) - 1)
    total = np.zeros(len(indices), dtype=np.uint64)
    for number in range(_UNIFORMS // per_word):
        drawn = words(indices, seed, "ring", axis, number)
        for part in range(per_word):
            total += (drawn >> np.uint64(_BITS * part)) & low_bits
    middle = _UNIFORMS * ((1 << _BITS) - 1) / 2
    return (total.astype(np.float64) - middle) / (1 << _BITS)
