"""From a source image to the bytes of a sample: decode, turn upright, flatten, fit to a square, encode. All pure."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from gandist.data.decode import npy_header
from gandist.data.making.payload import NPY_MAGIC, Payload, PayloadError, Pixels

PIXEL_LIMIT = 1 << 24
"""Images with more pixels are rejected before they are decoded."""

Fit = Literal["crop", "pad", "reject"]
Resample = Literal["lanczos", "box"]
Format = Literal["npy", "png", "webp", "jpeg"]

EXTENSIONS: dict[Format, str] = {"npy": "npy", "png": "png", "webp": "webp", "jpeg": "jpg"}

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}
_npy_header = functools.cache(npy_header)
_ORIENTATION = 0x0112  # a tag of EXIF
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True)
class Recipe:
    """How every image is made.

    ``crop`` keeps the largest square in the middle; ``pad`` surrounds with black, and never enlarges unless
    ``allow_upscale``; ``reject`` takes square images only.
    """

    resolution: int
    channels: Literal[1, 3]
    fit: Fit
    resample: Resample
    format: Format
    quality: int
    allow_upscale: bool


Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Rejected:
    """An image that cannot be used, and why; ``size`` where that is the reason; ``kind`` is for counting."""

    reason: str
    size: Size | None = None
    kind: str = "unreadable"


def make(payload: Payload, recipe: Recipe) -> bytes | Rejected:
    """Return the encoded image, or why there is none."""
    return make_all([payload], recipe)[0]


def make_all(payloads: Sequence[Payload], recipe: Recipe) -> list[bytes | Rejected]:
    """Make a sample's image bytes from each payload."""
    return [made for made, _ in make_and_measure(payloads, recipe)]


def make_and_measure(payloads: Sequence[Payload], recipe: Recipe) -> list[tuple[bytes | Rejected, Size | None]]:
    """Make a sample's image bytes from each payload; beside them stands the size in the source, if it is known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about oddities in files that it reads all the same
        return [_make(payload, recipe) for payload in payloads]


def _make(payload: Payload, recipe: Recipe) -> tuple[bytes | Rejected, Size | None]:
    try:
        image = _open(payload, recipe.channels)
    except PayloadError as error:
        return Rejected(str(error), kind=error.kind), None
    except Exception as error:  # the decoders of hostile bytes raise nearly everything
        return _undecodable(error), None
    refused = _refused(image.size, recipe)
    if refused is not None:
        return refused, image.size
    square = _pad(image, recipe) if recipe.fit == "pad" else _crop(image, recipe)
    return encode(square, recipe), image.size


def _refused(size: Size, recipe: Recipe) -> Rejected | None:
    """Return why an image of this size is not wanted, if so."""
    width, height = size
    if recipe.fit == "reject" and width != height:
        return Rejected(f"{width}x{height} px, not square", size, "not square")
    if recipe.fit != "pad" and min(size) < recipe.resolution and not recipe.allow_upscale:
        return Rejected(f"{width}x{height} px, smaller than {recipe.resolution} px", size, "too small")
    return None


def _undecodable(error: Exception) -> Rejected:
    if isinstance(error, UnidentifiedImageError):
        return Rejected(f"is not an image of a known format ({', '.join(FORMATS)})", kind="not an image")
    return Rejected(f"cannot be decoded ({str(error) or type(error).__name__})", kind="damaged")


def _open(payload: Payload, channels: int) -> Image.Image:
    """Return the image, upright, in mode L or RGB."""
    if isinstance(payload, Pixels):
        return _in_mode(Image.fromarray(payload.pixels), channels)
    raw = payload.read()
    if raw.startswith(NPY_MAGIC):
        return _in_mode(Image.fromarray(_array(raw)), channels)
    with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
        width, height = image.size
        if width * height > PIXEL_LIMIT:
            raise PayloadError(f"has {width}x{height} pixels, the limit is {PIXEL_LIMIT} in all", "too large")
        image.load()
        if image.getexif().get(_ORIENTATION, 1) != 1:  # turning copies the image
            ImageOps.exif_transpose(image, in_place=True)
        return flatten(image, channels)


def _array(raw: bytes) -> NDArray[np.uint8]:
    """Return the pixels in the ``.npy`` form of one image, as shards of raw images hold it."""
    pixels: NDArray[np.uint8] = np.load(io.BytesIO(raw), allow_pickle=False)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.size > 3 * PIXEL_LIMIT:
        raise PayloadError(f"is an array of {pixels.dtype} of shape {pixels.shape}, not an image of bytes")
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3):
        raise PayloadError(f"is an array of shape {pixels.shape}, whose last length is not 1 or 3")
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


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
    return _in_mode(image, channels)


def _in_mode(image: Image.Image, channels: int) -> Image.Image:
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)  # converting copies even where nothing changes


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
        return image if width == height else image.crop(box)
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
        return _npy_header(recipe.resolution, recipe.channels) + image.tobytes()
    buffer = io.BytesIO()
    if recipe.format == "png":
        image.save(buffer, "PNG")
    elif recipe.format == "webp":
        image.save(buffer, "WEBP", lossless=True)
    else:
        image.save(buffer, "JPEG", quality=recipe.quality, subsampling=0)  # colours at full resolution
    return buffer.getvalue()
