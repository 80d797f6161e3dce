import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gandist.data.order import Order, coins, key64, perm, words

shard_counts = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any)
shapes = st.fixed_dictionaries(
    {"chunk": st.integers(1, 50), "block": st.integers(1, 60), "lanes": st.integers(1, 9), "stripe": st.integers(1, 9)}
)

FIRST_EPOCH = [7, 8, 2, 4, 12, 13, 3, 10, 5, 11, 0, 1, 9, 6]
SECOND_EPOCH = [0, 3, 8, 13, 10, 9, 1, 2, 6, 5, 12, 7, 11, 4]
KEY = 14240323357553464987
WORDS = [10354469827411553372, 14259178497765549479, 14492142852987216823]
COINS = [0, 0, 0, 1, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1, 0, 1]


@pytest.mark.parametrize(
    ("n", "key", "expected"),
    [(10, (0, 0, 0), [9, 3, 1, 5, 2, 8, 7, 4, 6, 0]), (5, (1, 2, 3), [3, 0, 1, 2, 4])],
)
def test_permutations_never_change(n: int, key: tuple[int, ...], expected: list[int]) -> None:
    assert perm(n, *key).tolist() == expected, "every run in progress would go on with other images"


def test_whole_orders_never_change() -> None:
    order = Order([5, 0, 9], 7, chunk=2, block=4, lanes=2, stripe=3)
    first, second = order.locate(np.arange(28)).reshape(2, 14).tolist()
    assert first == FIRST_EPOCH
    assert second == SECOND_EPOCH


def test_keys_and_coins_never_change() -> None:
    assert int(key64(0, "hflip")) == KEY
    assert words(np.array([0, 1, 2**40]), 3).tolist() == WORDS
    assert coins(np.arange(16), 0, "hflip").astype(int).tolist() == COINS


@given(shard_counts, shapes, st.integers(0, 2**63), st.integers(0, 1000))
def test_every_epoch_holds_every_sample_once(counts: list[int], shape: dict[str, int], seed: int, epoch: int) -> None:
    order = Order(counts, seed, **shape)
    n = sum(counts)
    assert sorted(order.locate(np.arange(epoch * n, (epoch + 1) * n)).tolist()) == list(range(n))


@given(shard_counts.filter(lambda counts: sum(counts) >= 40), shapes, st.integers(0, 2**40), st.integers(0, 1000))
def test_no_two_epochs_have_the_same_order(counts: list[int], shape: dict[str, int], seed: int, epoch: int) -> None:
    """With at least four chunks or blocks to shuffle: fewer may fall alike by chance."""
    shape = {**shape, "chunk": min(shape["chunk"], 10), "block": max(shape["block"], 10), "lanes": 1}
    n = sum(counts)
    this, following = Order(counts, seed, **shape).locate(np.arange(epoch * n, (epoch + 2) * n)).reshape(2, n)
    assert this.tolist() != following.tolist()
    other = Order(counts, seed + 1, **shape).locate(np.arange(epoch * n, (epoch + 1) * n))
    assert other.tolist() != this.tolist()


def test_sets_beyond_32_bits() -> None:
    """The arrays of an epoch get wider there."""
    counts = [1 << 31, (1 << 31) - 7, 5, 1 << 31]
    for parts in (counts[:3], counts):
        order = Order(parts, 3, chunk=1 << 29, block=50)
        positions = np.array([0, 1, 49, 50, 2**32 - 3, 2**33, 2**40])
        found = order.locate(positions)
        assert [int(order.locate(np.array([t]))[0]) for t in positions] == found.tolist()
        n = sum(parts)
        assert order.samples == n
        assert ((found >= 0) & (found < n)).all()
        near_the_end = np.arange(2 * n - 200, 2 * n)  # whole blocks, and the border of an epoch
        assert len(set(order.locate(near_the_end).tolist())) == 200


def test_an_order_travels_without_its_shuffles() -> None:
    order = Order([100] * 1000, 0)
    size = len(pickle.dumps(order))
    first = order.locate(np.arange(500))
    sent = pickle.dumps(order)
    assert len(sent) == size
    assert (pickle.loads(sent).locate(np.arange(500)) == first).all()  # noqa: S301 - how a worker gets it


