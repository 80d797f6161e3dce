"""Points in the plane as a picture: what a grid of images is for images."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from gandist.evaluation.sample import save_grid
from gandist.runtime.files import publish

SIDE = 512
"""Of the picture, in pixels: two for each of the 256 levels."""


def save_picture(images: UInt8[Tensor, "images channels height width"], columns: int, path: Path) -> None:
    """Write what a generator drew as one PNG: a grid of images, or a scatter plot of points."""
    if images.shape[1:] == (2, 1, 1):
        save_scatter(images.flatten(1), path)
    else:
        save_grid(images, columns, path)


def save_scatter(points: UInt8[Tensor, "points 2"], path: Path) -> None:
    """Write a PNG of points whose coordinates, 0 to 255, span the picture: x to the right, y upward.

    A place is the darker the more points fall on it.
    """
    from PIL import Image

    x, y = points.long().unbind(dim=1)
    counts = torch.zeros(256, 256).index_put((255 - y, x), torch.ones(len(points)), accumulate=True)
    ink = 1 - 0.4**counts  # one point is plainly seen, ten are black
    paper = ((1 - ink) * 255).round().to(torch.uint8)
    large = paper.repeat_interleave(SIDE // 256, dim=0).repeat_interleave(SIDE // 256, dim=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with publish(path) as partial:
        Image.fromarray(large.numpy()).save(partial, format="PNG")
