"""From what there is in a source to the knobs of a first run: pure functions, each with its reason in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gandist.data.making.look import Look
from gandist.data.making.pixels import Fit
from gandist.errors import ConfigError, DataError

SMALLEST_PX, LARGEST_PX = 8, 128
TOO_SMALL_SHARE = 0.05
"""Share of the images that may be smaller than the resolution; they are left out."""

ENOUGH_IN_A_CLASS = 100
MANY_CLASSES = 1000
FLIP_UP_TO_IMAGES = 100_000

_PAD_UP_TO = 1.25  # times its side may an image be padded


@dataclass(frozen=True)
class Choice:
    """A value, and why it is that."""

    value: bool
    why: str


@dataclass(frozen=True)
class Proposal:
    """What a first run of a set is like."""

    resolution: int
    channels: Literal[1, 3]
    fit: Fit
    allow_upscale: bool
    conditional: Choice
    hflip: Choice
    batch_images: int
    total_kimg: int
    every_kimg: int

    @property
    def arch(self) -> str:
        """The architecture: SNGAN's networks use classes best, DCGAN is fast where there are none."""
        return "resnet" if self.conditional.value else "dcgan"


def propose(look: Look, resolution: int | None = None) -> Proposal:
    """Return a run that suits what was found; ``resolution`` overrides the choice.

    Raises:
        ConfigError: ``resolution`` is none that the networks can do.
        DataError: the images are too small.

    """
    fit, allow_upscale = look.fit, False
    if resolution is None:
        resolution, fit = choose_resolution(look)
    else:
        _check_resolution(resolution)
        allow_upscale = fit == "crop" and _share_below(look, resolution) > TOO_SMALL_SHARE
    conditional = choose_conditional(look)
    passes, least, most = (200, 2000, 20_000) if conditional.value else (50, 500, 3000)
    total_kimg = min(most, max(least, _rounded(look.images * passes / 1000)))
    return Proposal(
        resolution=resolution,
        channels=1 if look.grey else 3,
        fit=fit,
        allow_upscale=allow_upscale,
        conditional=conditional,
        hflip=choose_hflip(look),
        batch_images=64 if look.images >= 1000 else 32 if look.images >= 200 else 16,
        total_kimg=total_kimg,
        every_kimg=_rounded(total_kimg / 50),
    )


def choose_resolution(look: Look) -> tuple[int, Fit]:
    """Return the largest power of two that hardly an image is smaller than, and how to make the images square.

    Grey images of one size just below a power of two, such as digits of 28 px, are padded up to it.
    """
    sides = {side for size in look.sizes for side in size}
    above = 1 << max(0, max(sides) - 1).bit_length()
    may_pad = look.fit == "pad" or (look.grey and len(sides) == 1)
    if may_pad and SMALLEST_PX <= above <= min(LARGEST_PX, _PAD_UP_TO * max(sides)):
        return above, "pad" if above > max(sides) else look.fit
    resolution = LARGEST_PX
    while resolution > SMALLEST_PX and _share_below(look, resolution) > TOO_SMALL_SHARE:
        resolution //= 2
    if _share_below(look, resolution) > TOO_SMALL_SHARE:
        raise DataError(
            f"{look.title}: more than {TOO_SMALL_SHARE:.0%} of the images are smaller than {SMALLEST_PX} px, "
            f"the smallest that the networks draw. Enlarge them with --resolution {SMALLEST_PX}."
        )
    return resolution, look.fit


def choose_conditional(look: Look) -> Choice:
    """Return whether the networks should see the classes."""
    counts = look.class_counts
    if len(counts) < 2:
        return Choice(False, "the images have no classes")
    if look.unlabelled:
        return Choice(False, f"{look.unlabelled} images have no class")
    if len(counts) > MANY_CLASSES:
        return Choice(False, f"{len(counts)} classes are too many for a first run")
    fewest = min(counts.values())
    if fewest < ENOUGH_IN_A_CLASS:
        return Choice(False, f"the smallest of the {len(counts)} classes has {fewest} images, too few to learn from")
    return Choice(True, f"{len(counts)} classes, each with at least {fewest} images")


def choose_hflip(look: Look) -> Choice:
    """Return whether images should be mirrored: small sets gain by it, and anything that is read is spoilt by it."""
    names = look.class_counts
    if look.grey:
        return Choice(False, "grey images are often digits, letters or scans, which must not be mirrored")
    if names and all(len(name) == 1 or name.isdigit() for name in names):
        return Choice(False, "the classes are called like digits or letters, which must not be mirrored")
    if look.images > FLIP_UP_TO_IMAGES:
        return Choice(False, f"{look.images} images are enough without mirroring")
    return Choice(True, "colour photographs are as likely mirrored; set false if yours hold text or a left and a right")


def _share_below(look: Look, resolution: int) -> float:
    return sum(min(size) < resolution for size in look.sizes) / len(look.sizes)


def _check_resolution(resolution: int) -> None:
    if resolution < SMALLEST_PX or resolution & (resolution - 1):
        raise ConfigError(f"--resolution {resolution}: must be a power of two from {SMALLEST_PX} on.")


def _rounded(value: float) -> int:
    """Return the nearest of 1, 2, 5, 10, 20, 50, ... below a positive number; at least 1."""
    if value < 1:
        return 1
    scale = 10 ** int(math.log10(value))
    return int(next(step for step in (5, 2, 1) if step * scale <= value) * scale)
