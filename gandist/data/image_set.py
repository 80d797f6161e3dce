"""What a run asks of its real images: the image at any position."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from gandist.data.order import Ints

Images = NDArray[np.uint8]


class ImageSet(ABC):
    """Images at all positions of a run.

    Attributes:
        resolution: height and width in pixels.
        channels: 1 or 3.
        class_names: one for each label 0, 1, ...; empty for images without labels.
        class_counts: images of each class; ones for an endless set, whose classes are equally likely.
        samples: images in an epoch; None for an endless set.
        fingerprint: equal for two sets only if they hold the same image at every position.

    """

    resolution: int
    channels: int
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    samples: int | None
    fingerprint: str

    @abstractmethod
    def read(self, positions: Ints) -> tuple[Images, Ints]:
        """Return the images and labels (-1 for none) at ``positions``: shapes (n, H, W, C) and (n,).

        Raises:
            DataError: an image cannot be read or decoded; the message names its shard and byte.

        """
