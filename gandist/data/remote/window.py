"""Gets ready the shards that a rank reads next, in threads beside the trainer.

1. A planner walks the order ahead, batch by batch, and notes which shards the coming batches need.
2. A few fetchers lease those shards, in the order in which they are needed; what is not here is fetched.
3. The loader says which batch it delivered; leases on shards that no coming batch needs are given back.

Nothing that goes wrong here ends a run: the reader that needs the shard meets the same trouble, and reports it.
"""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from gandist.data.image_set import Follower
from gandist.data.remote.cache import Lease
from gandist.data.remote.room import NoRoomError

FETCHERS = 4
"""Shards that are fetched at a time."""
HORIZON_IMAGES = 1 << 17
"""How far the planner looks ahead."""
LEASES_AT_MOST = 256
"""Open files are scarce: a process may often have no more than 1024."""

_BATCHES_AT_ONCE = 64  # are planned before the planner listens again
_LAST_WAIT_SECONDS = 2.0


class Leases(Protocol):
    """Where leases on shards come from."""

    def lease(self, shard: int, *, beyond: bool = True, stop: threading.Event | None = None) -> Lease:
        """Return a lease on a shard."""


class Plan:
    """Which shards the coming batches need, in the order of need.

    Batches are numbered from the first that the run reads. The plan reaches as far as the budget and the horizon let
    it, and at least as far as batches are read ahead.

    Args:
        shards_of: returns the shards that a batch needs.
        shard_bytes: size of each shard.
        budget_bytes: most that the shards of the plan may have; None for no bound.
        ahead_batches: the least distance to plan.
        horizon_batches: the greatest.

    """

    def __init__(
        self,
        shards_of: Callable[[int], Sequence[int]],
        shard_bytes: Sequence[int],
        *,
        budget_bytes: int | None,
        ahead_batches: int,
        horizon_batches: int,
    ) -> None:
        self._shards_of, self._shard_bytes, self._budget_bytes = shards_of, shard_bytes, budget_bytes
        self._ahead, self._horizon = ahead_batches, max(horizon_batches, ahead_batches)
        self._next, self._end = 0, 0  # the first batch that was not delivered; the first that is not planned
        self._last_need: dict[int, int] = {}  # shard -> the last planned batch that needs it; by first need
        self._bytes = 0
        self._peeked: Sequence[int] | None = None  # the shards of the batch at the end

    def __iter__(self) -> Iterator[int]:
        """Yield the shards of the plan, the one that is needed first before all others."""
        return iter(self._last_need)

    def __contains__(self, shard: int) -> bool:
        return shard in self._last_need

    def passed(self, batch: int) -> list[int]:
        """Hear that ``batch`` was delivered; return the shards that have left the plan."""
        self._next = max(self._next, batch + 1)
        if self._end < self._next:
            self._end, self._peeked = self._next, None
        while self._end < self._next + self._ahead:  # first, so that what is still needed is not given back
            self._add(self._at_the_end())
        gone = [shard for shard, last in self._last_need.items() if last < self._next]
        for shard in gone:
            del self._last_need[shard]
            self._bytes -= self._shard_bytes[shard]
        return gone

    def extend(self, batches: int) -> bool:
        """Plan up to ``batches`` more; return whether there may be more to plan."""
        for _ in range(batches):
            if self._end >= self._next + self._horizon:
                return False
            shards = self._at_the_end()
            if self._end >= self._next + self._ahead and self._exceeds(shards):
                return False
            self._add(shards)
        return True

    def _at_the_end(self) -> Sequence[int]:
        if self._peeked is None:
            self._peeked = self._shards_of(self._end)
        return self._peeked

    def _exceeds(self, shards: Sequence[int]) -> bool:
        if self._budget_bytes is None:
            return False
        fresh = [shard for shard in shards if shard not in self._last_need]
        total = self._bytes + sum(self._shard_bytes[shard] for shard in fresh)
        return total > self._budget_bytes or len(self._last_need) + len(fresh) > LEASES_AT_MOST

    def _add(self, shards: Sequence[int]) -> None:
        for shard in shards:
            if shard not in self._last_need:
                self._bytes += self._shard_bytes[shard]
            self._last_need[shard] = self._end
        self._peeked = None
        self._end += 1


