"""Turns an image's bytes in a shard into pixels, accepting only what the index promises."""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.uint8]

_NPY_MAGIC = b"\x93NUMPY"
_FORMATS = ("JPEG", "PNG", "WEBP")
_MODES = {1: "L", 3: "RGB"}


class DecodeError(ValueError):
    """The bytes are not the promised image; the message has no place, which the caller adds."""


def npy_header(resolution: int, channels: int) -> bytes:
    """Return the bytes before the pixels in the ``.npy`` form of one image."""
    buffer = io.BytesIO()
    shape = (resolution, resolution, channels)
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


class Decoder:
    """Decodes images of one size: raw ``.npy``, PNG, WebP or JPEG, told apart by their first bytes."""

    def __init__(self, resolution: int, channels: int) -> None:
        self._shape = (resolution, resolution, channels)
        self._header = npy_header(resolution, channels)
        self._npy_bytes = len(self._header) + resolution * resolution * channels

    def into(self, raw: bytes, out: Images) -> None:
        """Write the pixels of ``raw`` to ``out``, shape (resolution, resolution, channels).

        Raises:
            DecodeError: the bytes are damaged, or an image of another size, kind or number of channels.

        """
        if raw.startswith(self._header):
            if len(raw) != self._npy_bytes:
                raise DecodeError(f"the raw image has {len(raw)} bytes, not {self._npy_bytes}")
            out[:] = np.frombuffer(raw, dtype=np.uint8, offset=len(self._header)).reshape(self._shape)
        elif raw.startswith(_NPY_MAGIC):
            out[:] = self._other_npy(raw)
        else:
            out[:] = self._compressed(raw)

    def _other_npy(self, raw: bytes) -> Images:
        """Decode an array whose header is worded differently from the one that gandist writes."""
        try:
            pixels: Images = np.load(io.BytesIO(raw), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise DecodeError(f"the raw image cannot be read ({error})") from None
        if pixels.dtype != np.uint8 or pixels.shape != self._shape:
            raise DecodeError(f"the raw image is {pixels.dtype} of shape {pixels.shape}, not uint8 of {self._shape}")
        return pixels

    def _compressed(self, raw: bytes) -> Images:
        height, width, channels = self._shape
        try:
            with warnings.catch_warnings(), Image.open(io.BytesIO(raw), formats=_FORMATS) as image:
                warnings.simplefilter("ignore")
                size, mode, kind = image.size, image.mode, image.format
                if size == (width, height):
                    image.load()
                    pixels = np.asarray(image)
        except Exception as error:  # the decoders of hostile bytes raise nearly everything
            raise DecodeError(f"the image cannot be decoded ({type(error).__name__}: {error})") from None
        if size != (width, height):
            raise DecodeError(f"the image is {size[0]}x{size[1]} px, not {width}x{height}")
        if kind == "WEBP" and channels == 1 and mode == "RGB":  # WebP has no grey: three equal channels
            return pixels[..., :1]
        if mode != _MODES[channels]:
            raise DecodeError(f"the image's mode is {mode}, not {_MODES[channels]}")
        return pixels.reshape(self._shape)
