"""An endless made data set: the digits 0 to 9, drawn by distance to a pen stroke, at any resolution.

Sample ``i`` is a pure function of ``(seed, i)``, whatever the batch that asks for it: only exactly rounded operations
depend on the draw, so that batches cut differently, on other machines, hold the same bytes. Labels are the digits,
drawn with equal probability.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gandist.data.order import Ints, key64, mix, words

GLYPHS_VERSION = 1
"""Raised by any change that draws another picture for the same seed and index."""

CLASS_NAMES = tuple("0123456789")

Floats = NDArray[np.float32]
Images = NDArray[np.uint8]

_REACH = 1.6  # the distance fields cover [-reach, reach] in both directions; the digits are 2 high
_CELLS = 192  # per side of a distance field
_PIXELS_AT_ONCE = 1 << 17  # bounds the memory of a batch and keeps it in the processor's cache


def draw(indices: Ints, *, seed: int, resolution: int, channels: int, classes: Sequence[int]) -> tuple[Images, Ints]:
    """Draw the samples at ``indices``.

    Args:
        indices: shape (n,), not negative.
        seed: of the whole set.
        resolution: height and width in pixels.
        channels: 3 for colour, 1 for grey.
        classes: the digits to draw from; labels count through these.

    Returns:
        Images of shape (n, resolution, resolution, channels) and labels of shape (n,).

    """
    images = np.empty((len(indices), resolution, resolution, channels), dtype=np.uint8)
    labels = draw_labels(indices, seed=seed, count=len(classes))
    digits = np.asarray(classes, dtype=np.int64)[labels]
    step = max(1, _PIXELS_AT_ONCE // resolution**2)
    for first in range(0, len(indices), step):
        part = slice(first, first + step)
        uniforms = _uniforms(indices[part], 12, seed)
        images[part] = _paint(_coverage(digits[part], uniforms, resolution), uniforms, channels)
    return images, labels


def draw_labels(indices: Ints, *, seed: int, count: int) -> Ints:
    """Return the labels at ``indices``, of ``count`` classes."""
    return (words(indices, seed, "digit") % np.uint64(count)).astype(np.int64)


def _uniforms(indices: Ints, count: int, seed: int) -> Floats:
    """Return ``count`` numbers in [0, 1) for each index, shape (count, n)."""
    base = words(indices, seed, "glyph")
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        salts = mix(np.arange(1, count + 1, dtype=np.uint64) * key64("column"))
        bits = mix(base[None, :] + salts[:, None])
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _between(uniform: Floats, low: float, high: float) -> Floats:
    return np.float32(low) + np.float32(high - low) * uniform


def _coverage(digits: Ints, uniforms: Floats, resolution: int) -> Floats:
    """Return how much of each pixel the pen covers, shape (n, resolution, resolution).

    Pixels are mapped back through the random rotation, scale, shear and shift into the digit's own plane, where its
    distance field is looked up; the edge is one pixel wide.
    """
    half_angle = _between(uniforms[0], -0.16, 0.16)  # tangent of half the angle: 18 degrees either way
    norm = 1 / (1 + half_angle * half_angle)
    cosine, sine = (1 - half_angle * half_angle) * norm, 2 * half_angle * norm
    scale = _between(uniforms[1], 0.54, 0.76)  # of the digit's half height to half the picture
    aspect = _between(uniforms[2], 0.9, 1.12)
    shear = _between(uniforms[3], -0.22, 0.22)
    pen = _between(uniforms[6], 0.09, 0.2)
    room = np.maximum(1 - scale * (np.float32(1.12) + pen), 0)  # a tilted digit reaches a little further
    shift_x, shift_y = (_between(uniforms[4 + i], -1, 1) * room for i in range(2))

    axis = (np.arange(resolution, dtype=np.float32) * 2 + 1) / np.float32(resolution) - 1
    x = axis[None, None, :] - shift_x[:, None, None]
    y = axis[None, :, None] - shift_y[:, None, None]
    across, down = 1 / (scale * aspect), 1 / scale
    a, b = cosine * across, sine * across  # first row of the inverse map: rotation, then scale, then shear
    c, d = -sine * down, cosine * down
    a, b = a + shear * c, b + shear * d
    u = a[:, None, None] * x + b[:, None, None] * y
    v = c[:, None, None] * x + d[:, None, None] * y
    distance = _look_up(digits, u, v)
    pixels_per_unit = scale * np.float32(resolution / 2)
    inside = (pen[:, None, None] - distance) * pixels_per_unit[:, None, None] + np.float32(0.5)
    return inside.clip(0, 1).astype(np.float32, copy=False)


def _look_up(digits: Ints, u: Floats, v: Floats) -> Floats:
    """Return the distance fields of ``digits`` at (u, v), between their cells linearly."""
    fields = _distance_fields()
    per_unit = np.float32((_CELLS - 1) / (2 * _REACH))
    top = np.float32(_CELLS - 1.001)
    u = np.clip((u + np.float32(_REACH)) * per_unit, 0, top)
    v = np.clip((v + np.float32(_REACH)) * per_unit, 0, top)
    column, row = u.astype(np.int32), v.astype(np.int32)
    u -= column.astype(np.float32)
    v -= row.astype(np.float32)
    at = (digits.astype(np.int32) * np.int32(_CELLS * _CELLS))[:, None, None] + row * np.int32(_CELLS) + column
    upper = fields[at] * (1 - u) + fields[at + 1] * u
    lower = fields[at + _CELLS] * (1 - u) + fields[at + _CELLS + 1] * u
    between = upper * (1 - v) + lower * v
    return between.astype(np.float32, copy=False)


def _paint(coverage: Floats, uniforms: Floats, channels: int) -> Images:
    """Return uint8 images, shape (n, height, width, channels): chalk, coloured if there are colours, on slate."""
    chalk = _between(uniforms[8], 0.7, 1.0)[:, None]
    slate = _between(uniforms[9], 0.02, 0.1)[:, None]
    if channels == 3:  # saturated blue is dark however bright, so the chalk stays pale enough to read
        chalk = chalk * _tint(uniforms[10], _between(uniforms[11], 0.1, 0.6))
    ink, paper = chalk[:, None, None, :], slate[:, None, None, :]
    value = paper + coverage[..., None] * (ink - paper)
    pixels: Images = (value * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return pixels


def _tint(hue: Floats, saturation: Floats) -> Floats:
    """Return factors on red, green and blue, shape (n, 3), the largest of which is 1 (the hue circle of HSV)."""
    turn = hue[:, None] * np.float32(6) + np.array([5, 3, 1], dtype=np.float32)
    turn = np.where(turn >= 6, turn - 6, turn)
    missing = np.clip(np.minimum(turn, 4 - turn), 0, 1)
    factors: Floats = 1 - saturation[:, None] * missing
    return factors


# --- the shapes --------------------------------------------------------------------------------------------

_Points = list[tuple[float, float]]


def _arc(x: float, y: float, rx: float, ry: float, begin: float, end: float) -> _Points:
    """Return points along an ellipse, from one angle to another in degrees, 0 to the right, 90 down."""
    count = max(2, math.ceil(abs(end - begin) / 6))
    angles = [math.radians(begin + (end - begin) * i / count) for i in range(count + 1)]
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


def _strokes() -> list[list[_Points]]:
    """Return the pen strokes of each digit; x to the right, y down, -1 to 1 from top to bottom."""
    six = [_arc(0.62, 0.4, 1.17, 1.42, 247, 180) + _arc(0, 0.42, 0.55, 0.58, 180, 540)]
    return [
        [_arc(0, 0, 0.6, 1, 0, 360)],
        [[(-0.38, -0.62), (0.06, -1), (0.06, 1)], [(-0.36, 1), (0.48, 1)]],
        [[*_arc(0, -0.45, 0.56, 0.55, 195, 385), (-0.56, 1), (0.6, 1)]],
        [_arc(-0.06, -0.52, 0.52, 0.48, 205, 450), _arc(-0.06, 0.48, 0.6, 0.52, 270, 515)],
        [[(0.28, 1), (0.28, -1), (-0.62, 0.4), (0.62, 0.4)]],
        [[(0.48, -1), (-0.42, -1), (-0.5, -0.08), *_arc(-0.04, 0.38, 0.6, 0.62, 228, 505)]],
        six,
        [[(-0.58, -1), (0.58, -1), (-0.14, 1)]],
        [_arc(0, -0.52, 0.48, 0.48, 0, 360), _arc(0, 0.48, 0.58, 0.52, 0, 360)],
        [[(-x, -y) for x, y in points] for points in six],
    ]


@functools.cache
def _distance_fields() -> Floats:
    """Return the distance from each cell to the nearest stroke, for the ten digits, flattened."""
    axis = np.linspace(-_REACH, _REACH, _CELLS)
    x, y = np.meshgrid(axis, axis)
    fields = [
        functools.reduce(
            np.minimum, (_to_segment(x, y, *ends) for line in strokes for ends in itertools.pairwise(line))
        )
        for strokes in _strokes()
    ]
    return np.sqrt(np.stack(fields)).astype(np.float32).ravel()


def _to_segment(
    x: NDArray[np.float64], y: NDArray[np.float64], begin: tuple[float, float], end: tuple[float, float]
) -> NDArray[np.float64]:
    """Return the squared distance from each (x, y) to a segment."""
    dx, dy = end[0] - begin[0], end[1] - begin[1]
    x, y = x - begin[0], y - begin[1]
    along = np.clip((x * dx + y * dy) / (dx * dx + dy * dy), 0, 1)
    return (x - along * dx) ** 2 + (y - along * dy) ** 2
