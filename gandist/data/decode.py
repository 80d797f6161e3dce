"""Turns an image's bytes in a shard into pixels, accepting only what the index promises.

Pillow's verdict is the only one: which bytes are an image and what its pixels are does not depend on what is installed.
``simplejpeg`` (the extra ``fast``) decodes the JPEG files for which it gives the very same pixels in half the time.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gandist.data.image_set import Numbers

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

Images = NDArray[np.uint8]

_NPY_MAGIC = b"\x93NUMPY"
_FORMATS = ("JPEG", "PNG", "WEBP")
_MODES = {1: ("L", "1"), 3: ("RGB", "L", "1", "P")}  # the first is the set's own, the others become it without loss


class DecodeError(ValueError):
    """The bytes are not the promised image; the message has no place, which the caller adds."""


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep Pillow's warnings, which are about files that nobody can mend here, from the screen.

    For a whole batch: doing this for each image would cost as much as decoding a small one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def npy_header(resolution: int, channels: int, numbers: Numbers = "uint8") -> bytes:
    """Return the bytes before the pixels in the ``.npy`` form of one image."""
    buffer = io.BytesIO()
    shape = (resolution, resolution, channels)
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": np.dtype(numbers).str, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


class Decoder:
    """Decodes images of one size: raw ``.npy``, PNG, WebP or JPEG, told apart by their first bytes.

    A set of 3 channels may also hold images in grey, black and white or a palette; none may be transparent. Images of
    other numbers than bytes are raw arrays, and their bytes are what is given out.

    Attributes:
        header: what stands before the pixels of a raw image as gandist writes it.
        npy_bytes: size of such an image with its header.

    """

    def __init__(
        self, resolution: int, channels: int, numbers: Numbers = "uint8", *, fast: bool = simplejpeg is not None
    ) -> None:
        self._numbers = np.dtype(numbers)
        self._shape = (resolution, resolution, channels)
        self._modes = _MODES.get(channels, ())
        self._fast = fast
        self.header = npy_header(resolution, channels, numbers)
        self.npy_bytes = len(self.header) + resolution * resolution * channels * self._numbers.itemsize

    def into(self, raw: bytes, out: Images) -> None:
        """Write the pixels of ``raw`` to ``out``, shape (resolution, resolution, bytes of all channels), in one piece.

        Raises:
            DecodeError: the bytes are damaged, or an image of another size, kind or number of channels.

        """
        if raw.startswith(self.header):
            if len(raw) != self.npy_bytes:
                raise DecodeError(f"the raw image has {len(raw)} bytes, not {self.npy_bytes}")
            out[:] = np.frombuffer(raw, dtype=np.uint8, offset=len(self.header)).reshape(out.shape)
        elif raw.startswith(_NPY_MAGIC):
            out[:] = self._other_npy(raw)
        elif self._numbers != np.uint8:
            raise DecodeError(f"the bytes are no raw array of {self._numbers}")
        elif not (self._fast and self._plain_jpeg(raw, out)):
            out[:] = self._compressed(raw)

    def _other_npy(self, raw: bytes) -> Images:
        """Decode an array whose header is worded differently from the one that gandist writes."""
        try:
            pixels: Images = np.load(io.BytesIO(raw), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise DecodeError(f"the raw image cannot be read ({error})") from None
        if pixels.dtype != self._numbers or pixels.shape != self._shape:
            found = f"{pixels.dtype} of shape {pixels.shape}"
            raise DecodeError(f"the raw image is {found}, not {self._numbers} of {self._shape}")
        return np.ascontiguousarray(pixels).view(np.uint8)

    def _plain_jpeg(self, raw: bytes, out: Images) -> bool:
        """Decode a plain JPEG in good order and return True, or leave any other to Pillow.

        Strictly: Pillow takes some damaged files that libjpeg warns about, and what it makes of them counts.
        """
        components = plain_jpeg_components(raw, self._shape[0])
        if components not in (1, self._shape[2]):
            return False
        try:
            simplejpeg.decode_jpeg(raw, "GRAY" if self._shape[2] == 1 else "RGB", buffer=out, strict=True)
        except ValueError:
            return False
        return True

    def _compressed(self, raw: bytes) -> Images:
        try:
            image = Image.open(io.BytesIO(raw), formats=_FORMATS)
            complaint = self._complaint(image)
            if complaint is None:  # nothing is decoded before its size is known to be right
                image.load()
                pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert(self._modes[0]))
        except Exception as error:  # the decoders of hostile bytes raise nearly everything
            raise DecodeError(f"the image cannot be decoded ({type(error).__name__}: {error})") from None
        if complaint is not None:
            raise DecodeError(complaint)
        return pixels[..., : self._shape[2]] if pixels.ndim == 3 else pixels[..., None]

    def _complaint(self, image: Image.Image) -> str | None:
        height, width, channels = self._shape
        if image.size != (width, height):
            return f"the image is {image.size[0]}x{image.size[1]} px, not {width}x{height}"
        if image.format == "WEBP" and channels == 1 and image.mode == "RGB":
            return None  # WebP has no grey, but three equal channels
        if image.mode not in self._modes:
            return f"the image's mode is {image.mode}, not {self._modes[0]}"
        return "the image is transparent in places" if "transparency" in image.info else None


_JFIF = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"
_TABLES, _SCAN, _FRAME, _QUANTIZATION, _RESTART, _COMMENT = 0xC4, 0xDA, 0xC0, 0xDB, 0xDD, 0xFE
_SUBSAMPLINGS = (0x11, 0x21, 0x22)  # 4:4:4, 4:2:2, 4:2:0


def plain_jpeg_components(raw: bytes, resolution: int) -> int:
    """Return 1 for grey and 3 for colour if this is the beginning of a plain JPEG file of this size, else 0.

    Plain is what every JPEG library reads alike: JFIF and baseline, in grey or in YCbCr with one of the usual
    subsamplings, and no segment that could change the meaning of others.
    """
    if not raw.startswith(_JFIF):
        return 0
    at, components = 20, 0
    while raw[at : at + 1] == b"\xff" and at + 4 < len(raw):
        marker, length = raw[at + 1], int.from_bytes(raw[at + 2 : at + 4], "big")
        body = raw[at + 4 : at + 2 + length]
        if marker == _SCAN:
            return components
        if marker == _FRAME and not components:
            components = _frame_components(body, resolution)
            fine = components > 0
        elif marker == _QUANTIZATION:
            fine = bool(body) and len(body) % 65 == 0 and max(body[::65]) < 4  # each table of bytes
        else:
            fine = (marker in (_TABLES, _COMMENT) and length >= 2) or (marker == _RESTART and length == 4)
        if not fine:
            return 0
        at += 2 + length
    return 0


def _frame_components(body: bytes, resolution: int) -> int:
    side = resolution.to_bytes(2, "big")
    if not body.startswith(b"\x08" + side + side):
        return 0
    if body[5:6] == b"\x01" and len(body) == 9:
        return int(body[7] == 0x11)
    usual = body[5:6] == b"\x03" and len(body) == 15 and body[6::3] == b"\x01\x02\x03" and body[10::3] == b"\x11\x11"
    return 3 if usual and body[7] in _SUBSAMPLINGS else 0
