"""Planar maps as matrices, and pixels moved by them.

Points are (x, y, 1) in pixels, x to the right and y down, with the middle of the image at the origin; so a map
does the same at any resolution, up to its shifts. Outside its frame an image goes on as its own reflection, in which
the outermost pixels occur once (Karras et al. 2020a, appendix B).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

Images = Float[Tensor, "batch channels height width"]
Numbers = Float[Tensor, " batch"]
Maps = Float[Tensor, "batch 3 3"]


def translate(x: Numbers, y: Numbers) -> Maps:
    """Return the maps that shift by ``x`` to the right and ``y`` down."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrices([[one, zero, x], [zero, one, y], [zero, zero, one]])


def scale(x: Numbers, y: Numbers) -> Maps:
    """Return the maps that stretch by ``x`` horizontally and ``y`` vertically, about the middle."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrices([[x, zero, zero], [zero, y, zero], [zero, zero, one]])


def rotate(angle: Numbers) -> Maps:
    """Return the rotations about the middle by ``angle`` radians, anticlockwise as the image is seen."""
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    cos, sin = angle.cos(), angle.sin()
    return _matrices([[cos, sin, zero], [-sin, cos, zero], [zero, zero, one]])


def places(
    inverse: Maps, x: Float[Tensor, " columns"], y: Float[Tensor, " rows"]
) -> Float[Tensor, "2 batch rows columns"]:
    """Return where in the image that goes in the points of the grid ``x`` by ``y`` come from.

    Args:
        inverse: from points of the image that comes out to points of the image that goes in.
        x: positions of the columns of the grid.
        y: positions of its rows.

    """
    across, down = inverse[:, 0, :, None, None], inverse[:, 1, :, None, None]
    return torch.stack([row[:, 0] * x + row[:, 1] * y[:, None] + row[:, 2] for row in (across, down)])


def fold(position: Tensor, size: int) -> Tensor:
    """Return where in 0 .. size - 1 the endless reflection of ``size`` pixels has what it has at ``position``."""
    period = max(2 * (size - 1), 1)
    position = position.remainder(period)
    return torch.minimum(position, period - position) if size > 1 else torch.zeros_like(position)


def take(x: Images, row: Int[Tensor, "batch rows columns"], column: Int[Tensor, "batch rows columns"]) -> Images:
    """Return the pixels of each image at whole positions, the same in all channels.

    Linear in ``x``; the gradient is a sum over the places where a pixel was taken, and is itself differentiable.
    """
    batch, channels, _, width = x.shape
    index = (row * width + column).flatten(1)[:, None].expand(batch, channels, -1)
    return x.flatten(2).gather(2, index).view(batch, channels, *row.shape[1:])


def middle(size: int, like: Tensor) -> Float[Tensor, " size"]:
    """Return the positions of ``size`` pixels about their middle."""
    return torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2


def move_pixels(x: Images, inverse: Maps) -> Images:
    """Move whole pixels, without blending, by maps that take pixels to pixels: mirrors, quarter turns, whole shifts."""
    height, width = x.shape[2:]
    column, row = places(inverse, middle(width, inverse), middle(height, inverse))
    column = (column + (width - 1) / 2).round().long()
    row = (row + (height - 1) / 2).round().long()
    return take(x, fold(row, height), fold(column, width))


def _matrices(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
