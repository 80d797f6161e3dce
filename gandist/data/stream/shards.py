"""Which shards a consumer of a stream reads, in which order, and how each becomes a whole file on this machine.

A consumer is a process that reads: a rank without workers, or one worker of a rank.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from gandist.data.order import perm
from gandist.data.remote.address import is_remote, shown
from gandist.data.remote.cache import Cache
from gandist.data.stream.pipe import is_pipe, pipe_shown, spool

T = TypeVar("T")


def shard_order(shards: int, *, seed: int, start: int, consumer: int, consumers: int) -> Iterator[int]:
    """Yield the numbers of the shards that one consumer reads, without end.

    Pass k is a permutation of all shards, a pure function of ``(seed, start, k)``. The passes lie one behind the other,
    and consumer j of J takes every J-th place from the j-th on: within a pass no two consumers read the same shard, and
    together they read every one, also where there are fewer shards than consumers.

    Args:
        shards: number of shards.
        seed: of the run.
        start: position in the run, in images, at which the stream begins.
        consumer: number of this consumer.
        consumers: how many there are, over all ranks.

    """
    place = consumer  # in the present pass
    for number in itertools.count():
        if place < shards:
            order = perm(shards, seed, start, number)
            yield from order[place::consumers].tolist()
            place += -(-(shards - place) // consumers) * consumers
        place -= shards


class Held(Protocol):
    """A shard that is on this machine as a whole, and stays there until it is closed."""

    @property
    def path(self) -> Path:
        """Where it is."""

    @property
    def close(self) -> Callable[[], object]:
        """Called when it is no longer needed."""


@dataclass(frozen=True)
class _InPlace:
    """A shard that stays where it is."""

    path: Path

    def close(self) -> None:
        """Do nothing."""


class StreamShards:
    """The shards of a stream, by number. It can be sent to another process.

    Args:
        urls: paths, urls that have been checked, or ``pipe:`` commands that the user has allowed.
        cache: keeps the shards that come from afar; None where none do.
        spool_folder: where the output of commands is kept while it is read.

    """

    def __init__(self, urls: Sequence[str], cache: Cache | None, spool_folder: Path) -> None:
        here = [not is_pipe(url) and not is_remote(url) for url in urls]
        # absolute, since a worker may be elsewhere
        self._urls = tuple(str(Path(url).absolute()) if local else url for url, local in zip(urls, here, strict=True))
        self._cache, self._spool_folder = cache, spool_folder.absolute()

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self._urls)

    def name(self, number: int) -> str:
        """Return what to call a shard in a message: its url without credentials."""
        url = self._urls[number]
        if is_pipe(url):
            return pipe_shown(url)
        return shown(url) if is_remote(url) else url

    def notes(self) -> tuple[str, ...]:
        """Return what a person should know of the fetching in this process since the last call."""
        return self._cache.notes() if self._cache is not None else ()

    @property
    def slow(self) -> bool:
        """Whether a shard has to be fetched before it can be read, so that it pays to begin early."""
        return any(is_pipe(url) or is_remote(url) for url in self._urls[:1])

    def hold(self, number: int) -> Held:
        """Make a shard a whole file on this machine.

        Raises:
            DataError: it cannot be fetched, or its command failed.
            MachineError: this machine has no room for it.

        """
        url = self._urls[number]
        if is_pipe(url):
            return spool(url, self._spool_folder)
        if is_remote(url):
            assert self._cache is not None, "shards from afar need a cache"
            return self._cache.lease(url)
        return _InPlace(Path(url))


def ahead(makers: Iterator[Callable[[], T]]) -> Iterator[T]:
    """Yield what the makers return, in order; a thread makes the next while the present one is in use."""
    coming: _Coming[T] | None = None
    for maker in makers:
        present, coming = coming, _Coming(maker)
        if present is not None:
            yield present.result()
    if coming is not None:
        yield coming.result()


class _Coming(Generic[T]):
    """A value, or an error, that a thread is making; nobody waits for the thread when the process ends."""

    def __init__(self, maker: Callable[[], T]) -> None:
        self._made: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._make, args=(maker,), name="next-shard", daemon=True)
        self._thread.start()

    def _make(self, maker: Callable[[], T]) -> None:
        try:
            self._made.append(maker())
        except BaseException as error:  # raised again where the value is asked for
            self._error = error

    def result(self) -> T:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._made.pop()
