"""The pipe of ADA: which transforms, how often, and how they are carried out (Karras et al. 2020a, appendix B)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from gandist.adversarial.augment import geometry
from gandist.adversarial.augment.ada.colour import COLOURS, GREY_COLOURS, colour_maps, recolour
from gandist.adversarial.augment.ada.resample import Resampler
from gandist.adversarial.augment.ada.strength import Strength
from gandist.adversarial.augment.ada.transforms import Parameters, draw_parameters
from gandist.adversarial.augment.ada.wavelets import band_matrices
from gandist.adversarial.augment.geometry import Images, Maps
from gandist.adversarial.augment.interface import Augment
from gandist.adversarial.augment.pixel_noise import pixel_normal
from gandist.models.noise import Noise

BLIT = ("xflip", "rotate90", "integer_translation")
GENERAL = ("isotropic_scaling", "rotation", "anisotropic_scaling", "fractional_translation")
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""Share of each band in the power of a natural image, whose spectrum falls as 1/f."""

_B, _G, _C = dict.fromkeys(BLIT, 1.0), dict.fromkeys(GENERAL, 1.0), dict.fromkeys(COLOURS, 1.0)
PRESETS: dict[str, dict[str, float]] = {
    "none": {},
    "blit": _B,
    "bg": _B | _G,
    "bgc": _B | _G | _C,
    "bgcf": _B | _G | _C | {"filtering": 1.0},
    "bgcfn": _B | _G | _C | {"filtering": 1.0, "noise": 1.0},
    "bgcfnc": _B | _G | _C | {"filtering": 1.0, "noise": 1.0, "cutout": 1.0},
    "r3gan": _B | _G | dict.fromkeys(COLOURS, 0.5) | {"cutout": 1.0},
}
"""Rates of the transforms of the paper's pipes (section 3, figure 3a), and of R3GAN's (Huang et al. 2024)."""


