"""The order of the real images: a pure function from position in the run to sample, at any number of ranks.

Position ``t`` counts the real images that the run has consumed, over all ranks and epochs. :meth:`Order.locate` says
which sample stands there. Nothing else is needed to go on after a stop, at another batch size or world size: the state
of the data is the number ``t``.

An epoch is shuffled in two layers. Runs of ``chunk`` neighbouring samples of a shard stay together and are shuffled as
wholes; then the samples within each ``block`` of the result are shuffled against each other. Small chunks shuffle
better, large ones read more sequentially. With ``lanes`` above 1 the epoch is cut into that many independent streams
which take turns, ``stripe`` positions at a time, so that nodes with separate caches read separate shards.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ORDER_VERSION = 1
"""Raised by any change that makes a position mean another sample; part of every fingerprint."""

Ints = NDArray[np.int64]
Unsigned = NDArray[np.unsignedinteger[Any]]
Words = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_EPOCHS_CACHED = 2  # a batch may straddle two


def key64(*key: int | str) -> np.uint64:
    """Return 64 bits that stand for ``key``; the same on every machine and version."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def mix(x: Words) -> Words:
    """Return the splitmix64 finaliser of each word (Steele, Lea & Flood 2014, constants of Stafford's variant 13)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def words(positions: Ints, *key: int | str) -> Words:
    """Return one uniform 64-bit word for each position, a pure function of ``(key, position)``."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        return mix(positions.astype(np.uint64) * _GOLDEN + key64(*key))


def coins(positions: Ints, *key: int | str) -> NDArray[np.bool_]:
    """Return one fair coin for each position, a pure function of ``(key, position)``."""
    heads: NDArray[np.bool_] = words(positions, *key) >= np.uint64(1 << 63)
    return heads


def perm(n: int, *key: int) -> Ints:
    """Return a permutation of ``0..n-1``, a pure function of ``(n, key)`` that no numpy version changes."""
    return np.argsort(words(np.arange(n, dtype=np.int64), *key), kind="stable").astype(np.int64, copy=False)


@dataclass(frozen=True)
class _Epoch:
    """One epoch's shuffle of chunks, and the lanes' shares of it."""

    chunks: Unsigned  # (chunks,) the chunk at each place of the shuffle
    places: Unsigned  # (chunks + 1,) running total of their lengths
    lane_first: Ints  # (lanes,) positions that fell to the lane in earlier epochs
    lane_count: Ints  # (lanes,) positions that fall to the lane in this one
    lane_base: Ints  # (lanes,) first place of the lane