@given(shard_counts, shapes, st.data())
def test_any_question_gets_the_same_answer(counts: list[int], shape: dict[str, int], data: st.DataObject) -> None:
    n = sum(counts)
    everything = Order(counts, 5, **shape).locate(np.arange(4 * n))
    asked = np.array(data.draw(st.lists(st.integers(0, 4 * n - 1), min_size=1, max_size=40)))
    order = Order(counts, 5, **shape)
    one_by_one = [int(order.locate(np.array([t]))[0]) for t in asked]
    assert one_by_one == everything[asked].tolist()
    assert order.locate(asked).tolist() == everything[asked].tolist()
    assert order.locate(asked.reshape(1, -1)).shape == (1, len(asked))


def naive(order: Order, counts: list[int], t: int) -> int:
    """The definition, one position at a time, with counting loops where the code has closed forms."""
    n, lanes, stripe = sum(counts), order.lanes, order.stripe
    epoch, lane = t // n, (t // stripe) % lanes

    def lane_of(x: int) -> int:
        return (x // stripe) % lanes

    mine = [x for x in range(epoch * n, (epoch + 1) * n) if lane_of(x) == lane]
    base = sum(lane_of(x) < lane for x in range(epoch * n, (epoch + 1) * n))
    p = mine.index(t)
    block, q = divmod(p, order.block)
    size = min(order.block, len(mine) - block * order.block)
    place = base + block * order.block + int(perm(size, order.seed, epoch, 1, lane, block)[q])
    chunks = []
    for shard, count in enumerate(counts):
        first = sum(counts[:shard])
        chunks += [range(first, first + count)[i : i + order.chunk] for i in range(0, count, order.chunk)]
    shuffled = [sample for c in perm(len(chunks), order.seed, epoch, 0) for sample in chunks[c]]
    return shuffled[place]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=4).filter(any), shapes, st.data())
def test_the_order_is_its_definition(counts: list[int], shape: dict[str, int], data: st.DataObject) -> None:
    order = Order(counts, 11, **shape)
    t = data.draw(st.integers(0, 3 * sum(counts) - 1))
    assert order.locate(np.array([t])).tolist() == [naive(order, counts, t)]


def test_epochs_and_seeds_differ() -> None:
    order, other = Order([100], 0), Order([100], 1)
    first, second = order.locate(np.arange(200)).reshape(2, 100)
    assert (first != second).sum() > 80
    assert (first != other.locate(np.arange(100))).sum() > 80


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_with_matching_lanes_ranks_read_disjoint_chunks(ranks: int) -> None:
    batch, lanes = 16, 8
    order = Order([1 << 20] * 64, 0, chunk=1 << 31, block=64, lanes=lanes, stripe=batch // lanes)
    read: list[set[int]] = [set() for _ in range(ranks)]
    for step in range(200):
        samples = order.locate(np.arange(step * batch, (step + 1) * batch))
        for rank, part in enumerate(samples.reshape(ranks, -1)):
            read[rank] |= set((part >> 20).tolist())
    assert sum(map(len, read)) == len(set.union(*read)), "a shard is read by two ranks"


def test_fingerprints_tell_every_difference() -> None:
    same = {"chunk": 4, "block": 8, "lanes": 1, "stripe": 1}
    prints = {
        Order([5, 5], 0, **same).fingerprint("a"),
        Order([5, 5], 0, **same).fingerprint("b"),
        Order([5, 5], 1, **same).fingerprint("a"),
        *(Order([5, 5], 0, **{**same, key: 9}).fingerprint("a") for key in same),
    }
    assert len(prints) == 7
    assert Order([5, 5], 0, **same).fingerprint("a") in prints


def test_class_sorted_data_is_well_shuffled() -> None:
    """The variance of class counts in a batch is near that of a full shuffle, in the worst case of sorted classes."""
    labels = np.repeat(np.arange(10), 5000)
    order = Order([1000] * 50, 0)
    batches = labels[order.locate(np.arange(768 * 64))].reshape(768, 64)
    counts = np.stack([(batches == c).sum(1) for c in range(10)])
    assert counts.var() / (64 * 0.1 * 0.9) < 1.5


@pytest.mark.parametrize("shape", [{"chunk": 0}, {"block": 0}, {"lanes": 0}, {"stripe": 0}])
def test_our_own_mistakes_are_caught(shape: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Order([3], 0, **shape)
    with pytest.raises(ValueError, match="at least one sample"):
        Order([0, 0], 0)
    with pytest.raises(ValueError, match="position -1 is negative"):
        Order([3], 0).locate(np.array([0, -1]))