@dataclass(frozen=True)
class _Arrived:
    """What a fetcher brings: a lease, or None and whether there was no room."""

    shard: int
    lease: Lease | None
    no_room: bool = False


class Window(Follower):
    """The planner and the fetchers of one rank.

    Args:
        leases: where leases come from.
        plan: what to get ready.
        batch_of: returns the number of the batch at a position of the run.
        hold: whether leases are held while they are planned for, or given back at once since everything has room.

    """

    def __init__(self, leases: Leases, plan: Plan, batch_of: Callable[[int], int], *, hold: bool) -> None:
        self._leases, self._plan, self._batch_of, self._hold = leases, plan, batch_of, hold
        self._news: queue.SimpleQueue[int | _Arrived | None] = queue.SimpleQueue()  # a position, a shard, or the end
        self._tasks: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._held: dict[int, Lease | None] = {}  # what is here; None for a shard that could not be had or is not held
        self._under_way: set[int] = set()
        self._planned = threading.Event()  # that nothing more will be
        self._full = False  # until a batch is delivered, when leases may have been given back
        # Threads of this kind never keep an interpreter from its end, whatever they wait for.
        self._planner = threading.Thread(target=self._work, name="shards-ahead", daemon=True)
        self._fetchers = [threading.Thread(target=self._fetch, name=f"fetch-{n}", daemon=True) for n in range(FETCHERS)]

    def passed(self, position: int) -> None:
        """Hear that the batch at ``position`` was delivered; never waits."""
        self._news.put(position)

    def __enter__(self) -> Self:
        # An interpreter that ends under a thread in the middle of numpy's compiled code is aborted.
        atexit.register(self._end_planning)
        for thread in (self._planner, *self._fetchers):
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        atexit.unregister(self._end_planning)
        self._end_planning()
        self._planner.join(_LAST_WAIT_SECONDS)  # a fetcher may hang on a silent server; it ends when that does

    def _end_planning(self) -> None:
        self._stop.set()
        self._news.put(None)
        self._planned.wait()

    def _work(self) -> None:
        try:
            more = True
            while not self._stop.is_set():
                more = more and self._plan.extend(_BATCHES_AT_ONCE)
                self._hand_out()
                more = self._listen(wait=not more) or more
        finally:
            self._planned.set()
            self._give_all_back()

    def _hand_out(self) -> None:
        for shard in self._plan:
            if len(self._under_way) >= FETCHERS or self._full:
                return
            if shard not in self._held and shard not in self._under_way:
                self._under_way.add(shard)
                self._tasks.put(shard)

    def _listen(self, *, wait: bool) -> bool:
        """Hear what is new, after waiting for it if asked to; return whether there is something to plan."""
        advanced = False
        while wait or not self._news.empty():
            news = self._news.get()
            wait = False
            if isinstance(news, _Arrived):
                self._keep(news)
            elif news is not None:
                for shard in self._plan.passed(self._batch_of(news)):
                    self._give_back(shard)
                advanced, self._full = True, False
        return advanced

    def _keep(self, arrived: _Arrived) -> None:
        self._under_way.discard(arrived.shard)
        if arrived.no_room:
            self._full = True
            return
        wanted = arrived.shard in self._plan
        if arrived.lease is not None and not (self._hold and wanted):
            arrived.lease.close()
        if wanted:
            self._held[arrived.shard] = arrived.lease

    def _give_back(self, shard: int) -> None:
        lease = self._held.pop(shard, None)
        if lease is not None:
            lease.close()

    def _give_all_back(self) -> None:
        for _ in self._fetchers:
            self._tasks.put(None)
        for shard in list(self._held):
            self._give_back(shard)
        while self._under_way:
            if isinstance(news := self._news.get(), _Arrived):
                self._under_way.discard(news.shard)
                if news.lease is not None:
                    news.lease.close()

    def _fetch(self) -> None:
        while (shard := self._tasks.get()) is not None:
            found = _Arrived(shard, None)
            try:
                if not self._stop.is_set():
                    found = _Arrived(shard, self._leases.lease(shard, beyond=False, stop=self._stop))
            except NoRoomError:
                found = _Arrived(shard, None, no_room=True)
            except Exception:  # whatever it is, the reader that needs the shard meets it too
                pass
            self._news.put(found)