class Order:
    """The samples at all positions of a run, for shards with ``counts`` samples.

    Every epoch (``sum(counts)`` consecutive positions from a multiple of that number) holds each sample once.

    Args:
        counts: samples in each shard, zeros allowed, at least one sample in all.
        seed: any integer.
        chunk: samples that stay together.
        block: samples that are shuffled against each other.
        lanes: independent streams in an epoch.
        stripe: positions taken from one lane at a time.

    """

    def __init__(
        self,
        counts: Sequence[int] | Ints,
        seed: int,
        *,
        chunk: int = 32,
        block: int = 8192,
        lanes: int = 1,
        stripe: int = 1,
    ) -> None:
        if min(chunk, block, lanes, stripe) < 1:
            raise ValueError("chunk, block, lanes and stripe are at least 1")
        self.seed, self.chunk, self.block, self.lanes, self.stripe = int(seed), chunk, block, lanes, stripe
        self._counts = np.asarray(counts, dtype=np.int64)
        self._shard_first = np.cumsum(self._counts) - self._counts  # the shard's first sample
        per_shard = -(-self._counts // chunk)  # no chunk crosses a shard, the last may be short
        self._chunk_ends = np.cumsum(per_shard)
        self._chunk_first = self._chunk_ends - per_shard
        self.samples = int(self._counts.sum())
        if self.samples < 1:
            raise ValueError("an order needs at least one sample")
        self._epochs: OrderedDict[int, _Epoch] = OrderedDict()
        self._blocks: OrderedDict[tuple[int, int, int], Ints] = OrderedDict()

    def locate(self, positions: Ints) -> Ints:
        """Return the sample at each position.

        Args:
            positions: any shape, not negative, in any order.

        """
        t = np.asarray(positions, dtype=np.int64)
        if t.size and int(t.min()) < 0:
            raise ValueError(f"position {int(t.min())} is negative")
        samples = np.empty_like(t)
        epochs = t // self.samples
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            samples[here] = self._in_epoch(epoch, t[here])
        return samples

    def fingerprint(self, content: str) -> str:
        """Return a digest of this order over the data that ``content`` identifies; equal digests mean equal samples."""
        parts = (ORDER_VERSION, content, self.seed, self.chunk, self.block, self.lanes, self.stripe)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def _in_epoch(self, epoch: int, t: Ints) -> Ints:
        plan = self._epoch(epoch)
        lane = (t // self.stripe) % self.lanes
        turn = self.stripe * self.lanes
        within = np.clip(t % turn - lane * self.stripe, 0, self.stripe)
        p = t // turn * self.stripe + within - plan.lane_first[lane]
        block = p // self.block
        places = np.empty_like(t)
        group = lane * (self.samples // self.block + 1) + block
        for value in np.unique(group).tolist():
            here = group == value
            which = int(np.argmax(here))
            a_lane, a_block = int(lane[which]), int(block[which])
            shuffle = self._block(epoch, a_lane, a_block, int(plan.lane_count[a_lane]))
            places[here] = plan.lane_base[a_lane] + a_block * self.block + shuffle[p[here] - a_block * self.block]
        nth = np.searchsorted(plan.places, places.astype(plan.places.dtype), side="right") - 1
        return self._first_of(plan.chunks[nth].astype(np.int64)) + places - plan.places[nth].astype(np.int64)

    def _first_of(self, chunks: Ints) -> Ints:
        """Return the first sample of each chunk."""
        shard = np.searchsorted(self._chunk_ends, chunks, side="right")
        first: Ints = self._shard_first[shard] + (chunks - self._chunk_first[shard]) * self.chunk
        return first

    def __getstate__(self) -> dict[str, Any]:  # another process makes its own shuffles, of other positions
        return {**self.__dict__, "_epochs": OrderedDict(), "_blocks": OrderedDict()}

    def _lengths(self) -> Ints:
        """Return the length of every chunk."""
        filled = self._counts > 0
        lengths = np.full(self._chunk_ends[-1], self.chunk, dtype=np.int64)
        lengths[self._chunk_ends[filled] - 1] = (self._counts[filled] - 1) % self.chunk + 1
        return lengths

    def _epoch(self, epoch: int) -> _Epoch:
        plan = self._epochs.get(epoch)
        if plan is None:
            shuffle = perm(int(self._chunk_ends[-1]), self.seed, epoch, 0)
            places = np.concatenate([[0], np.cumsum(self._lengths()[shuffle])])
            small = np.uint32 if self.samples < 1 << 32 else np.uint64  # half the memory, for all but the largest sets
            first, last = (_shares(n * self.samples, self.lanes, self.stripe) for n in (epoch, epoch + 1))
            count = last - first
            plan = _Epoch(shuffle.astype(small), places.astype(small), first, count, np.cumsum(count) - count)
            self._epochs[epoch] = plan
            if len(self._epochs) > _EPOCHS_CACHED:
                self._epochs.popitem(last=False)
        return plan

    def _block(self, epoch: int, lane: int, block: int, lane_count: int) -> Ints:
        key = (epoch, lane, block)
        shuffle = self._blocks.get(key)
        if shuffle is None:
            size = min(self.block, lane_count - block * self.block)
            shuffle = self._blocks[key] = perm(size, self.seed, epoch, 1, lane, block)
            if len(self._blocks) > 2 * self.lanes + 2:
                self._blocks.popitem(last=False)
        return shuffle


def _shares(x: int, lanes: int, stripe: int) -> Ints:
    """Return how many of the positions ``0..x-1`` fall to each lane."""
    turns, rest = divmod(x, stripe * lanes)
    return turns * stripe + np.clip(rest - np.arange(lanes, dtype=np.int64) * stripe, 0, stripe)
