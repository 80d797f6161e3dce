"""Who reads what: ranks share batches exactly, and nodes with lanes of their own fetch shards of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rounds.report import Table

from gandist.data.order import Ints, Order

NODES, LOCAL = 128, 8
RANKS = NODES * LOCAL
WHOLE = 1 << 31


def ranks(*, quick: bool) -> tuple[Table, list[str]]:
    """Return how 1,024 ranks share batches and a whole epoch, and complaints if they do not."""
    batch = RANKS * 8
    far = Order(np.full(1000 if quick else 100_000, 1000), 0)
    near = Order(np.full(200 if quick else 1000, 1003), 0)
    border = far.samples - 20 * batch - 4321  # 20 batches before an epoch ends inside a batch
    cases = [
        ("40 batches over the border of an epoch", far, border // batch * batch, 40),
        ("a whole epoch", near, 0, -(-near.samples // batch)),
    ]
    rows, wrong = [], []
    for name, order, start, count in cases:
        steps = start + batch * np.arange(count)[:, None]
        read = np.array([[_share(order, step, batch, rank) for rank in range(RANKS)] for step in steps[:, 0].tolist()])
        positions = steps[:, :, None] + np.arange(batch).reshape(1, RANKS, -1)
        twice, missing = _twice_and_missing(read, positions, order, whole=start == 0)
        same = np.array_equal(read.reshape(count, -1), order.locate(steps + np.arange(batch)))
        rows.append(
            [name, f"{order.samples:,}", f"{batch:,}", f"{count:,}", str(twice), str(missing), "yes" if same else "NO"]
        )
        if twice or missing or not same:
            wrong.append(f"{name}: {twice} samples were read twice, {missing} never; the global batch: {same}")
    return (
        Table(
            f"{RANKS:,} ranks ({NODES} nodes of {LOCAL})",
            "Each rank works out its own part of each global batch, knowing no other. Read twice: samples that two "
            "ranks, or one rank again, read within an epoch; never: samples of the epoch that no rank read; the last "
            "column: whether the parts side by side are the batch that one rank alone would read.",
            ["batches", "samples", "batch", "count", "read twice", "never", "as one rank"],
            rows,
        ),
        wrong,
    )


def _share(order: Order, position: int, batch: int, rank: int) -> Ints:
    """Return what a rank reads of the batch at a position."""
    size = batch // RANKS
    return order.locate(position + rank * size + np.arange(size))


def _twice_and_missing(read: Ints, positions: Ints, order: Order, *, whole: bool) -> tuple[int, int]:
    twice = missing = 0
    for epoch in np.unique(positions // order.samples).tolist():
        counts = np.bincount(read[positions // order.samples == epoch])
        twice += int((counts > 1).sum())
        if whole and epoch == 0:
            missing += order.samples - int((counts > 0).sum())
    return twice, missing


@dataclass(frozen=True)
class Way:
    """A way to shuffle, and its words."""

    words: str
    chunk: int
    lanes: int
    stripe: int


def downloads(*, quick: bool) -> Table:
    """Return the share of the shards that a node with a cache of its own fetches in an epoch."""
    nodes, batch = 16, 1024
    counts = np.full(400 if quick else 2000, 1000)
    world = nodes * LOCAL
    ways = [
        Way("chunk 32, one lane (default)", 32, 1, 1),
        Way("whole shards, one lane", WHOLE, 1, 1),
        Way("whole shards, 8 lanes, stripe 1: not fitted", WHOLE, 8, 1),
        Way(f"chunk 32, {world} lanes, stripe {batch // world}", 32, world, batch // world),
        Way(f"whole shards, 16 lanes, stripe {batch // 16}: a lane for each node", WHOLE, 16, batch // 16),
        Way(
            f"whole shards, {world} lanes, stripe {batch // world}: a lane for each rank", WHOLE, world, batch // world
        ),
    ]
    rows = []
    for way in ways:
        order = Order(counts, 0, chunk=way.chunk, lanes=way.lanes, stripe=way.stripe)
        steps = order.samples // batch
        shards = order.locate(np.arange(steps * batch)).reshape(steps, nodes, -1) // 1000
        fetched = [len(np.unique(shards[:, node])) / len(counts) for node in range(nodes)]
        rows.append([way.words, f"{np.mean(fetched):.1%}", f"{np.max(fetched):.1%}", f"{np.sum(fetched):.2f}"])
    return Table(
        f"What {nodes} nodes fetch in an epoch",
        f"Each node of {LOCAL} ranks has a cache of its own; batches of {batch:,}. Share of all shards that a node "
        f"fetches, on average and at most, and what all of them fetch together, in sets: {nodes} where each fetches "
        "everything, 1 where none fetches what another has.",
        ["order", "a node", "at most", "together"],
        rows,
    )
