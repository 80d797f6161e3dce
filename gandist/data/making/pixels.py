"""From a source image to the bytes of a sample: decode, turn upright, flatten, fit to a square, encode. All pure."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from gandist.data.decode import npy_header
from gandist.data.making.payload import Payload, PayloadError, Pixels

PIXEL_LIMIT = 1 << 24
"""Images with more pixels are rejected before they are decoded."""

Fit = Literal["crop", "pad"]
Resample = Literal["lanczos", "box"]
Format = Literal["npy", "png", "webp", "jpeg"]

EXTENSIONS: dict[Format, str] = {"npy": "npy", "png": "png", "webp": "webp", "jpeg": "jpg"}

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True)
class Recipe:
    """How every image is made. ``pad`` surrounds with black and never enlarges unless ``allow_upscale``."""

    resolution: int
    channels: Literal[1, 3]
    fit: Fit
    resample: Resample
    format: Format
    quality: int
    allow_upscale: bool


@dataclass(frozen=True)
class Rejected:
    """An image that cannot be used, and why; ``size`` (width, height) where it is only too small."""

    reason: str
    size: tuple[int, int] | None = None


def make_all(payloads: Sequence[Payload], recipe: Recipe) -> list[bytes | Rejected]:
    """Make a sample's image bytes from each payload."""
    return [make(payload, recipe) for payload in payloads]


def make(payload: Payload, recipe: Recipe) -> bytes | Rejected:
    """Return the encoded image, or why there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about oddities in files that it reads all the same
            image = _open(payload, recipe.channels)
    except PayloadError as error:
        return Rejected(str(error))
    except Exception as error:  # the decoders of hostile bytes raise nearly everything
        return Rejected(_plain_reason(error))
    side = min(image.size)
    if recipe.fit == "crop" and side < recipe.resolution and not recipe.allow_upscale:
        width, height = image.size
        return Rejected(f"{width}x{height} px, smaller than {recipe.resolution} px", image.size)
    square = _crop(image, recipe) if recipe.fit == "crop" else _pad(image, recipe)
    return encode(square, recipe)


def _plain_reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"is not an image of a known format ({', '.join(_FORMATS)})"
    return f"cannot be decoded ({str(error) or type(error).__name__})"


def _open(payload: Payload, channels: int) -> Image.Image:
    """Return the image, upright, in mode L or RGB."""
    if isinstance(payload, Pixels):
        return Image.fromarray(payload.pixels).convert("L" if channels == 1 else "RGB")
    with Image.open(io.BytesIO(payload.read()), formats=_FORMATS) as image:
        width, height = image.size
        if width * height > PIXEL_LIMIT:
            raise PayloadError(f"has {width}x{height} pixels, the limit is {PIXEL_LIMIT} in all")
        image.load()
        return flatten(ImageOps.exif_transpose(image), channels)


def flatten(image: Image.Image, channels: int) -> Image.Image:
    """Return the image in mode L (1 channel) or RGB (3): transparency on white, 16-bit grey scaled to 8 bits.

    Raises:
        PayloadError: the numbers have no known range (32-bit integers beyond 16 bits, floats).

    """
    if image.mode in _SIXTEEN_BIT or image.mode == "I":
        image = _from_sixteen_bits(image)
    if image.mode == "F":
        raise PayloadError("holds floating point numbers, whose range is unknown; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    return image.convert("L" if channels == 1 else "RGB")


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise PayloadError("holds 32-bit numbers, whose range is unknown; save it with 8 or 16 bits")
    return Image.fromarray(((values * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8))


def _crop(image: Image.Image, recipe: Recipe) -> Image.Image:
    """Return the largest square in the middle, resized."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    if side == recipe.resolution:
        return image.crop(box)
    return image.resize((recipe.resolution,) * 2, _FILTERS[recipe.resample], box=box)


def _pad(image: Image.Image, recipe: Recipe) -> Image.Image:
    """Return the whole image in the middle of a black square, made smaller where it must be."""
    width, height = image.size
    scale = recipe.resolution / max(width, height)
    if scale < 1 or (scale > 1 and recipe.allow_upscale):
        width, height = (min(recipe.resolution, max(1, round(length * scale))) for length in (width, height))
        image = image.resize((width, height), _FILTERS[recipe.resample])
    square = Image.new(image.mode, (recipe.resolution,) * 2)
    square.paste(image, ((recipe.resolution - width) // 2, (recipe.resolution - height) // 2))
    return square


def encode(image: Image.Image, recipe: Recipe) -> bytes:
    """Return the bytes of a square image in the recipe's format."""
    if recipe.format == "npy":
        pixels: NDArray[np.uint8] = np.asarray(image)
        return npy_header(recipe.resolution, recipe.channels) + pixels.tobytes()
    buffer = io.BytesIO()
    if recipe.format == "png":
        image.save(buffer, "PNG")
    elif recipe.format == "webp":
        image.save(buffer, "WEBP", lossless=True)
    else:
        image.save(buffer, "JPEG", quality=recipe.quality, subsampling=0)  # colours at full resolution
    return buffer.getvalue()
