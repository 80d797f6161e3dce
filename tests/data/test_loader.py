"""Batches: what no number of ranks, workers or restarts may change, and how workers come and go."""

import contextlib
import itertools
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import opened

from gandist.data.image_set import ImageSet
from gandist.data.loader import Batch, batches, check_divides, warm_up
from gandist.data.order import coins
from gandist.errors import ConfigError, DataError, MachineError, RunError


def begin(images: ImageSet, batch_images: int = 24, **options: object) -> Iterator[Batch]:
    defaults = {
        "rank": 0, "world": 1, "start": 0, "workers": 0, "prefetch_batches": 2, "pin_memory": False, "hflip": False,
        "seed": 0,
    }  # fmt: skip
    return batches(images, batch_images=batch_images, **{**defaults, **options})  # type: ignore[arg-type]


def taken(images: ImageSet, count: int, batch_images: int = 24, **options: object) -> list[Batch]:
    stream = begin(images, batch_images, **options)
    try:
        return list(itertools.islice(stream, count))
    finally:
        stream.close()  # type: ignore[attr-defined]


def joined(parts: list[Batch]) -> tuple[bytes, list[int]]:
    return torch.cat([part.images for part in parts]).numpy().tobytes(), torch.cat([p.labels for p in parts]).tolist()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_ranks_and_workers_change_nothing(shards: Path, workers: int) -> None:
    """Five batches of 24 from a set of 53, so that epochs end inside batches, at 1, 2, 3, 4 and 8 ranks."""
    images, start = opened(shards), 31
    whole = taken(images, 5, start=start, hflip=True)
    assert [batch.position for batch in whole] == [31, 55, 79, 103, 127]
    worlds = (
        [(1, 0), (2, 0), (2, 1), (3, 2), (4, 1), (8, 7)]
        if workers
        else [(w, r) for w in (1, 2, 3, 4, 8) for r in range(w)]
    )
    for world, rank in worlds:
        share = taken(images, 5, start=start, hflip=True, rank=rank, world=world, workers=workers)
        size = 24 // world
        for mine, all_of_it in zip(share, whole, strict=True):
            part = slice(rank * size, (rank + 1) * size)
            assert mine.position == all_of_it.position
            assert torch.equal(mine.images, all_of_it.images[part]), f"rank {rank} of {world}"
            assert torch.equal(mine.labels, all_of_it.labels[part])


@given(st.integers(0, 300), st.integers(1, 12), st.integers(1, 3), st.integers(1, 12), st.sampled_from([1, 2, 3, 4]))
@settings(max_examples=30)
def test_going_on_is_the_same_at_any_batch_and_world(
    shards: Path, start: int, batch: int, steps: int, next_batch: int, world: int
) -> None:
    images = opened(shards)
    stop = start + batch * steps
    before = taken(images, steps, batch, start=start, hflip=True)
    size = next_batch * world
    after = [
        [taken(images, 2, size, start=stop, hflip=True, world=world, rank=rank)[step] for rank in range(world)]
        for step in range(2)
    ]
    total = batch * steps + 2 * size
    straight = taken(images, total, 1, start=start, hflip=True)
    assert joined(straight) == joined([*before, *(part for step in after for part in step)])


def test_a_batch_may_be_larger_than_the_set(shards: Path) -> None:
    (batch,) = taken(opened(shards), 1, 53 * 3 + 7)
    counts = np.unique(batch.images.reshape(len(batch.images), -1).numpy(), axis=0, return_counts=True)[1]
    assert sorted(counts.tolist()) == [3] * 46 + [4] * 7


def test_types_and_shapes(shards: Path) -> None:
    (batch,) = taken(opened(shards), 1, 6, world=3, rank=1)
    assert (batch.images.shape, batch.images.dtype) == ((2, 8, 8, 3), torch.uint8)
    assert (batch.labels.shape, batch.labels.dtype) == ((2,), torch.int64)


def test_flips_are_drawn_by_position(shards: Path) -> None:
    images = opened(shards)
    plain, _ = joined(taken(images, 10))
    flipped, _ = joined(taken(images, 10, hflip=True))
    plain, flipped = (np.frombuffer(x, dtype=np.uint8).reshape(240, 8, 8, 3) for x in (plain, flipped))
    expected = coins(np.arange(240), 0, "hflip")
    assert 90 < expected.sum() < 150
    assert (flipped[expected] == plain[expected, :, ::-1]).all()
    assert (flipped[~expected] == plain[~expected]).all()
    other, _ = joined(taken(images, 10, hflip=True, seed=1))
    assert other != flipped.tobytes()


