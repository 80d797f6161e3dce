"""Colours as points (r, g, b, 1), and the maps of ADA that move them (Karras et al. 2020a, appendix B)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gandist.adversarial.augment.ada.transforms import Parameters
from gandist.adversarial.augment.geometry import Images

Numbers = Float[Tensor, " batch"]
Maps = Float[Tensor, "batch 4 4"]

COLOURS = ("brightness", "contrast", "luma_flip", "hue", "saturation")
"""The transforms of this file, in the order of application."""

GREY_COLOURS = COLOURS[:3]
"""Those that do something to grey images."""


def colour_maps(drawn: Parameters, like: Images) -> Maps:
    """Return the product C of the colour transforms among ``drawn``, the first of them on the right."""
    maps = torch.eye(4, device=like.device, dtype=like.dtype).expand(len(like), 4, 4)
    for name in COLOURS:
        if name in drawn:
            maps = _MAPS[name](drawn[name][:, 0]) @ maps
    return maps


def recolour(x: Images, maps: Maps) -> Images:
    """Return the images with every pixel's colour moved.

    A grey pixel x is the colour (x, x, x), and becomes the mean of the channels that it is moved to.
    """
    linear, shift = maps[:, :3, :3], maps[:, :3, 3]
    if x.shape[1] == 1:
        return linear.sum(dim=(1, 2))[:, None, None, None] / 3 * x + shift.mean(dim=1)[:, None, None, None]
    return (linear @ x.flatten(2) + shift[..., None]).view_as(x)


def brightness(b: Numbers) -> Maps:
    """Return translations by (b, b, b)."""
    return _affine(torch.eye(3, device=b.device, dtype=b.dtype).expand(len(b), 3, 3), b)


def contrast(c: Numbers) -> Maps:
    """Return scalings by c about mid-grey, which is 0."""
    return _affine(c[:, None, None] * torch.eye(3, device=c.device, dtype=c.dtype))


def luma_flip(i: Numbers) -> Maps:
    """Return I - 2 v v^T i, which for i = 1 turns dark to bright and keeps hue and saturation."""
    grey = _grey_axis(i)
    return _affine(torch.eye(3, device=i.device, dtype=i.dtype) - 2 * grey * i[:, None, None])


def hue(angle: Numbers) -> Maps:
    """Return rotations about the axis of greys v, v v^T + cos (I - v v^T) + sin [v]x (Rodrigues)."""
    grey, eye = _grey_axis(angle), torch.eye(3, device=angle.device, dtype=angle.dtype)
    cross = (eye.roll(1, dims=0) - eye.roll(-1, dims=0)) / 3**0.5
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return _affine(grey + cos * (eye - grey) + sin * cross)


def saturation(s: Numbers) -> Maps:
    """Return v v^T + (I - v v^T) s, which scale the distance from grey."""
    grey, eye = _grey_axis(s), torch.eye(3, device=s.device, dtype=s.dtype)
    return _affine(grey + (eye - grey) * s[:, None, None])


_MAPS = {"brightness": brightness, "contrast": contrast, "luma_flip": luma_flip, "hue": hue, "saturation": saturation}


def _grey_axis(like: Numbers) -> Float[Tensor, "3 3"]:
    """Return v v^T of the axis of greys, v = (1, 1, 1) / sqrt(3)."""
    return torch.full((3, 3), 1 / 3, device=like.device, dtype=like.dtype)


def _affine(linear: Float[Tensor, "batch 3 3"], shift: Numbers | None = None) -> Maps:
    """Return maps with a linear part, and the same shift of every channel."""
    maps = torch.nn.functional.pad(linear, (0, 1, 0, 1))
    maps[:, 3, 3].fill_(1)
    if shift is not None:
        maps[:, :3, 3] = shift[:, None]
    return maps
