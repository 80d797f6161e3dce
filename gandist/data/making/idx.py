"""Reads the idx files of MNIST and of the sets that share its form (LeCun et al. 1998)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gandist.errors import DataError

FILE_PREFIXES = {"train": "train", "test": "t10k"}

_UINT8 = 0x08
_SIZE_LIMIT_BYTES = 1 << 31


def read_pair(folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the images (n, height, width) and labels (n,) of a split, ``train`` or ``test``.

    Raises:
        DataError: a file is missing, damaged, or does not fit the other.

    """
    prefix = FILE_PREFIXES[split]
    image_file, label_file = _find(folder, f"{prefix}-images", 3), _find(folder, f"{prefix}-labels", 1)
    images, labels = read(image_file, 3), read(label_file, 1)
    if len(images) != len(labels):
        raise DataError(f"{image_file} holds {len(images)} images, but {label_file.name} {len(labels)} labels.")
    return images, labels


def _find(folder: Path, stem: str, dimensions: int) -> Path:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder. Give the one that holds {stem}-idx{dimensions}-ubyte.gz.")
    for dot in "-.":
        for ending in ("", ".gz"):
            path = folder / f"{stem}{dot}idx{dimensions}-ubyte{ending}"
            if path.is_file():
                return path
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
    raise DataError(f"{folder}: has no {stem}-idx{dimensions}-ubyte or .gz; it holds {found}.")


def read(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the uint8 array in an idx file, plain or gzipped; never more than its header promises is unpacked."""
    opener = gzip.open if path.suffix == ".gz" else Path.open
    try:
        with opener(path, "rb") as file:
            header = file.read(4)
            if len(header) < 4 or header[:2] != b"\0\0" or header[2:] != bytes([_UINT8, dimensions]):
                raise DataError(f"{path}: is not an idx file of bytes in {dimensions} dimension(s).")
            lengths = file.read(4 * dimensions).ljust(4 * dimensions, b"\0")
            shape = struct.unpack(f">{dimensions}I", lengths)
            size = math.prod(shape)
            if not 0 < size <= _SIZE_LIMIT_BYTES:
                raise DataError(f"{path}: its header gives the shape {shape}, which cannot be.")
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from None
    if len(data) != size:
        raise DataError(
            f"{path}: its header promises {size} bytes, it holds {'more' if len(data) > size else len(data)}."
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
