"""What is got ready ahead of a run, how much an order needs at once, and what each node needs."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fault_server import await_that
from hypothesis import given, settings
from hypothesis import strategies as st

from gandist.data.image_set import Reading
from gandist.data.order import Ints, Order
from gandist.data.remote.cache import Lease
from gandist.data.remote.images import ShardsInOrder
from gandist.data.remote.live import WHOLE_SHARDS, lanes_fit, live_bytes, node_note, node_slice
from gandist.data.remote.room import NoRoomError
from gandist.data.remote.window import FETCHERS, LEASES_AT_MOST, Plan, Window

# --- the plan ----------------------------------------------------------------------------------------------

NEEDS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=40)


@given(NEEDS, st.integers(0, 30), st.integers(1, 4), st.integers(1, 12), st.integers(1, 5))
@settings(max_examples=200)
def test_a_plan_holds_what_is_needed_and_keeps_its_bounds(
    needs: list[list[int]], budget: int, ahead: int, horizon: int, at_once: int
) -> None:
    def shards_of(batch: int) -> list[int]:
        return needs[batch % len(needs)]

    sizes = [1 + n % 3 for n in range(10)]
    plan = Plan(shards_of, sizes, budget_bytes=budget, ahead_batches=ahead, horizon_batches=horizon)
    horizon = max(horizon, ahead)
    for passed in range(-1, 50):
        if passed >= 0:
            before = set(plan)
            gone = plan.passed(passed)
            assert before - set(plan) == set(gone)
            assert not any(n in needs[(passed + 1) % len(needs)] for n in gone), "the very next batch needs it"
        while plan.extend(at_once):
            pass
        now = list(plan)
        soon = [n for batch in range(passed + 1, passed + 1 + ahead) for n in shards_of(batch)]
        assert set(soon) <= set(now), "what may be read already is always planned"
        some = {n for batch in range(passed + 1, passed + 1 + horizon) for n in shards_of(batch)}
        assert set(now) <= some, "nothing that no batch within the horizon needs"
        if set(now) != set(soon):
            assert sum(sizes[n] for n in now) <= budget


def test_the_plan_is_in_the_order_of_need() -> None:
    plan = Plan(lambda b: [[3, 1], [0], [1, 2], []][b], [1] * 4, budget_bytes=None, ahead_batches=1, horizon_batches=3)
    assert not plan.extend(10)
    assert list(plan) == [3, 1, 0, 2]
    assert plan.passed(0) == [3]
    assert plan.passed(2) == [1, 0, 2]


def test_open_files_are_bounded() -> None:
    plan = Plan(lambda b: [b], [0] * 1000, budget_bytes=10, ahead_batches=1, horizon_batches=900)
    plan.extend(1000)
    assert len(list(plan)) == LEASES_AT_MOST


# --- the threads -------------------------------------------------------------------------------------------


class Shelf:
    """Leases on nothing, and what is on lease."""

    def __init__(self, tmp_path: Path, act: Callable[[int, threading.Event], None] = lambda shard, stop: None) -> None:
        self._file, self._act = tmp_path / "shard", act
        self._file.touch()
        self.asked: list[int] = []
        self.out: set[int] = set()

    def lease(self, shard: int, *, beyond: bool = True, stop: threading.Event | None = None) -> Lease:
        assert not beyond, "what is only got ready must not exceed the bound"
        assert stop is not None
        self.asked.append(shard)
        self._act(shard, stop)
        self.out.add(shard)
        shelf = self

        class Noted(Lease):
            def close(self) -> None:
                super().close()
                shelf.out.discard(shard)

        return Noted(self._file, os.open(self._file, os.O_RDONLY))


def window_over(shelf: Shelf, needs: list[list[int]], *, hold: bool = True, horizon: int = 3) -> Window:
    plan = Plan(
        lambda batch: needs[batch] if batch < len(needs) else [],
        [1] * 100,
        budget_bytes=1000,
        ahead_batches=1,
        horizon_batches=horizon,
    )
    return Window(shelf, plan, lambda position: position // 8, hold=hold)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(("shards-ahead", "fetch-"))}


def test_leases_are_taken_ahead_and_given_back(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    with window_over(shelf, [[0], [1, 0], [2], [3], [4], [0]]) as window:
        await_that(lambda: shelf.out == {0, 1, 2}, "three batches ahead")
        window.passed(0)
        await_that(lambda: shelf.out == {0, 1, 2, 3}, "the next")
        window.passed(8)
        await_that(lambda: shelf.out == {2, 3, 4}, "0 and 1 to be given back")
        window.passed(16)
        await_that(lambda: shelf.out == {3, 4, 0}, "0 again")
    assert shelf.out == set()
    await_that(lambda: not threads(), "the threads to end")


def test_a_few_are_fetched_at_a_time(tmp_path: Path) -> None:
    go_on, at_once = threading.Semaphore(0), []

    def slow(shard: int, stop: threading.Event) -> None:
        at_once.append(shard)
        go_on.acquire()

    shelf = Shelf(tmp_path, slow)
    with window_over(shelf, [list(range(20))]):
        await_that(lambda: len(at_once) == FETCHERS, "as many as there are fetchers")
        assert sorted(at_once) == list(range(FETCHERS)), "those that are needed first"
        go_on.release(20)
        await_that(lambda: len(shelf.out) == 20, "all")


def test_errors_are_left_to_the_reader(tmp_path: Path) -> None:
    def failing(shard: int, stop: threading.Event) -> None:
        if shard % 2:
            raise OSError("no")

    shelf = Shelf(tmp_path, failing)
    with window_over(shelf, [[0, 1, 2], [1], [3, 4]]) as window:
        await_that(lambda: shelf.out == {0, 2, 4}, "the good ones")
        await_that(lambda: shelf.asked.count(3) == 1, "the bad ones to be tried")
        assert shelf.asked.count(1) == 1, "and not again and again"
        window.passed(0)
        await_that(lambda: shelf.out == {4}, "the rest to be given back")


def test_no_room_waits_until_something_was_given_back(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)

    def full(shard: int, stop: threading.Event) -> None:
        if len(shelf.out) >= 2:
            raise NoRoomError

    shelf._act = full
    with window_over(shelf, [[0], [1], [2], [3]]) as window:
        await_that(lambda: 2 in shelf.asked, "the third")
        assert shelf.out == {0, 1}
        window.passed(0)
        await_that(lambda: shelf.out == {1, 2}, "room for it")


def test_nothing_is_held_where_all_has_room(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    with window_over(shelf, [[0, 1], [2], [0]], hold=False) as window:
        await_that(lambda: set(shelf.asked) == {0, 1, 2} and not shelf.out, "all to be fetched and given back")
        window.passed(0)
        window.passed(8)
    assert sorted(shelf.asked) == [0, 1, 2]


def test_the_end_waits_for_no_silent_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gandist.data.remote.window._LAST_WAIT_SECONDS", 0.05)
    go_on = threading.Event()
    shelf = Shelf(tmp_path, lambda shard, stop: go_on.wait(30) and None)
    with window_over(shelf, [[0]]):
        await_that(lambda: shelf.asked == [0], "the fetch")
    assert all(thread.daemon for thread in threading.enumerate() if thread.name in threads())
    go_on.set()
    await_that(lambda: not threads() and not shelf.out, "the threads to end and to give back what still came")


# --- what an order needs -----------------------------------------------------------------------------------


def shards_at(order: Order, counts: list[int]) -> Callable[[Ints], Ints]:
    return ShardsInOrder(order, np.cumsum(counts))


def reading(**changes: int) -> Reading:
    defaults = {"batch_images": 16, "rank": 0, "world": 1, "local_world": 1, "start": 0, "ahead_batches": 2}
    return Reading(**{**defaults, **changes})


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any), st.sampled_from([4, 1000]), st.integers(1, 3),
    st.integers(0, 200), st.integers(0, 5), st.sampled_from([(1, 1), (2, 1), (4, 2)]),
)  # fmt: skip
@settings(max_examples=60)
def test_the_live_set_is_what_a_run_holds(
    counts: list[int], chunk: int, lanes: int, start: int, ahead: int, ranks: tuple[int, int]
) -> None:
    """Against a plain count, batch by batch."""
    world, local = ranks
    order = Order(counts, 3, chunk=chunk, block=32, lanes=lanes)
    sizes = np.arange(1, len(counts) + 1, dtype=np.int64)
    here = reading(start=start, ahead_batches=ahead, world=world, local_world=local, rank=world - 1)
    where = np.array(node_slice(here))
    batches = -(-order.samples // 16)
    uses: dict[tuple[int, int], list[int]] = {}
    for batch in range(batches):
        positions = start + batch * 16 + where
        for epoch, shard in zip(positions // order.samples, shards_at(order, counts)(positions), strict=True):
            uses.setdefault((int(epoch), int(shard)), []).append(batch)
    most = max(
        sum(int(sizes[s]) for (_, s), used in uses.items() if used[0] - ahead <= batch <= used[-1])
        for batch in range(batches)
    )
    assert live_bytes(shards_at(order, counts), sizes, order.samples, here) == most


def test_small_chunks_need_everything_and_whole_shards_little() -> None:
    counts = [1000] * 50
    sizes = np.full(50, 10**6, dtype=np.int64)

    def needed(chunk: int, lanes: int) -> int:
        order = Order(counts, 0, chunk=chunk, block=1000, lanes=lanes)
        return live_bytes(shards_at(order, counts), sizes, 50_000, reading(batch_images=64))

    assert needed(32, 1) == 50 * 10**6
    assert needed(WHOLE_SHARDS, 1) <= 3 * 10**6
    assert needed(WHOLE_SHARDS, 8) <= 28 * 10**6, "20 shards in the middle of an epoch, and the first 8 of the next"


def test_large_sets_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [1000] * 50
    order = Order(counts, 0, chunk=WHOLE_SHARDS, block=1000, lanes=8)
    sizes = np.full(50, 10**6, dtype=np.int64)
    exact = live_bytes(shards_at(order, counts), sizes, 50_000, reading(batch_images=64))
    monkeypatch.setattr("gandist.data.remote.live._POSITIONS_IN_ALL", 10_000)
    in_parts = live_bytes(shards_at(order, counts), sizes, 50_000, reading(batch_images=64))
    assert exact <= in_parts <= exact + 4 * 10**6


# --- several nodes -----------------------------------------------------------------------------------------


def test_the_ranks_of_a_node_read_neighbouring_places() -> None:
    slices = [node_slice(reading(world=8, local_world=4, rank=rank)) for rank in range(8)]
    assert slices == [range(8)] * 4 + [range(8, 16)] * 4


@pytest.mark.parametrize(("world", "local"), [(2, 1), (4, 2), (8, 2), (8, 8)])
def test_lanes_that_fit_share_the_shards_among_the_nodes(world: int, local: int) -> None:
    """Over an epoch the nodes need one shard each, but for those in which two lanes meet."""
    counts, batch, shards = [100] * 64, 32, 64
    lanes = max(8, world)
    order = Order(counts, 5, chunk=WHOLE_SHARDS, block=200, lanes=lanes, stripe=batch // lanes)
    needed = []
    for rank in range(0, world, local):
        here = reading(batch_images=batch, rank=rank, world=world, local_world=local)
        where = np.array(node_slice(here))
        positions = np.arange(0, order.samples, batch)[:, None] + where
        needed.append(set(shards_at(order, counts)(positions).ravel().tolist()))
        assert lanes_fit(here, lanes, batch // lanes)
        assert node_note(here, chunk=WHOLE_SHARDS, lanes=lanes, stripe=batch // lanes, longest_shard=100) is None
    nodes = world // local
    assert set().union(*needed) == set(range(shards))
    assert sum(map(len, needed)) <= shards + nodes - 1
    assert max(map(len, needed)) <= shards // nodes + 2


def test_other_orders_are_remarked_upon_with_knobs_that_fit() -> None:
    here = reading(batch_images=64, world=4, local_world=2)
    for chunk, lanes, stripe in [(32, 8, 8), (WHOLE_SHARDS, 1, 1), (WHOLE_SHARDS, 8, 1), (WHOLE_SHARDS, 2, 32)]:
        note = node_note(here, chunk=chunk, lanes=lanes, stripe=stripe, longest_shard=100)
        assert note is not None
        assert "--data.chunk 2147483648 --data.lanes 8 --data.stripe 8" in note
    assert node_note(here, chunk=WHOLE_SHARDS, lanes=8, stripe=8, longest_shard=100) is None
    alone = reading(batch_images=64, world=4, local_world=4)
    assert node_note(alone, chunk=32, lanes=1, stripe=1, longest_shard=100) is None
    few = reading(batch_images=6, world=2, local_world=1)
    assert "--data.lanes 6 --data.stripe 1" in str(node_note(few, chunk=32, lanes=1, stripe=1, longest_shard=100))
