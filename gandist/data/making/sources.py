"""What ``gandist prepare`` reads: a text that names a source becomes a list of images with classes.

::

    photos/                          a folder of class folders, or of loose images (no labels)
    photos.zip   a.zip,b.zip         zip or tar archives of the same, or a folder that holds only archives
    mnist:DIR[:test]                 the idx files of MNIST and its relatives
    fashion-mnist:DIR[:test]         the same, with Fashion-MNIST's class names
    torchvision:CIFAR10:ROOT[:test]  a data set of torchvision
    glyphs[:COUNT]                   made digits
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gandist.data import glyphs
from gandist.data.making import idx
from gandist.data.making.files import ARCHIVE_ENDINGS, Found, archive_members, folder_files, is_archive
from gandist.data.making.payload import Payload, Pixels
from gandist.data.making.pixels import Fit
from gandist.data.order import Ints
from gandist.errors import DataError, did_you_mean

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
GLYPHS_COUNT = 10_000
_SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation", "eval"}
_PREFIXES = ("mnist", "fashion-mnist", "torchvision", "glyphs")


@dataclass(frozen=True, eq=False)
class Source:
    """The images of a source, in its own order.

    Attributes:
        title: what it is, in words that do not depend on where it lies.
        class_names: empty for images without labels.
        labels: class of each image; -1 for none.
        name: the name of image ``i``, for people only.
        payload: where the bytes of image ``i`` are.
        fit: how its images are best made square.
        skipped: members that are no images, by what they are.

    """

    title: str
    class_names: tuple[str, ...]
    labels: Ints
    name: Callable[[int], str]
    payload: Callable[[int], Payload]
    fit: Fit = "crop"
    skipped: Mapping[str, int] = field(default_factory=dict)


def open_source(text: str, scratch: Path, *, resolution: int, channels: int, seed: int, download: bool) -> Source:
    """Return the source that ``text`` names.

    Args:
        text: as in this module's head.
        scratch: an existing folder for compressed archives to be unpacked to, one file each.
        resolution: of the images to be made; only glyphs are drawn to it.
        channels: likewise.
        seed: of the glyphs.
        download: let torchvision fetch its files.

    Raises:
        DataError: there is no such source, it is damaged, or it holds no images.

    """
    prefix, _, rest = text.partition(":")
    if prefix == "glyphs" and not Path(text).exists():
        return _glyphs(text, rest, resolution, channels, seed)
    if prefix in ("mnist", "fashion-mnist") and rest:
        return _idx(prefix, rest)
    if prefix == "torchvision" and rest:
        from gandist.data.making.torchvision_source import torchvision_source  # torchvision takes seconds to import

        return torchvision_source(rest, download=download)
    return _files(text, scratch)


# --- folders and archives ----------------------------------------------------------------------------------


def _files(text: str, scratch: Path) -> Source:
    paths = [Path(text).expanduser()]
    if not paths[0].exists() and "," in text:
        paths = [Path(part.strip()).expanduser() for part in text.split(",") if part.strip()]
    for path in paths:
        if not path.exists():
            raise DataError(_no_such_source(path))
    if len(paths) == 1 and paths[0].is_dir():
        inside = sorted(paths[0].iterdir())
        archives = [path for path in inside if is_archive(path)]
        if not archives or len(archives) < len(inside):
            return _classified(f"folder {paths[0].resolve().name}", paths[0], folder_files(paths[0]))
        paths = archives
    if wrong := [path for path in paths if path.is_dir() or not is_archive(path)]:
        what = "a folder among several sources" if wrong[0].is_dir() else "a file of a kind that is not understood"
        raise DataError(
            f"{wrong[0]}: is {what}. Give one folder, or one or more archives ({', '.join(ARCHIVE_ENDINGS)})."
        )
    found = Found()
    for number, path in enumerate(paths):
        found.extend(_without_wrapper(archive_members(path, scratch / f"{number}.tar"), folders_below=True))
    return _classified(", ".join(path.name for path in paths), paths[0], found)


def _no_such_source(path: Path) -> str:
    prefix, colon, _ = str(path).partition(":")
    hint = did_you_mean(prefix, _PREFIXES) if colon else ""
    if not hint and path.parent.is_dir():
        hint = did_you_mean(path.name, (sibling.name for sibling in path.parent.iterdir()))
    return f"{path}: there is no such file or folder.{hint}"


def _without_wrapper(found: Found, *, folders_below: bool) -> Found:
    """Drop leading folders that all images share, while there are folders below them if that is asked for."""
    paths = found.paths
    depth = 0
    while paths and len({path[depth] for path in paths if len(path) > depth + 1 + folders_below}) == 1:
        if any(len(path) <= depth + 1 + folders_below for path in paths):
            break
        depth += 1
    found.paths = [path[depth:] for path in paths]
    return found


def _classified(title: str, where: Path, found: Found) -> Source:
    """Make the first folder of each image its class; images without folders are unlabelled."""
    if not found.paths:
        raise DataError(_nothing_found(where, found.skipped))
    found = _without_wrapper(found, folders_below=False)
    loose = [path for path in found.paths if len(path) == 1]
    if loose and len(loose) < len(found.paths):
        inside = next("/".join(path) for path in found.paths if len(path) > 1)
        raise DataError(
            f"{where}: {len(loose)} images lie loose beside class folders ({', '.join(path[0] for path in loose[:3])}; "
            f"but {inside}). Move them into a folder of their class, or away; or move all images into one folder."
        )
    names = [] if loose else _sorted_classes({path[0] for path in found.paths})
    if names and {name.lower() for name in names} <= _SPLIT_NAMES:
        raise DataError(
            f"{where}: its folders {', '.join(names)} are parts of a data set, not classes. "
            f"Give the part that you want, such as {where / names[-1]}."
        )
    number = {name: label for label, name in enumerate(names)}
    labels = np.array([number[path[0]] if names else -1 for path in found.paths], dtype=np.int64)
    payloads, shown = found.payloads, found.shown
    return Source(title, tuple(names), labels, lambda i: shown[i], lambda i: payloads[i], skipped=dict(found.skipped))


def _sorted_classes(names: set[str]) -> list[str]:
    """Return class names in order; by value where all are numbers, so that class 10 is number 10 and not 2."""
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _nothing_found(where: Path, skipped: Counter[str]) -> str:
    if any("idx" in reason for reason in skipped) or (where.is_dir() and any(where.glob("*idx3-ubyte*"))):
        return f"{where}: holds idx files. Say what they are: mnist:{where} or fashion-mnist:{where}"
    inside = ", ".join(f"{count} {reason}" for reason, count in skipped.most_common(5)) or "nothing at all"
    return f"{where}: holds no image (.jpg .png .webp .bmp .gif .tif .pgm .ppm). It holds {inside}."


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
    return Source(f"{count} glyphs of seed {seed}", glyphs.CLASS_NAMES, labels, lambda i: f"glyph {i}", payload)


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
    return Source(
        f"{prefix} {split}", names, labels.astype(np.int64),
        lambda i: f"{split} image {i}", lambda i: Pixels(images[i]), fit="pad",
    )  # fmt: skip
