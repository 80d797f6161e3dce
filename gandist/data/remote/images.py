"""The images of indexed shards that lie elsewhere."""

from __future__ import annotations

import copy

import numpy as np

from gandist.config import DataConfig
from gandist.data.image_set import Reading, Report
from gandist.data.order import Ints, Order
from gandist.data.remote.live import WHOLE_SHARDS, live_bytes, node_note
from gandist.data.remote.places import CachedPlaces
from gandist.data.remote.window import HORIZON_IMAGES, Plan, Window
from gandist.data.shard_images import ShardImages
from gandist.data.shards.index import Index
from gandist.errors import ConfigError


class RemoteImages(ShardImages):
    """The images of :class:`~gandist.data.shard_images.ShardImages`, read through the cache of this node.

    Attributes:
        shard_bytes: size of each shard.
        shards_at: returns the shards of the samples at some positions.

    """

    def __init__(self, index: Index, places: CachedPlaces, data: DataConfig, seed: int) -> None:
        super().__init__(index, places, data, seed)
        self._places = places
        self.shard_bytes = np.array([shard.bytes for shard in index.shards], dtype=np.int64)
        self.shards_at = ShardsInOrder(self._order, self._shard_ends)
        self._total_bytes = int(self.shard_bytes[self._kept.counts > 0].sum())

    def report(self) -> Report:
        """Return what happened in this process since the last call."""
        report = super().report()
        return report._replace(notes=report.notes + self._places.cache.notes())

    def remarks(self, reading: Reading) -> tuple[str, ...]:
        """Return what a person should know before a run reads this set.

        Raises:
            ConfigError: the cache is smaller than what the order needs at once.

        """
        capacity = self._places.cache.capacity_bytes()
        if self._total_bytes > capacity:
            needed = live_bytes(self.shards_at, self.shard_bytes, self._order.samples, reading)
            if needed > capacity:
                raise ConfigError(self._too_small(capacity, needed))
        note = node_note(
            reading,
            chunk=self._order.chunk,
            lanes=self._order.lanes,
            stripe=self._order.stripe,
            longest_shard=int(self._kept.counts.max()),
        )
        return (note,) if note else ()

    def follower(self, reading: Reading) -> Window:
        """Return what fetches the shards that a rank reads next."""
        capacity = self._places.cache.capacity_bytes()
        hold = self._total_bytes > capacity
        size = reading.batch_images // reading.world
        mine = reading.start + reading.rank * size + np.arange(size, dtype=np.int64)
        shards_at = ShardsInOrder(copy.deepcopy(self._order), self._shard_ends)  # of its own: it is used in a thread

        def shards_of(batch: int) -> list[int]:
            return list(dict.fromkeys(shards_at(mine + batch * reading.batch_images).tolist()))

        plan = Plan(
            shards_of,
            self.shard_bytes.tolist(),
            budget_bytes=capacity // reading.local_world if hold else None,
            ahead_batches=reading.ahead_batches + 1,
            horizon_batches=HORIZON_IMAGES // reading.batch_images,
        )
        return Window(self._places, plan, lambda p: (p - reading.start) // reading.batch_images, hold=hold)

    def _too_small(self, capacity: int, needed: int) -> str:
        return (
            f"execution.cache: {self._places.cache.folder} can hold {_gb(capacity)} of the {_gb(self._total_bytes)} of "
            f"shards, but data.chunk {self._order.chunk} with data.lanes {self._order.lanes} needs {_gb(needed)} at "
            "once to fetch nothing twice in an epoch. Allow more with --execution.cache.gb or another "
            f"--execution.cache.dir; or shuffle whole shards with --data.chunk {WHOLE_SHARDS} --data.lanes 8, which is "
            "good only if they were shuffled when they were written, as prepare does, and is another order: for a new "
            "run."
        )


class ShardsInOrder:
    """The shards at the positions of an order."""

    def __init__(self, order: Order, ends: Ints) -> None:
        self._order, self._ends = order, ends

    def __call__(self, positions: Ints) -> Ints:
        """Return the shard of the sample at each position."""
        return np.searchsorted(self._ends, self._order.locate(positions), side="right")


def _gb(count: int) -> str:
    return f"{count / 1e9:.3g} GB"