@pytest.mark.parametrize(
    ("batch", "world", "ways"),
    [
        (64, 3, "--update.batch_images 63 or 66, or run on 1, 2, 4, 8 ranks"),
        (64, 6, "--update.batch_images 60 or 66, or run on 1, 2, 4, 8 ranks"),
        (1, 4, "--update.batch_images 4, or run on 1 ranks"),
        (7, 8, "--update.batch_images 8, or run on 1, 7 ranks"),
    ],
)
def test_a_batch_that_cannot_be_shared_names_ways_out(shards: Path, batch: int, world: int, ways: str) -> None:
    with pytest.raises(ConfigError) as caught:
        begin(opened(shards), batch, world=world)
    assert ways in str(caught.value)
    for size in (s for s in range(1, 130) if s % world == 0):
        check_divides(size, world)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_the_users_error_in_plain_words(shards_copy: Path, workers: int) -> None:
    images = opened(shards_copy)
    shard = shards_copy / "shard-000000.tar"
    raw = shard.read_bytes()
    shard.write_bytes(raw.replace(b"NUMPY", b"NUNPY"))
    with pytest.raises(DataError) as caught:
        taken(images, 5, workers=workers)
    assert str(caught.value).startswith(f"{shard}: byte ")
    assert "Traceback" not in str(caught.value)


def test_too_little_shared_memory_is_said_before_it_crashes(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        f_bavail, f_frsize = 1, 4096

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    with pytest.raises(MachineError, match=r"/dev/shm has 0 MiB free.*--shm-size"):
        begin(opened(shards), workers=1)
    assert len(taken(opened(shards), 1)) == 1, "without workers none is needed"


# --- processes ---------------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """All live descendants of a process."""
    below = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                below += [int(entry.name), *children(int(entry.name))]
    return below


def await_that(condition: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


PLAY = """
import sys, itertools, signal
from gandist.config import DataConfig
from gandist.data.images import open_images
from gandist.data.loader import batches

if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, lambda number, frame: print("signal", number, flush=True))
    images = open_images(DataConfig(shards=sys.argv[1], resolution=8), 0)
    stream = batches(images, batch_images=8, rank=0, world=1, start=0, workers=2, prefetch_batches=2,
                     pin_memory=False, hflip=False, seed=0)
    for number, batch in enumerate(stream):
        print("batch", number, flush=True)
        if sys.stdin.readline().strip() == "end":
            break
    print("ended", flush=True)
"""


class Player:
    """A process in a group of its own that reads batches with two workers, one for each line it is sent."""

    def __init__(self, shards: Path, script: Path) -> None:
        script.write_text(PLAY)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script), str(shards)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True, bufsize=1,
        )  # fmt: skip

    def hears(self, expected: str) -> None:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        assert ready, f"waited for {expected!r}"
        assert self.process.stdout.readline().strip() == expected

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def player(shards: Path, tmp_path: Path) -> Iterator[Player]:
    player = Player(shards, tmp_path / "play.py")
    yield player
    player.kill()


def test_workers_live_through_signals_and_end_with_the_trainer(player: Player) -> None:
    """Signals to the whole group are for the trainer alone; batches go on; at the end nothing is left or complains."""
    player.hears("batch 0")
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        os.killpg(player.process.pid, number)
        player.hears(f"signal {int(number)}")
    for number in range(1, 30):
        player.say("")
        player.hears(f"batch {number}")
    family = children(player.process.pid)
    assert len(family) >= 3, "a server and two workers"
    player.say("end")
    player.hears("ended")
    _, complaints = player.process.communicate(timeout=30)
    assert (player.process.returncode, complaints) == (0, "")
    await_that(lambda: not any(map(alive, family)))


def test_workers_end_when_the_trainer_is_killed(player: Player) -> None:
    player.hears("batch 0")
    family = children(player.process.pid)
    assert len(family) >= 3
    player.process.kill()
    await_that(lambda: not any(map(alive, family)))


def test_a_dead_worker_is_an_error_and_not_a_hang(shards: Path) -> None:
    before = set(children(os.getpid()))
    stream = begin(opened(shards), workers=1)
    next(stream)
    worker = max(set(children(os.getpid())) - before)
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(RunError, match="ran out of memory"):
        list(itertools.islice(stream, 100))


def test_warming_up_changes_nothing_but_the_start(shards: Path) -> None:
    warm_up()
    assert joined(taken(opened(shards), 3, workers=1)) == joined(taken(opened(shards), 3))


def test_an_abandoned_stream_leaves_no_worker(shards: Path) -> None:
    stream = begin(opened(shards), workers=1)
    next(stream)
    server_and_worker = children(os.getpid())
    del stream
    await_that(lambda: len(children(os.getpid())) < len(server_and_worker))
