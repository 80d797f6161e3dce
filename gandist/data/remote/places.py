"""The shards of an index that lie below a url, read through the cache."""

from __future__ import annotations

import os
from collections.abc import Sequence

from gandist.data.remote.address import join, shown
from gandist.data.remote.cache import Cache, Lease
from gandist.data.shards.index import Shard


class CachedPlaces:
    """Shards below ``root``; it can be sent to another process."""

    def __init__(self, root: str, shards: Sequence[Shard], cache: Cache) -> None:
        self.cache = cache
        self._root = root
        self._shards = [(shard.url, shard.bytes, shard.sha256) for shard in shards]

    def open(self, shard: int) -> int:
        """Return a new file descriptor of a shard, which is fetched if it is not here.

        The descriptor holds no lease: readers keep many open, and what the window ahead no longer needs may go.

        Raises:
            DataError: the shard cannot be had, or is not the one that was indexed.
            MachineError: this machine cannot fetch or keep it.
            OSError: it cannot be read just now.

        """
        with self.lease(shard) as lease:
            return os.open(lease.path, os.O_RDONLY | os.O_CLOEXEC)

    def lease(self, shard: int, **how: object) -> Lease:
        """Return a lease on a shard; see :meth:`Cache.lease <gandist.data.remote.cache.Cache.lease>`."""
        _, size, sha256 = self._shards[shard]
        return self.cache.lease(self._url(shard), size=size, sha256=sha256, **how)  # type: ignore[arg-type]

    def name(self, shard: int) -> str:
        """Return the shard's url, without secrets."""
        return shown(self._url(shard))

    def _url(self, shard: int) -> str:
        return join(self._root, self._shards[shard][0])