class Ada(Augment):
    """Transforms each image by those of a pipe that its draws choose, each with the probability p times its rate.

    Args:
        rates: from the names of transforms to their rates; 0 leaves one out. Where images are not grey or of three
            channels, rates of colours must be 0.
        strength: says p.
        size: height and width of the images.
        channels: of the images.
        device: where they are.
        dtype: their number format.

    """

    def __init__(
        self,
        rates: Mapping[str, float],
        strength: Strength,
        size: int,
        channels: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        seen = set(GREY_COLOURS if channels == 1 else COLOURS)
        self.rates = {
            part: rate
            for name, rate in rates.items()
            for part in (("rotation_before", "rotation_after") if name == "rotation" else (name,))
            if rate > 0 and not (name in COLOURS and name not in seen)
        }
        assert channels in {1, 3} or not self.rates.keys() & set(COLOURS), "colours need one channel or three"
        self.strength = strength
        blends = any(rates.get(name, 0) > 0 for name in GENERAL)
        self.resample = Resampler(size, device, dtype) if blends else None
        self.bands = band_matrices(size).to(device, dtype) if "filtering" in self.rates else None

    def __call__(self, x: Images, noise: Noise, images_seen: int) -> Images:
        """Return the images transformed: moved, recoloured, filtered, corrupted."""
        if not self.rates:
            return x
        drawn = draw_parameters(self.rates, self.strength.p(images_seen), noise, x)
        x = self._move(x, drawn)
        if drawn.keys() & set(COLOURS):
            x = recolour(x, colour_maps(drawn, x))
        if self.bands is not None:
            x = filter_bands(x, band_gains(drawn["filtering"]), self.bands)
        if "noise" in drawn:
            x = x + drawn["noise"][..., None, None] * pixel_normal(noise, x)
        return cut_out(x, drawn["cutout"]) if "cutout" in drawn else x

    def _move(self, x: Images, drawn: Parameters) -> Images:
        """Mirror and turn by moving pixels, which is exact; blend them for the rest, if there is a rest."""
        if drawn.keys() & {"xflip", "rotate90"}:
            x = geometry.move_pixels(x, turn_inverse(drawn, x))
        if self.resample is not None:
            return self.resample(x, shift_inverse(drawn, x) @ general_inverse(drawn, x))
        return geometry.move_pixels(x, shift_inverse(drawn, x)) if "integer_translation" in drawn else x

    def observe(self, real_sign: Tensor, images: int) -> None:
        """Let an adaptive p hear how sure D is of real images."""
        self.strength.observe(real_sign, images)

    def statistics(self) -> dict[str, Tensor]:
        """Return p, and what moves it."""
        return self.strength.statistics()

    def state(self) -> dict[str, Tensor]:
        """Return that of p."""
        return self.strength.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Give p its state back."""
        self.strength.restore(state)


def turn_inverse(drawn: Parameters, like: Tensor) -> Maps:
    """Return the inverse of mirroring, then turning anticlockwise by quarters."""
    inverse = _identity(like)
    if "xflip" in drawn:
        mirror = 1 - 2 * drawn["xflip"][:, 0]
        inverse = inverse @ geometry.scale(mirror, torch.ones_like(mirror))
    if "rotate90" in drawn:
        inverse = inverse @ geometry.rotate(-torch.pi / 2 * drawn["rotate90"][:, 0])
    return inverse


def shift_inverse(drawn: Parameters, like: Tensor) -> Maps:
    """Return the inverse of the shift by whole pixels."""
    if "integer_translation" not in drawn:
        return _identity(like)
    x, y = (drawn["integer_translation"] * like.shape[-1]).round().unbind(1)
    return geometry.translate(-x, -y)


def general_inverse(drawn: Parameters, like: Tensor) -> Maps:
    """Return the inverse of scaling, turning, stretching, turning and shifting, in this order."""
    inverse = _identity(like)
    if "isotropic_scaling" in drawn:
        s = drawn["isotropic_scaling"][:, 0]
        inverse = inverse @ geometry.scale(1 / s, 1 / s)
    if "rotation_before" in drawn:
        inverse = inverse @ geometry.rotate(-drawn["rotation_before"][:, 0])
    if "anisotropic_scaling" in drawn:
        s = drawn["anisotropic_scaling"][:, 0]
        inverse = inverse @ geometry.scale(1 / s, s)
    if "rotation_after" in drawn:
        inverse = inverse @ geometry.rotate(-drawn["rotation_after"][:, 0])
    if "fractional_translation" in drawn:
        x, y = (drawn["fractional_translation"] * like.shape[-1]).unbind(1)
        inverse = inverse @ geometry.translate(-x, -y)
    return inverse


def band_gains(t: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 4"]:
    """Return the gains g of the bands, each drawn as t_i and brought back to the power that the image has as a whole.

    After band i is amplified, all are divided by sqrt(sum_j lambda_j t_j^2) = sqrt(1 + lambda_i (t_i^2 - 1)).
    """
    share = torch.full_like(t, BAND_POWER[1])
    share[:, 0].fill_(BAND_POWER[0])
    gains: Tensor = t * torch.rsqrt(1 + share * (t.square() - 1)).prod(dim=1, keepdim=True)
    return gains


def filter_bands(x: Images, gains: Float[Tensor, "batch 4"], bands: Float[Tensor, "4 size size"]) -> Images:
    """Return the images with each band of frequencies amplified, along rows and along columns."""
    # written so that gains of 1 change nothing, not even by rounding
    size = bands.shape[-1]
    change = ((gains - 1) @ bands.flatten(1)).view(-1, 1, size, size)
    along = x + change @ x
    return along + along @ change.mT


def cut_out(x: Images, square: Float[Tensor, "batch 3"]) -> Images:
    """Set a square to 0, given by the position of its middle and its side, as shares of the image's size."""
    column, row, side = square[:, :, None].unbind(1)
    place = (torch.arange(x.shape[-1], device=x.device) + 0.5) / x.shape[-1]
    in_columns, in_rows = ((place - middle).abs() < side / 2 for middle in (column, row))
    return x * ~(in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def _identity(like: Tensor) -> Maps:
    return torch.eye(3, device=like.device, dtype=like.dtype).expand(len(like), 3, 3)
