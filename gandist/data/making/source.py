"""What a source of images is to everything that comes after it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gandist.data.making.payload import Payload
from gandist.data.making.pixels import Fit
from gandist.data.order import Ints


@dataclass(frozen=True, eq=False)
class Source:
    """The images of a source, in its own order.

    Attributes:
        title: what it is, in words that do not depend on where it lies.
        identity: a digest that changes when the images do.
        class_names: empty for images without labels.
        labels: class of each image; -1 for none.
        name: the name of image ``i``, for people only.
        payload: where the bytes of image ``i`` are.
        fit: how its images are best made square.
        skipped: members that are no images, by what they are.

    """

    title: str
    identity: str
    class_names: tuple[str, ...]
    labels: Ints
    name: Callable[[int], str]
    payload: Callable[[int], Payload]
    fit: Fit = "crop"
    skipped: Mapping[str, int] = field(default_factory=dict)


def identity_of(*parts: object) -> str:
    """Return a digest of what tells a source from another; every part is taken by its ``str()``."""
    return hashlib.sha256("\0".join(map(str, parts)).encode(errors="surrogateescape")).hexdigest()
