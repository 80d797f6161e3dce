"""The real images of a run, as its recipe names them."""

from __future__ import annotations

import weakref
from pathlib import Path

from gandist.config import CacheConfig, DataConfig
from gandist.data.glyph_images import GlyphImages
from gandist.data.image_set import ImageSet
from gandist.data.remote.address import check_address, check_plain, is_remote, join, shown
from gandist.data.remote.cache import Cache, Lease, open_cache
from gandist.data.remote.images import RemoteImages
from gandist.data.remote.places import CachedPlaces
from gandist.data.ring_images import RingImages
from gandist.data.shard_images import ShardImages
from gandist.data.shards.index import Index
from gandist.data.shards.index_files import (
    INDEX_NAME,
    TENSORS_NAME,
    announced_tensors,
    check_shards,
    load_index,
    read_index,
)
from gandist.data.shards.store import LocalPlaces
from gandist.data.stream.images import StreamedImages, is_stream, open_stream
from gandist.errors import ConfigError, DataError

_INDEX_LIMIT_BYTES = 1 << 30
_KINDS = {1: "greyscale (1 channel) images", 3: "RGB (3 channels) images"}
_IN_MEMORY_BYTES = 64 << 20  # larger arrays of an index from afar become a file, which all processes map


def open_images(
    data: DataConfig, seed: int, cache: CacheConfig | None = None, *, allow_pipe: bool = False
) -> ImageSet | StreamedImages:
    """Open the images that a recipe asks for; files are opened when they are first read.

    Raises:
        ConfigError: a url is not accepted, the knobs of a stream do not fit together, or a command is not allowed.
        DataError: there is no prepared set at ``data.shards``, it is damaged, or it does not fit the recipe.

    """
    if data.shards == "glyphs":
        _check_pictures(data)
        return GlyphImages(data, seed)
    if data.shards == "ring":
        return RingImages(data, seed)
    if is_stream(data.shards):
        _check_pictures(data)
        return open_stream(data, seed, cache or CacheConfig(), allow_pipe=allow_pipe)
    check_plain(data.shards)
    return _open_indexed(data, seed, cache or CacheConfig())


def _open_indexed(data: DataConfig, seed: int, settings: CacheConfig) -> ImageSet:
    """Open the images of shards with an index: here or elsewhere, beside their index or below ``data.root``."""
    root = data.root if data.root is not None else data.shards
    check_plain(root)
    for place in (data.shards, root):
        if is_remote(place):
            check_address(place, allow_http=data.allow_http)
    cache = open_cache(settings, allow_http=data.allow_http) if is_remote(data.shards) or is_remote(root) else None
    lease = None
    if is_remote(data.shards):
        assert cache is not None
        index, lease = _fetch_index(data.shards, cache)
    else:
        index = read_index(Path(data.shards).expanduser(), shards_elsewhere=data.root is not None)
    _check_fits(index, shown(data.shards), data)
    if is_remote(root):
        assert cache is not None
        images: ShardImages = RemoteImages(index, CachedPlaces(root, index.shards, cache), data, seed)
    else:
        folder = Path(root).expanduser()
        if is_remote(data.shards) or data.root is not None:
            check_shards(folder, index)
        images = ShardImages(index, LocalPlaces(folder, index.shards), data, seed)
    if lease is not None:
        weakref.finalize(images, lease.close)  # the arrays stay in the cache as long as somebody may map them
    return images


def _fetch_index(url: str, cache: Cache) -> tuple[Index, Lease | None]:
    """Return the index below a url, and the lease on its arrays where they are too large to be kept in memory.

    The sizes of its shards are looked at when each is fetched.
    """
    where = join(url, INDEX_NAME)
    try:
        description = cache.read(where, _INDEX_LIMIT_BYTES)
    except DataError as error:
        raise DataError(
            f"{error} data.shards {shown(url)} must be a folder that holds {INDEX_NAME} and {TENSORS_NAME}."
        ) from None
    tensors, (tensors_bytes, sha256) = join(url, TENSORS_NAME), announced_tensors(description, shown(where))
    if tensors_bytes <= _IN_MEMORY_BYTES:
        return load_index(description, cache.read(tensors, 2 * _IN_MEMORY_BYTES), shown(where)), None
    lease = cache.lease(tensors, sha256=sha256)
    return load_index(description, lease.path, shown(where)), lease


def _check_pictures(data: DataConfig) -> None:
    if data.resolution < 4:
        raise ConfigError(
            f"data.resolution {data.resolution}: pictures have at least 4 px; points are data.shards ring."
        )
    if data.channels not in (1, 3):
        raise ConfigError(f"data.channels {data.channels}: pictures have 1 channel (greyscale) or 3 (RGB).")


def _check_fits(index: Index, folder: str, data: DataConfig) -> None:
    if index.resolution != data.resolution:
        raise DataError(
            f"{folder}: holds images of {index.resolution} px, but data.resolution is {data.resolution}. "
            f"Train with --data.resolution {index.resolution}, or prepare the source again with "
            f"--resolution {data.resolution}."
        )
    channels, kind = index.channels, _KINDS.get(index.channels, f"{index.numbers} ({index.channels} channels)")
    if index.latents is not None:
        channels = index.latents.channels
        kind = f"moments of latents with {channels} channels"
    if channels != data.channels:
        again = "" if index.latents else f", or prepare the source again with --channels {data.channels}"
        raise DataError(
            f"{folder}: holds {kind}, but data.channels is {data.channels}. "
            f"Train with --data.channels {channels}{again}."
        )
