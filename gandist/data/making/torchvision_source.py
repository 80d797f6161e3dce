"""Reads a data set of torchvision as a source: ``torchvision:CIFAR10:ROOT`` or ``torchvision:STL10:ROOT:unlabeled``."""

from __future__ import annotations

import inspect
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torchvision.datasets
from PIL import Image

from gandist.data.making.payload import Broken, Payload, PayloadError, Pixels
from gandist.data.making.pixels import flatten
from gandist.data.making.source import Source, identity_of
from gandist.data.order import Ints
from gandist.errors import DataError, did_you_mean

_LABEL_ATTRIBUTES = ("targets", "labels", "_labels")  # where torchvision's sets keep them


def torchvision_source(text: str, *, download: bool) -> Source:
    """Return the set that ``NAME:ROOT`` or ``NAME:ROOT:SPLIT`` names; nothing is fetched unless ``download``.

    Raises:
        DataError: torchvision has no such set or split, or its files are not under ROOT.

    """
    name, _, rest = text.partition(":")
    root, colon, split = rest.rpartition(":")
    if not colon or "/" in split:
        root, split = rest, "train"
    if name not in torchvision.datasets.__all__ or not root:
        hint = did_you_mean(name, torchvision.datasets.__all__)
        raise DataError(f"torchvision:{text}: write torchvision:NAME:ROOT with a name of torchvision.datasets.{hint}")
    dataset = _opened(name, Path(root).expanduser(), split, download=download)
    labels = _labels(dataset, name)
    class_names = _class_names(dataset, labels)

    def payload(i: int) -> Payload:
        try:
            image = dataset[i][0]
            if not isinstance(image, Image.Image):
                raise PayloadError(f"is a {type(image).__name__}, not an image")
            return Pixels(np.asarray(flatten(image, 1 if image.mode in ("1", "L") else 3)))
        except PayloadError as error:
            return Broken(str(error))
        except Exception as error:  # whatever torchvision's reader of this set raises concerns this image alone
            return Broken(f"cannot be read ({error})")

    title = f"torchvision {name} {split}"
    identity = identity_of(title, root, len(labels), zlib.crc32(labels.tobytes()))
    return Source(title, identity, class_names, labels, lambda i: f"{name} {split} image {i}", payload)


def _opened(name: str, root: Path, split: str, *, download: bool) -> Any:
    kind = getattr(torchvision.datasets, name)
    accepted = inspect.signature(kind).parameters
    arguments: dict[str, Any] = {"root": str(root)}
    if "train" in accepted:
        if split not in ("train", "test"):
            raise DataError(f"torchvision:{name}:{root}:{split}: {name} has the splits train and test.")
        arguments["train"] = split == "train"
    elif "split" in accepted:
        arguments["split"] = split
    elif split != "train":
        raise DataError(f"torchvision:{name}:{root}:{split}: {name} is not divided into splits.")
    if download:
        if "download" not in accepted:
            raise DataError(f"torchvision cannot download {name}; get it by hand and put it under {root}.")
        arguments["download"] = True
    try:
        return kind(**arguments)
    except Exception as error:  # every set has errors of its own
        remedy = "" if download else " If the files are not there yet, add --download."
        raise DataError(f"torchvision cannot open {name} under {root}: {error}.{remedy}") from error


def _labels(dataset: Any, name: str) -> Ints:
    """Return every image's class; read from the images themselves where the set keeps no list; -1 for none."""
    size = len(dataset)
    if not size:
        raise DataError(f"torchvision's {name} holds no images here.")
    values = next((vars(dataset)[key] for key in _LABEL_ATTRIBUTES if key in vars(dataset)), None)
    if values is None or len(values) != size:
        values = [dataset[i][1] for i in range(size)]
    try:
        labels = np.asarray(values)
    except ValueError:  # targets of uneven shapes, such as boxes
        return np.full(size, -1, dtype=np.int64)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or int(labels.min()) < 0:
        return np.full(size, -1, dtype=np.int64)
    return labels.astype(np.int64)


def _class_names(dataset: Any, labels: Ints) -> tuple[str, ...]:
    count = int(labels.max()) + 1
    known = vars(dataset).get("classes") or getattr(type(dataset), "classes", None) or ()
    if len(known) < count or not all(isinstance(name, str) for name in known):
        known = [str(number) for number in range(count)]
    return tuple(known) if count else ()
