"""An endless set of points on a ring, as images of one place with two numbers."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np

from gandist.config import DataConfig
from gandist.data import ring
from gandist.data.image_set import Images, ImageSet
from gandist.data.order import Ints
from gandist.errors import ConfigError


class RingImages(ImageSet):
    """An endless set of points; position ``t`` is sample ``t``, and a label is the number of the point's mode."""

    samples = None
    resolution, channels = 1, 2
    numbers: Literal["uint8", "float16", "float32"] = "float32"
    class_names = tuple(str(mode) for mode in range(ring.MODES))
    class_counts = (1,) * ring.MODES

    def __init__(self, data: DataConfig, seed: int) -> None:
        wrong = (
            ("resolution", data.resolution, "1", data.resolution != 1),
            ("channels", data.channels, "2", data.channels != 2),
            ("classes", data.classes, "null", data.classes is not None),
            ("hflip", data.hflip, "false", data.hflip),
        )
        for name, value, right, is_wrong in wrong:
            if is_wrong:
                shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
                raise ConfigError(
                    f"data.{name} is {shown}, but the ring is a set of points with two coordinates. "
                    f"Set --data.{name} {right}, or start from configs/ring_mlp.yaml."
                )
        self._seed = seed
        self.fingerprint = hashlib.sha256(repr(("ring", ring.RING_VERSION, seed)).encode()).hexdigest()

    def read(self, positions: Ints, out: Images | None = None) -> tuple[Images, Ints]:
        """Return the points at ``positions``, as the bytes of their coordinates, and their modes."""
        images = self._room(len(positions), out)
        points, modes = ring.draw(positions, seed=self._seed)
        images[:] = points.view(np.uint8).reshape(images.shape)
        return images, modes
