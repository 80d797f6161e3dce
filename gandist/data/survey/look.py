"""What an image is, told by its first bytes: its size, and whether training can take it as it lies."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

_NPY_MAGIC = b"\x93NUMPY"
_FORMATS = ("JPEG", "PNG", "WEBP")
_PREFIX_BYTES = 8 << 10  # holds all that comes before the pixels, unless a camera or an editor wrote a book there


class Look(NamedTuple):
    """The size of an image in pixels, its channels, and whether it is a raw array."""

    width: int
    height: int
    channels: Literal[1, 3]
    raw: bool


class UnfitError(ValueError):
    """Training cannot take the image as it lies; the message has no place in it.

    Attributes:
        kind: the same for images that are unfit in the same way.

    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def look(read: Callable[[int], bytes], size: int) -> Look:
    """Return what the image is; to be called :func:`~gandist.data.decode.quietly`.

    Args:
        read: returns so many of the image's first bytes.
        size: of the image in bytes.

    Raises:
        UnfitError: it is no image that can be trained on.

    """
    if size == 0:
        raise UnfitError("empty", "is empty")
    prefix = read(min(size, _PREFIX_BYTES))
    if prefix.startswith(_NPY_MAGIC):
        return _array(prefix, size)
    found = _compressed(prefix)
    if found is None and size > len(prefix):
        found = _compressed(read(size))
    if found is None:
        raise UnfitError("no image", "is no JPEG, PNG or WebP image that can be read")
    return found


def _array(prefix: bytes, size: int) -> Look:
    """Read the header of a raw array (https://numpy.org/neps/nep-0001-npy-format.html)."""
    file = io.BytesIO(prefix)
    try:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = header(file)
    except Exception as error:  # it is parsed as a literal of Python, which raises nearly everything
        raise UnfitError("no image", f"is a raw array that cannot be read ({type(error).__name__})") from None
    if kind != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3):
        raise UnfitError("another array", f"is {kind} of shape {shape}, not uint8 of (height, width, 1 or 3)")
    if (expected := file.tell() + math.prod(shape)) != size:
        raise UnfitError("cut", f"is a raw array of {size} bytes where its header promises {expected}")
    return Look(shape[1], shape[0], 1 if shape[2] == 1 else 3, raw=True)


def _compressed(raw: bytes) -> Look | None:
    """Return what the image is whose first bytes these are; None where they do not tell."""
    try:
        with Image.open(io.BytesIO(raw), formats=_FORMATS) as image:
            (width, height), mode, transparent = image.size, image.mode, image.has_transparency_data
    except Image.DecompressionBombError as error:
        raise UnfitError("too large", f"is no image to train on: {error}") from None
    except Exception:  # the readers of hostile bytes raise nearly everything
        return None
    if transparent:
        raise UnfitError("transparent", f"is transparent ({mode})")
    if mode not in ("1", "L", "P", "RGB"):
        raise UnfitError(mode, f"is {mode}, neither RGB nor grey")
    return Look(width, height, 1 if mode in ("1", "L") else 3, raw=False)
