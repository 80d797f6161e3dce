"""An endless set of made digits."""

from __future__ import annotations

import hashlib

from gandist.config import DataConfig
from gandist.data import glyphs
from gandist.data.image_set import Images, ImageSet
from gandist.data.order import Ints
from gandist.data.shards.index import check_classes


class GlyphImages(ImageSet):
    """An endless set of made digits; position ``t`` is sample ``t``."""

    samples = None

    def __init__(self, data: DataConfig, seed: int) -> None:
        names = glyphs.CLASS_NAMES
        self._classes = check_classes(data.classes, names) if data.classes is not None else list(range(len(names)))
        self._seed = seed
        self.resolution, self.channels = data.resolution, data.channels
        self.class_names = tuple(names[number] for number in self._classes)
        self.class_counts = (1,) * len(self._classes)
        parts = ("glyphs", glyphs.GLYPHS_VERSION, seed, self.resolution, self.channels, self._classes)
        self.fingerprint = hashlib.sha256(repr(parts).encode()).hexdigest()

    def read(self, positions: Ints, out: Images | None = None) -> tuple[Images, Ints]:
        """Return the images and labels at ``positions``."""
        images = self._room(len(positions), out)
        images[:], labels = glyphs.draw(
            positions, seed=self._seed, resolution=self.resolution, channels=self.channels, classes=self._classes
        )
        return images, labels
