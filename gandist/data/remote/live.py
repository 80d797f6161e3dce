"""What an order asks of the caches: the shards that are needed at once, and which node needs which."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gandist.data.image_set import Reading
from gandist.data.order import Ints

ShardsAt = Callable[[Ints], Ints]
"""Returns the shards of the samples at some positions."""

_POSITIONS_AT_ONCE = 1 << 18
_POSITIONS_IN_ALL = 1 << 22  # of larger sets, batches spread evenly are looked at


def node_slice(reading: Reading) -> range:
    """Return the places in a global batch that the ranks of this rank's node read."""
    size = reading.batch_images // reading.world
    first = reading.rank // reading.local_world * reading.local_world
    return range(first * size, min(first + reading.local_world, reading.world) * size)


def live_bytes(shards_at: ShardsAt, shard_bytes: Ints, samples: int, reading: Reading) -> int:
    """Return how much a node must hold so that it fetches no shard twice in an epoch.

    A shard is needed from when it may first be read, ``ahead_batches`` before its first sample is used, until its last
    one of the epoch is. The result is the most that is needed at one time in the epoch that begins at ``start``.

    Args:
        shards_at: see :data:`ShardsAt`.
        shard_bytes: size of each shard.
        samples: in an epoch.
        reading: how the ranks read.

    """
    where = np.array(node_slice(reading), dtype=np.int64)
    batches = -(-samples // reading.batch_images)
    stride = max(1, batches * len(where) // _POSITIONS_IN_ALL)
    looked_at = np.union1d(np.arange(0, batches, stride), batches - 1)  # the last may reach into the next epoch
    first_epoch = reading.start // samples
    epochs = (reading.start + batches * reading.batch_images) // samples - first_epoch + 1
    begin = np.full(epochs * len(shard_bytes), batches, dtype=np.int64)
    end = np.full(epochs * len(shard_bytes), -1, dtype=np.int64)
    step = max(1, _POSITIONS_AT_ONCE // len(where))
    for some in (looked_at[i : i + step] for i in range(0, len(looked_at), step)):
        positions = reading.start + (some * reading.batch_images)[:, None] + where
        use = (positions // samples - first_epoch) * len(shard_bytes) + shards_at(positions)
        np.minimum.at(begin, use.ravel(), np.repeat(some, len(where)))
        np.maximum.at(end, use.ravel(), np.repeat(some, len(where)))
    used = end >= 0
    sizes = np.tile(shard_bytes, epochs)[used]
    change = np.zeros(batches + 1, dtype=np.int64)
    unseen = stride - 1  # a shard may be used up to so many batches before and after those that were looked at
    np.add.at(change, np.maximum(begin[used] - reading.ahead_batches - unseen, 0), sizes)
    np.subtract.at(change, np.minimum(end[used] + unseen + 1, batches), sizes)
    return int(np.cumsum(change).max())


def lanes_fit(reading: Reading, lanes: int, stripe: int) -> bool:
    """Return whether each rank reads lanes of its own: then the nodes read disjoint parts of every epoch."""
    return stripe * lanes == reading.batch_images and lanes % reading.world == 0


def node_note(reading: Reading, *, chunk: int, lanes: int, stripe: int, longest_shard: int) -> str | None:
    """Return what to say to several nodes that will each fetch the whole set in every epoch, if they will.

    Args:
        reading: how the ranks read.
        chunk: of the order.
        lanes: of the order.
        stripe: of the order.
        longest_shard: most samples in a shard.

    """
    nodes = -(-reading.world // reading.local_world)
    if nodes == 1 or (chunk >= longest_shard and lanes_fit(reading, lanes, stripe)):
        return None
    choices = [
        n for n in range(reading.world, reading.batch_images + 1, reading.world) if reading.batch_images % n == 0
    ]
    better = next((n for n in choices if n >= 8), choices[-1])
    return (
        f"{nodes} nodes with a cache each will fetch every shard in every epoch. With --data.chunk {WHOLE_SHARDS} "
        f"--data.lanes {better} --data.stripe {reading.batch_images // better} each would fetch one {nodes}th: another "
        "order, so for a new run, and good only if the shards were shuffled when they were written, as prepare does."
    )


WHOLE_SHARDS = 1 << 31
"""A ``data.chunk`` that no shard exceeds."""
