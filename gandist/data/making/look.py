"""What there is in a source, judged by the headers of some of its images."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gandist.data.making.payload import NPY_MAGIC, Payload, PayloadError, Pixels
from gandist.data.making.pixels import FORMATS, PIXEL_LIMIT, Fit, Size
from gandist.data.making.source import Source
from gandist.data.making.summary import describe_classes, describe_sizes, describe_skipped
from gandist.data.making.write import printable
from gandist.errors import DataError

LOOKED_AT = 1000
_DECODED = 64  # images whose pixels are compared, to see whether colour images are grey after all
_GREY_MODES = {"1", "L", "LA", "I;16", "I;16B", "I;16L", "I", "F"}


@dataclass(frozen=True)
class Look:
    """What was found.

    Attributes:
        title: of the source.
        images: in the source.
        class_counts: images of each class, by name; empty without classes.
        unlabelled: images without a class.
        sizes: width and height of every image that was looked at.
        grey: whether all of them are.
        unreadable: images among those that were to be looked at whose header cannot be read.
        fit: how the source's images are best made square.
        skipped: what is no image, by what it is.

    """

    title: str
    images: int
    class_counts: dict[str, int]
    unlabelled: int
    sizes: Sequence[Size]
    grey: bool
    unreadable: int
    fit: Fit
    skipped: dict[str, int]

    def __str__(self) -> str:
        """Describe it in a few lines."""
        widths, heights = (Counter(size[side] for size in self.sizes) for side in (0, 1))
        lines = [
            f"{printable(self.title)}: {self.images} images, {'grey' if self.grey else 'RGB'}, "
            f"{describe_sizes(widths, heights)} (by the headers of {len(self.sizes)})",
            f"  {describe_classes(self.class_counts)}",
        ]
        if self.unreadable:
            lines.append(f"  {self.unreadable} of {self.unreadable + len(self.sizes)} cannot be read")
        if self.skipped:
            lines.append(f"  skipped: {describe_skipped(self.skipped)}")
        return "\n".join(lines)


def look_at(source: Source) -> Look:
    """Look at up to 1,000 images that are spread evenly over the source.

    Raises:
        DataError: none of them can be read.

    """
    images = len(source.labels)
    chosen = np.unique(np.linspace(0, images - 1, min(images, LOOKED_AT)).astype(np.int64)).tolist()
    colours = set(chosen[:: max(1, len(chosen) // _DECODED)])
    sizes: list[Size] = []
    grey, reasons = True, list[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about oddities in files that it reads all the same
        for i in chosen:
            try:
                size, grey_by_mode, image_is_grey = _header(source.payload(i), decode=grey and i in colours)
            except Exception as error:  # the decoders of hostile bytes raise nearly everything
                reasons.append(f"{source.name(i)}: {error}")
                continue
            sizes.append(size)
            grey = grey and (grey_by_mode or image_is_grey)
    if not sizes:
        raise DataError(f"{source.title}: not one image can be read; the first: {reasons[0]}.")
    counts = np.bincount(source.labels[source.labels >= 0], minlength=len(source.class_names)).tolist()
    return Look(
        source.title, images, dict(zip(source.class_names, counts, strict=True)), int((source.labels < 0).sum()),
        sizes, grey, len(reasons), source.fit, dict(source.skipped),
    )  # fmt: skip


def _header(payload: Payload, *, decode: bool) -> tuple[Size, bool, bool]:
    """Return an image's size, whether its mode is grey, and whether it may be grey all the same.

    The last is known of decoded images, and taken for granted of others.
    """
    if isinstance(payload, Pixels):
        return _of_pixels(payload.pixels)
    raw = payload.read()
    if raw.startswith(NPY_MAGIC):
        return _of_pixels(np.load(io.BytesIO(raw), allow_pickle=False))
    with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
        size, grey = image.size, image.mode in _GREY_MODES
        if size[0] * size[1] > PIXEL_LIMIT:
            raise PayloadError(f"has {size[0]}x{size[1]} pixels, the limit is {PIXEL_LIMIT} in all")
        if grey or not decode:
            return size, grey, True
        image.draft("RGB", (64, 64))  # a small version is enough to see colour
        return size, False, _of_pixels(np.asarray(image.convert("RGB")))[2]


def _of_pixels(pixels: np.ndarray) -> tuple[Size, bool, bool]:
    flat = pixels.ndim == 2 or pixels.shape[2] == 1
    grey = flat or bool((pixels == pixels[..., :1]).all())
    return (pixels.shape[1], pixels.shape[0]), flat, grey
