"""How well classes are mixed, in the worst case: a set that is sorted by class."""

from __future__ import annotations

import numpy as np
from rounds.report import Table

from gandist.data.order import Ints, Order

SHARDS, EACH, CLASSES, BATCH = 50, 1000, 10, 64
SAMPLES = SHARDS * EACH
WHOLE = 1 << 31


def table(*, quick: bool) -> Table:
    """Return the unevenness of batches and the shards in use, for some ways to shuffle."""
    seeds = range(1 if quick else 5)
    ways: list[tuple[str, list[Ints]]] = [
        ("every sample anew", [np.random.default_rng(s).permutation(SAMPLES) for s in seeds])
    ]
    for chunk, block, lanes in [
        (32, 8192, 1), (32, 16384, 1), (1, 8192, 1), (8, 8192, 1), (256, 8192, 1),
        (WHOLE, 1000, 1), (WHOLE, 8192, 1), (WHOLE, 1000, 8), (WHOLE, 1000, 16),
    ]:  # fmt: skip
        how = {"chunk": chunk, "block": block, "lanes": lanes, "stripe": BATCH // lanes}
        name = (
            f"chunk {chunk}, block {block:,}" if chunk != WHOLE else f"whole shards, block {block:,}, {lanes} lane(s)"
        )
        ways.append((name, [Order(np.full(SHARDS, EACH), s, **how).locate(np.arange(SAMPLES)) for s in seeds]))
    for buffer in (1000, 5000, 20_000):
        ways.append((f"shuffled shards, then a buffer of {buffer:,}", [_buffered(buffer, s) for s in seeds]))
    rows = [
        [name, f"{np.mean([unevenness(found) for found in orders]):.2f}", str(max(map(live_shards, orders)))]
        for name, orders in ways
    ]
    return Table(
        "Mixing of a set sorted by class",
        f"{SHARDS} shards of {EACH:,} images, {CLASSES} classes one after the other, batches of {BATCH}. Unevenness: "
        "variance of a class's images in a batch, 1 for batches drawn by chance. Live: shards that are in use at the "
        "same time, at most, from their first image in the epoch to their last; a cache must hold them. A buffer is "
        "how WebDataset shuffles. Sets written by `gandist prepare` are shuffled already; then every row would say 1.",
        ["order", "unevenness", "live shards"],
        rows,
    )


def unevenness(samples: Ints) -> float:
    """Return the variance of class counts in batches over that of independent draws."""
    batches = (samples // (SAMPLES // CLASSES))[: len(samples) // BATCH * BATCH].reshape(-1, BATCH)
    counts = np.stack([(batches == number).sum(1) for number in range(CLASSES)])
    return float(counts.var() / (BATCH / CLASSES * (1 - 1 / CLASSES)))


def live_shards(samples: Ints) -> int:
    """Return how many shards are between their first and last use at once, at most."""
    shard = samples // EACH
    change = np.zeros(len(samples) + 1, dtype=np.int64)
    for number in range(SHARDS):
        used = np.flatnonzero(shard == number)
        change[used[0]] += 1
        change[used[-1] + 1] -= 1
    return int(np.cumsum(change).max())


def _buffered(buffer: int, seed: int) -> Ints:
    """Shuffle whole shards, then draw from a buffer that is refilled in their order."""
    chance = np.random.default_rng(seed)
    incoming = np.concatenate([np.arange(s * EACH, (s + 1) * EACH) for s in chance.permutation(SHARDS)])
    held, out = incoming[:buffer].copy(), []
    for sample in incoming[buffer:]:
        place = chance.integers(buffer)
        out.append(held[place])
        held[place] = sample
    return np.concatenate([np.array(out, dtype=np.int64), chance.permutation(held)])
