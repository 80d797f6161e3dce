"""The real images of a run, as its recipe names them."""

from __future__ import annotations

from pathlib import Path

from gandist.config import DataConfig
from gandist.data.glyph_images import GlyphImages
from gandist.data.image_set import ImageSet
from gandist.data.shard_images import ShardImages
from gandist.data.shards.index import Index
from gandist.data.shards.index_files import read_index
from gandist.data.shards.store import LocalPlaces
from gandist.errors import DataError


def open_images(data: DataConfig, seed: int) -> ImageSet:
    """Open the images that a recipe asks for; files are opened when they are first read.

    Raises:
        DataError: there is no prepared set at ``data.shards``, it is damaged, or it does not fit the recipe.

    """
    if data.shards == "glyphs":
        return GlyphImages(data, seed)
    folder = Path(data.shards).expanduser()
    index = read_index(folder)
    _check_fits(index, folder, data)
    return ShardImages(index, LocalPlaces(folder, index.shards), data, seed)


def _check_fits(index: Index, folder: Path, data: DataConfig) -> None:
    if index.resolution != data.resolution:
        raise DataError(
            f"{folder}: holds images of {index.resolution} px, but data.resolution is {data.resolution}. "
            f"Train with --data.resolution {index.resolution}, or prepare the source again with "
            f"--resolution {data.resolution}."
        )
    if index.channels != data.channels:
        kinds = {1: "greyscale (1 channel)", 3: "RGB (3 channels)"}
        raise DataError(
            f"{folder}: holds {kinds[index.channels]} images, but data.channels is {data.channels}. "
            f"Train with --data.channels {index.channels}, or prepare the source again with "
            f"--channels {data.channels}."
        )
