"""What ``gandist prepare`` reads: a text that names a source becomes a list of images with classes.

::

    photos/                          a folder of class folders, or of loose images (no labels)
    photos.zip   a.zip,b.zip         zip or tar archives of the same, or a folder that holds archives
    shards/{000..012}.tar            WebDataset shards with labels in their samples, by braces or stars
    mnist:DIR[:test]                 the idx files of MNIST and its relatives
    fashion-mnist:DIR[:test]         the same, with Fashion-MNIST's class names
    torchvision:CIFAR10:ROOT[:test]  a data set of torchvision
    glyphs[:COUNT]                   made digits
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from gandist.data import glyphs
from gandist.data.making import idx
from gandist.data.making.file_source import PREFIXES, file_source
from gandist.data.making.payload import Payload, Pixels
from gandist.data.making.source import Source, identity_of
from gandist.data.order import Ints
from gandist.data.shards.labels import check_label_source
from gandist.errors import ConfigError, DataError

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
GLYPHS_COUNT = 10_000


def open_source(
    text: str, scratch: Path, *, resolution: int, channels: int, seed: int, download: bool, label: str = "auto",
    image: str | None = None,
) -> Source:  # fmt: skip
    """Return the source that ``text`` names.

    Args:
        text: as in this module's head.
        scratch: an existing folder for compressed archives to be unpacked to, one file each.
        resolution: of the images to be made; only glyphs are drawn to it.
        channels: likewise.
        seed: of the glyphs.
        download: let torchvision fetch its files.
        label: where the class of an image is; ``auto`` finds ``.cls`` members and class folders.
        image: the field that holds the image, for tar shards whose samples have several.

    Raises:
        ConfigError: there is no such ``label``, or the source has labels of its own.
        DataError: there is no such source, it is damaged, or it holds no images.

    """
    if label != "auto":
        check_label_source(label)
    prefix, _, rest = text.partition(":")
    if prefix not in PREFIXES or (not rest and prefix != "glyphs") or Path(text).exists():
        return file_source(text, scratch, label, image)
    if label not in ("auto", "none"):
        raise ConfigError(f"--label {label}: {prefix} has labels of its own; leave it out, or drop them with none.")
    if prefix == "glyphs":
        source = _glyphs(text, rest, resolution, channels, seed)
    elif prefix == "torchvision":
        from gandist.data.making.torchvision_source import torchvision_source  # torchvision takes seconds to import

        source = torchvision_source(rest, download=download)
    else:
        source = _idx(prefix, rest)
    return replace(source, class_names=(), labels=np.full_like(source.labels, -1)) if label == "none" else source


# --- made and well-known sets ------------------------------------------------------------------------------


def _glyphs(text: str, count_text: str, resolution: int, channels: int, seed: int) -> Source:
    if count_text and not (count_text.isascii() and count_text.isdigit() and 0 < int(count_text) <= 1 << 31):
        raise DataError(f"{text}: {count_text!r} is not a number of images; write it like glyphs:{GLYPHS_COUNT}.")
    count = int(count_text or GLYPHS_COUNT)
    digits = range(len(glyphs.CLASS_NAMES))

    def made(indices: Ints) -> tuple[glyphs.Images, Ints]:
        return glyphs.draw(indices, seed=seed, resolution=resolution, channels=channels, classes=digits)

    def payload(i: int) -> Payload:
        image = made(np.array([i]))[0][0]
        return Pixels(image if channels == 3 else image[..., 0])

    labels = glyphs.draw_labels(np.arange(count), seed=seed, count=len(digits))
    title = f"{count} glyphs of seed {seed}"
    identity = identity_of(title, resolution, channels)
    return Source(title, identity, glyphs.CLASS_NAMES, labels, lambda i: f"glyph {i}", payload)


def split_of(text: str, default: str = "train") -> tuple[str, str]:
    """Return what stands before an ending ``:train`` or ``:test``, and that word."""
    head, colon, split = text.rpartition(":")
    return (head, split) if colon and split in ("train", "test") else (text, default)


def _idx(prefix: str, rest: str) -> Source:
    folder, split = split_of(rest)
    images, labels = idx.read_pair(Path(folder).expanduser(), split)
    names = FASHION_CLASSES if prefix == "fashion-mnist" else tuple(str(n) for n in range(int(labels.max()) + 1))
    if int(labels.max()) >= len(names):
        raise DataError(f"{folder}: has labels up to {labels.max()}, {prefix} has {len(names)} classes; use mnist:.")
    identity = identity_of(images.shape, zlib.crc32(images.tobytes()), zlib.crc32(labels.tobytes()))
    return Source(
        f"{prefix} {split}", identity, names, labels.astype(np.int64),
        lambda i: f"{split} image {i}", lambda i: Pixels(images[i]), fit="pad",
    )  # fmt: skip
